"""What coc-export starts from: a model.pt, or an artifact that is written anew."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from coc_runtime import cocfile, files, onnxfile
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, check_thresholds
from coc_runtime.onnxfile import OPSET

if TYPE_CHECKING:  # torch takes seconds to import, and artifacts do not need it
    from coc_deploy.checkpoint import Checkpoint
    from coc_deploy.network import Network

QUALITY = ("accuracy", "mae", "r2")
"""Of `Graph.meta`: measured with the thresholds that the model had then."""


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

    def with_thresholds(self, thresholds: tuple[float, ...]) -> "Source":
        """The same model leaving at others; CocError where they are not legal."""
        values = check_thresholds(thresholds, len(self.graph.segments) - 1, self.graph.task)
        if values == self.graph.thresholds:
            return self
        meta = {key: value for key, value in self.graph.meta.items() if key not in QUALITY}
        return replace(self, graph=replace(self.graph, thresholds=values, meta=meta))


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
        return Source(path, file.graph, None, opset, hashlib.sha256(file.data).hexdigest())
    loaded = load_checkpoint(path)
    from .lowering import lower

    digest = hashlib.sha256(files.read_artifact(path)).hexdigest()
    return Source(path, lower(loaded, path), loaded.network, OPSET, digest)


def _check_meta(path: Path, graph: Graph) -> None:
    """Raise CocError unless an artifact tells of its original what the cost table needs."""
    bits, numbers = graph.meta.get("chain_bits"), ("original_bitops", "original_bits")
    valid = isinstance(bits, list) and len(bits) == 2 and all(type(value) is int for value in bits)
    if not valid or any(type(graph.meta.get(name)) is not int for name in numbers):
        raise CocError(f"{path}: does not say what it was compressed from: export it again from its model.pt")
