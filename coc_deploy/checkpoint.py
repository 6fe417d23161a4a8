"""model.pt: a dictionary that `torch.load(weights_only=True)` reads and that rebuilds the network alone."""

import io
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coc_runtime import files
from coc_runtime.arithmetic import Task
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError

from . import body as bodies
from . import carried
from .models import Architecture
from .models.weights import unsound
from .network import ExitSpec, Network, exit_logits, resize
from .quantizers import QuantSpec

FORMAT = "coc-deploy model"
VERSION = 3
"""Version 1 held no body: its networks are CIFAR ResNets, which their architecture builds. Version 2 knew
fewer kinds of modules."""


MOST_VALUES = 1 << 26
"""An image that a file names has at most so many values: a damaged size must not take all memory."""


@dataclass(frozen=True)
class Checkpoint:
    """A network with what is known about it: history (one record per stage) and JSON-like meta."""

    network: Network
    history: tuple[dict[str, Any], ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    images: Dataset | None = None
    """some that were held out of training; see `carried`"""

    @property
    def task(self) -> Task:
        """What the network predicts."""
        return _task(self.meta)


def _task(meta: Mapping[str, Any]) -> Task:
    return Task(meta.get("task", Task.CLASSIFICATION.value))


def write_torch(path: Path, value: Mapping[str, Any]) -> None:
    """Save a dictionary of tensors and plain values that `torch.load(weights_only=True)` reads."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    files.write_bytes(path, buffer.getvalue())


def _compact(tensor: Tensor) -> Tensor:
    """The tensor as float16 if that loses nothing."""
    half = tensor.half() if tensor.dtype == torch.float32 else tensor
    return half if torch.equal(half.to(tensor.dtype), tensor) else tensor


def save(path: Path, checkpoint: Checkpoint) -> None:
    network = checkpoint.network
    write_torch(
        path,
        {
            "format": FORMAT,
            "version": VERSION,
            "architecture": network.arch.as_dict(),
            "body": network.describe(),
            "image_size": list(network.image_size),
            "quantization": asdict(network.quant) if network.quant else None,
            "exits": asdict(network.exits) if network.exits else None,
            "thresholds": list(network.thresholds),
            "history": list(checkpoint.history),
            "meta": checkpoint.meta,
            "images": carried.entry(checkpoint.images),
            "state": {name: _compact(tensor) for name, tensor in network.state_dict().items()},
        },
    )


def load(path: Path) -> Checkpoint:
    """Rebuild a network from its file; raises CocError when the file is not a model of coc-deploy."""
    files.require_regular(path, "give a model.pt that coc-compress wrote")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, on files that are none of its own
            data = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError as error:
        raise CocError(f"{path}: no such file") from error
    except Exception as error:
        raise CocError(f"{path}: not a coc-deploy model (torch cannot read it as plain data)") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CocError(f"{path}: not a coc-deploy model; use a model.pt that coc-compress wrote")
    if data.get("version") not in range(1, VERSION + 1):
        raise CocError(f"{path}: format version {data.get('version')}, this coc-deploy reads {VERSION}")
    try:
        network, meta = _rebuild(data), data["meta"]
        images = carried.read(data.get("images"), network.input_shape, _task(meta))
        return Checkpoint(network, tuple(data["history"]), meta, images)
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError, CocError) as error:
        detail = " ".join(str(error).split())[:200]
        raise CocError(f"{path}: damaged coc-deploy model: {detail}") from error


COMPARED = 256
"""Images that tell whether a file holds the network that was measured."""


def refuse_other(path: Path, network: Network, loaded: Network, images: np.ndarray) -> None:
    """Raise CocError unless the network loaded from the file gives the logits of the one that was saved.

    On some of the images, uint8 [N, C, H, W], at every exit, bit for bit.
    """
    network.to(memory_format=torch.channels_last)  # as a loaded one is: the order of float sums depends on it
    saved, found = (exit_logits(each, images[:COMPARED]) for each in (network, loaded))
    if network.thresholds == loaded.thresholds and np.array_equal(saved, found):
        return
    which = "thresholds" if saved.shape == found.shape and np.array_equal(saved, found) else "logits"
    raise CocError(
        f"{path}: gives other {which} than the network that was measured: the file does not hold all "
        "that the network computes, please report this with the recipe"
    )


def _rebuild(data: dict[str, Any]) -> Network:
    state = {name: t.float() if t.dtype == torch.float16 else t for name, t in data["state"].items()}
    if fault := unsound(state):
        raise CocError(fault)
    architecture, (height, width) = Architecture(**data["architecture"]), data["image_size"]
    if not 0 < architecture.channels * height * width <= MOST_VALUES:
        raise CocError(f"images of {architecture.channels} x {height} x {width}")
    if data["version"] == 1:
        network = Network(architecture, (height, width))
        resize(network, state)
    else:
        network = Network(architecture, (height, width), bodies.rebuild(data["body"], state))
    if data["exits"] is not None:
        exits = data["exits"] | {"positions": tuple(data["exits"]["positions"])}
        network.add_exits(ExitSpec(**exits))
    if data["quantization"] is not None:
        network.quantize(QuantSpec(**data["quantization"]))
    network.load_state_dict(state)
    network.thresholds = tuple(data["thresholds"])
    network.to(memory_format=torch.channels_last)
    return network.eval()
