"""Public state dicts: loaded by name, with their input normalisation folded into the first layers."""

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors.torch import load_file
from torch import Tensor, fx, nn

from coc_runtime import files
from coc_runtime.errors import CocError

from ..body import add_module
from ..frontend.constants import channels_read
from ..frontend.modules import Shift

HOLDERS = ("state_dict", "model_state_dict", "model", "net")
"""Where the checkpoints of trainings keep a state dict."""
WRAPPERS = ("module.", "model.", "_orig_mod.", "net.")
"""What DataParallel, Lightning and torch.compile put in front of names."""

NEAR_GREY = 0.25
"""Of the image's range of -1 to 1. ImageNet's means lie within it, black does not."""
SHIFT = "image_shift"
"""The name of a shift that the network did not have."""


def load_weights(body: fx.GraphModule, path: Path, mean: Sequence[float], std: Sequence[float]) -> None:
    """Load a plain state dict trained on (pixel / 255 - mean) / std into a canonical body whose names are the
    state dict's, and fold the normalisation into it."""
    load_state(body, path)
    fold_normalisation(body, mean, std)


def load_state(model: nn.Module, path: Path) -> None:
    """Load a state dict, of torch or safetensors. Raises CocError when the file does not fit the model."""
    files.require_regular(path, "give a file that torch.save wrote")
    state = _read(path)
    if fault := unsound(state):
        raise CocError(f"{path}: {fault}")
    try:
        model.load_state_dict(_renamed(state, set(model.state_dict())))
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:200]
        raise CocError(f"{path}: does not fit the model: {detail}") from error


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict of a file, also where it lies inside of a training's checkpoint."""
    if not path.exists():
        raise CocError(f"{path}: no such weights file")
    try:
        data = load_file(path) if path.suffix == ".safetensors" else _read_torch(path)
    except CocError:
        raise
    except Exception as error:
        raise CocError(f"{path}: not a PyTorch state dict") from error
    inside = [data.get(key) for key in HOLDERS] if isinstance(data, dict) else []
    found = next((state for state in [data, *inside] if _is_state(state)), None)
    if found is None:
        raise CocError(
            f"{path}: not a plain state dict (name -> tensor), nor one under {', '.join(map(repr, HOLDERS))}"
        )
    return found


def _is_state(data: object) -> TypeGuard[dict[str, Tensor]]:
    return isinstance(data, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in data.items()
    )


def _read_torch(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, on files that are none of its own
        return torch.load(path, weights_only=True, map_location="cpu")


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
    """The state under the model's names: its own where they fit, else without WRAPPERS in front, else with
    "fc" for "linear"; those that fit best if none does."""

    def renamings() -> Iterator[dict[str, Tensor]]:
        pending, seen = [""], {""}
        while pending:
            prefix = pending.pop(0)
            inside = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
            yield inside
            yield {re.sub(r"(^|\.)linear\.", r"\1fc.", name): value for name, value in inside.items()}
            longer = {prefix + wrapper for wrapper in WRAPPERS} - seen
            pending += [new for new in sorted(longer) if any(name.startswith(new) for name in state)]
            seen |= longer

    return min(renamings(), key=lambda names: len(wanted ^ names.keys()))


@torch.no_grad()
def fold_normalisation(body: fx.GraphModule, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let a canonical body that takes (pixel / 255 - mean) / std take (pixel - 128) / 128.

    The weights of the convolutions that read the image are scaled and the constant goes into their
    batch-norm's mean or their bias. Padding is then mid-grey in place of the mean; where that is another
    colour, by more than NEAR_GREY, the image is shifted in front of the padding. Behind a shift of the
    network's own nothing changes. Raises CocError if anything else reads the image.
    """
    grey = torch.tensor([(128 / 255 - m) / s for m, s in zip(mean, std, strict=False)])
    gain = torch.tensor([128 / 255 / s for s in std])
    image = body.graph.find_nodes(op="placeholder")[0]
    if (grey / gain).abs().max() > NEAR_GREY:
        _shift_in_front_of_padding(body, image, len(grey))
    modules = dict(body.named_modules())
    readers = _readers(image, modules)
    shifts = [module for _, module in readers if isinstance(module, Shift) and not module.learned]
    for node, module in readers:
        behind = isinstance(module, Shift) and not module.learned
        convolutions = _readers(node, modules) if behind else [(node, module)]
        for reader, conv in convolutions:
            if not isinstance(conv, nn.Conv2d):
                raise CocError(
                    f"{reader.target}: reads the image; mean and std can be folded into convolutions only"
                )
            _check_channels(conv, mean, std)
            users = [modules.get(str(user.target)) for user in reader.users]
            norm = users[0] if len(users) == 1 and isinstance(users[0], nn.BatchNorm2d) else None
            _fold(conv, norm, torch.zeros_like(grey) if behind else grey, gain)
    for shift in shifts:
        value = (shift.constant.detach().reshape(-1) + grey) / gain
        shift.shape, shift.bias = (len(value), 1, 1), value.reshape(-1, 1, 1)


def _shift_in_front_of_padding(body: fx.GraphModule, image: fx.Node, channels: int) -> None:
    """Put a shift by nothing behind the image, for all convolutions that read it, if one of them pads."""
    modules = dict(body.named_modules())
    readers = _readers(image, modules)
    padded = any(isinstance(modules.get(str(user.target)), nn.ZeroPad2d) for user in image.users)
    convolutions = [module for _, module in readers if isinstance(module, nn.Conv2d)]
    padded |= any(any(int(side) for side in conv.padding) for conv in convolutions)
    if len(convolutions) < len(readers) or not padded:
        return
    add_module(body, SHIFT, Shift((channels, 1, 1), False))
    with body.graph.inserting_after(image):
        shift = body.graph.call_module(SHIFT, (image,))
    image.replace_all_uses_with(shift, lambda user: user is not shift)
    body.recompile()


def _readers(node: fx.Node, modules: dict[str, nn.Module]) -> list[tuple[fx.Node, nn.Module | None]]:
    """The nodes that read another, behind zero padding too, with their modules."""
    result = []
    pending = list(node.users)
    while pending:
        user = pending.pop()
        module = modules.get(str(user.target)) if user.op == "call_module" else None
        if isinstance(module, nn.ZeroPad2d):
            pending += list(user.users)
        else:
            result.append((user, module))
    return result


def _check_channels(conv: nn.Conv2d, mean: Sequence[float], std: Sequence[float]) -> None:
    if len(mean) != conv.in_channels or len(std) != conv.in_channels:
        raise CocError(f"mean and std must have {conv.in_channels} numbers, one per image channel")


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d | None, grey: Tensor, gain: Tensor) -> None:
    read = channels_read(conv)
    constant = (conv.weight * grey[read][:, :, None, None]).sum(dim=(1, 2, 3))
    if norm is not None:
        assert norm.running_mean is not None
        norm.running_mean -= constant
    elif conv.bias is not None:
        conv.bias += constant
    elif constant.any():
        conv.bias = nn.Parameter(constant)
    conv.weight *= gain[read][:, :, None, None]
