"""Public state dicts: loaded by name, with their input normalisation folded into the first layers."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from coc_runtime import files
from coc_runtime.errors import CocError

from ..tracing import first_convolutions


def load_weights(model: nn.Module, path: Path, mean: Sequence[float], std: Sequence[float]) -> None:
    """Load a plain state dict trained on (pixel / 255 - mean) / std and fold that into the first layers.

    coc-deploy feeds (pixel - 128) / 128, so the weights of the convolutions that read the image are
    scaled and the constant goes into their batch-norm's mean or their bias. Borders differ a little:
    padding is now mid-grey. Raises CocError when the file does not fit the model.
    """
    files.require_regular(path, "give a file that torch.save wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, on files that are none of its own
            state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise CocError(f"{path}: no such weights file") from error
    except Exception as error:
        raise CocError(f"{path}: not a PyTorch state dict") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise CocError(f"{path}: not a plain state dict (name -> tensor)")
    if fault := unsound(state):
        raise CocError(f"{path}: {fault}")
    stems = first_convolutions(model)
    try:
        model.load_state_dict(_renamed(state, set(model.state_dict())))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise CocError(f"{path}: does not fit the model: {detail}") from error
    for conv, norm in stems:
        _fold_normalisation(conv, norm, mean, std)


def unsound(tensors: Mapping[str, Tensor]) -> str | None:
    """What is wrong with the values of weights and statistics, naming the first such tensor; None if nothing
    is."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return f"tensor '{name}' holds NaN or infinity: use weights of a training that did not diverge"
        if name.rpartition(".")[2] == "running_var" and bool((tensor < 0).any()):
            return f"tensor '{name}' holds a negative variance: use statistics of real batches"
    return None


def _renamed(state: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """The state under the model's names: its own where they fit, else without "module." in front (of a
    DataParallel model), else with "fc" for "linear"; those that fit best if none does."""

    def renamings() -> Iterator[dict[str, Tensor]]:
        for prefix in ("", "module."):
            stripped = {name.removeprefix(prefix): value for name, value in state.items()}
            yield stripped
            yield {re.sub(r"(^|\.)linear\.", r"\1fc.", name): value for name, value in stripped.items()}

    return min(renamings(), key=lambda names: len(wanted ^ names.keys()))


@torch.no_grad()
def _fold_normalisation(
    conv: nn.Conv2d, norm: nn.BatchNorm2d | None, mean: Sequence[float], std: Sequence[float]
) -> None:
    if len(mean) != conv.in_channels or len(std) != conv.in_channels:
        raise CocError(f"mean and std must have {conv.in_channels} numbers, one per image channel")
    grey = torch.tensor([(128 / 255 - m) / s for m, s in zip(mean, std, strict=True)])
    gain = torch.tensor([128 / 255 / s for s in std])
    # channels of the image that each output channel reads, [O, I / groups]
    read = torch.arange(conv.in_channels).view(conv.groups, -1)
    read = read.repeat_interleave(conv.out_channels // conv.groups, dim=0)
    constant = (conv.weight * grey[read][:, :, None, None]).sum(dim=(1, 2, 3))
    if norm is not None:
        assert norm.running_mean is not None
        norm.running_mean -= constant
    elif conv.bias is not None:
        conv.bias += constant
    else:
        conv.bias = nn.Parameter(constant)
    conv.weight *= gain[read][:, :, None, None]
