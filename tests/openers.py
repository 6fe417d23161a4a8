"""A graph in memory as a session of every back end."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coc_export.onnx.writer import write_onnx
from coc_runtime import Session, cocwrite
from coc_runtime.backends import native
from coc_runtime.graph import Graph

Opener = Callable[[Graph, Path], Session]


def reference(graph: Graph, folder: Path) -> Session:
    return Session.from_graph(graph)


def onnx(graph: Graph, folder: Path) -> Session:
    (folder / "model.onnx").write_bytes(write_onnx(graph).SerializeToString())
    return Session(folder / "model.onnx", backend="onnxruntime")


def packed(graph: Graph, folder: Path) -> Session:
    missing = native.why_missing()
    if missing is not None:
        pytest.skip(missing)
    (folder / "model.coc").write_bytes(cocwrite.dump(graph))
    return Session(folder / "model.coc", backend="native")


by_every_back_end = pytest.mark.parametrize(
    "opener", (reference, onnx, packed), ids=lambda opener: opener.__name__
)


def usual_level() -> str:
    """The level of the C core that sessions take unless told otherwise: COC_CPU's, or the CPU's best."""
    return os.environ.get("COC_CPU", native.levels()[0])
