"""What coc-export starts from: a model.pt, or an artifact that is written anew."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coc_runtime import cocfile, files, onnxfile
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Task, check_thresholds
from coc_runtime.onnxfile import OPSET
from coc_runtime.text import one_line

if TYPE_CHECKING:  # torch takes seconds to import, and artifacts do not need it
    from coc_deploy.checkpoint import Checkpoint
    from coc_deploy.network import Network

QUALITY = ("accuracy", "mae", "r2")
"""The entries of `Graph.meta` that were measured with the thresholds that the model had then."""


@dataclass(frozen=True)
class Recorded:
    """What coc-compress measured on the test images with the thresholds that the model has."""

    data: str
    """the name of the data set"""
    quality: Mapping[str, float | None]
    """as of `coc_runtime.quality.measure`"""
    images: int | None = None
    """how many there were; None where the file does not tell"""
    exit_share: tuple[float, ...] | None = None
    """share of them that left at each exit; likewise"""


@dataclass(frozen=True, eq=False)
class Source:
    """A model ready to be written."""

    path: Path
    graph: Graph
    network: "Network | None"
    """None of an artifact"""
    opset: int
    """of an .onnx file its own"""
    sha256: str
    """of the file"""
    images: Dataset | None = None
    """held-out ones that a model.pt carries"""
    recorded: Recorded | None = None

    def with_thresholds(self, thresholds: tuple[float, ...]) -> "Source":
        """The same model leaving at others; CocError where they are not legal."""
        values = check_thresholds(thresholds, len(self.graph.segments) - 1, self.graph.task)
        if values == self.graph.thresholds:
            return self
        meta = {key: value for key, value in self.graph.meta.items() if key not in QUALITY}
        return replace(self, graph=replace(self.graph, thresholds=values, meta=meta), recorded=None)


def is_artifact(path: Path) -> bool:
    """Whether a path is that of an .onnx or .coc file, by its name or its first bytes."""
    return path.suffix in (".onnx", ".coc") or cocfile.is_coc(path)


def read_artifact(path: Path) -> onnxfile.OnnxFile | cocfile.CocFile:
    """An .onnx or .coc file; CocError, naming the path, if it is missing, damaged or not ours."""
    packed = cocfile.is_coc(path) or path.suffix == ".coc"
    return cocfile.read(path) if packed else onnxfile.read(path)


def load_checkpoint(path: Path) -> "Checkpoint":
    """A model.pt; CocError if it is none, or torch is not installed."""
    if not path.exists():
        raise CocError(f"{path}: no such file: give a model.pt, an .onnx or a .coc file")
    try:
        from coc_deploy import checkpoint
    except ImportError as error:
        raise CocError(
            f"{path}: a model.pt needs PyTorch ({error}): pip install 'coc-deploy[compile]'"
        ) from error
    return checkpoint.load(path)


def open_source(path: Path) -> Source:
    """The model in a file; CocError if it is missing, damaged, not quantized or not ours."""
    if is_artifact(path):
        file = read_artifact(path)
        _check_meta(path, file.graph)
        opset = file.opset if isinstance(file, onnxfile.OnnxFile) else OPSET
        digest = hashlib.sha256(file.data).hexdigest()
        return Source(path, file.graph, None, opset, digest, recorded=_recorded(file.graph, {}))
    loaded = load_checkpoint(path)
    from .lowering import lower

    digest, graph = hashlib.sha256(files.read_artifact(path)).hexdigest(), lower(loaded, path)
    last = loaded.history[-1] if loaded.history else {}
    same = list(graph.thresholds) == last.get("thresholds")
    recorded = _recorded(graph, last) if same else None
    return Source(path, graph, loaded.network, OPSET, digest, loaded.images, recorded)


def _recorded(graph: Graph, last: Mapping[str, Any]) -> Recorded | None:
    """What a model's meta and the last record of its history, where there is one, tell of test images; None
    where they hold no quality."""
    names = ("mae", "r2") if graph.task is Task.REGRESSION else ("accuracy",)
    quality = {"accuracy": None} | {name: _number(graph.meta.get(name)) for name in names}
    data = graph.meta.get("data")
    if any(quality[name] is None for name in names) or not isinstance(data, str):
        return None
    images, shares = last.get("test_images"), last.get("exit_share")
    found = [_number(share) for share in shares] if isinstance(shares, list) else []
    whole = tuple(share for share in found if share is not None)
    return Recorded(
        one_line(data),
        quality,
        images if type(images) is int else None,
        whole if len(whole) == len(found) == len(graph.segments) else None,
    )


def _number(value: Any) -> float | None:
    """A finite number of a file that anybody may have written; None for anything else."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if usable else None


def _check_meta(path: Path, graph: Graph) -> None:
    """Raise CocError unless an artifact tells of its original what the cost table needs."""
    bits, numbers = graph.meta.get("chain_bits"), ("original_bitops", "original_bits")
    valid = isinstance(bits, list) and len(bits) == 2 and all(type(value) is int for value in bits)
    if not valid or any(type(graph.meta.get(name)) is not int for name in numbers):
        raise CocError(f"{path}: does not say what it was compressed from: export it again from its model.pt")
