"""model.report.json: what an artifact is, that back ends agree on it, what it weighs and costs."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coc_runtime import cocfile, cocwrite, datasets, environment, onnxfile
from coc_runtime.cocfile import CocFile
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Task
from coc_runtime.onnxfile import OnnxFile
from coc_runtime.text import one_line

from . import ledger, parity
from .imagesets import ImageSet, Kind
from .source import Source

RECORDED = "recorded"
"""Whose exit shares a cost table has: those of the model's history."""
PACKAGES = ("numpy", "onnxruntime", "onnx", "torch")


@dataclass(frozen=True, eq=False)
class Finished:
    """An artifact as read back from the bytes to write, and its report."""

    out: Path
    file: OnnxFile | CocFile
    report: dict[str, Any]


def report_path(out: Path) -> Path:
    """Where the report of an artifact goes: model.report.json for model.onnx, else model.coc.report.json."""
    return out.with_suffix(".report.json") if out.suffix == ".onnx" else Path(f"{out}.report.json")


def pack(graph: Graph, out: Path, opset: int) -> tuple[OnnxFile | CocFile, dict[str, Any]]:
    """The file as read back from the bytes that will be written, and its size ledger."""
    if out.suffix == ".coc":
        packed = cocfile.parse(cocwrite.dump(graph), str(out))
        return packed, ledger.coc_ledger(packed)
    try:
        from .onnx.writer import write_onnx
    except ImportError as error:
        raise CocError(
            f"{out}: writing ONNX needs {error.name}: pip install 'coc-deploy[compile]'"
        ) from error
    model = write_onnx(graph, opset=opset)
    content = model.SerializeToString(deterministic=True)
    return onnxfile.parse(content, str(out)), ledger.onnx_ledger(graph, model)


def check(
    source: Source,
    out: Path,
    opset: int,
    sets: Sequence[ImageSet],
    threshold_choice: dict[str, Any] | None = None,
) -> Finished:
    """Pack a model, run it on every back end, and say how that went."""
    graph = source.graph
    file, sizes = pack(graph, out, opset)
    agreement, tested = parity.report(source.network, file, sets)
    report: dict[str, Any] = {"schema": 1, "artifact": one_line(out.name)}
    report["source_sha256"] = graph.meta.get("source_sha256")
    report["artifact_sha256"] = hashlib.sha256(file.data).hexdigest()
    if source.network is None:
        report["written_from"] = {"file": source.path.name, "sha256": source.sha256}
    if isinstance(file, OnnxFile):
        report["opset"] = file.opset
    report["environment"] = environment.environment(PACKAGES)
    report["thresholds"] = list(graph.thresholds)
    report["parity"] = agreement
    if threshold_choice is not None:
        report["threshold_choice"] = threshold_choice
    report["size"] = sizes
    shares, of = _shares(source, tested)
    report["cost"] = ledger.cost_table(graph, shares) | {"exit_share_of": of}
    if tested is None and source.recorded is not None:
        report["recorded"] = asdict(source.recorded)
    return Finished(out, file, report)


def _shares(source: Source, tested: parity.Answer | None) -> tuple[list[float] | None, str | None]:
    """The share of images that leave at each exit, and of which images: those of the test split, else those
    that coc-compress had; never of others, which say nothing of real ones. None where it is not known."""
    exits = len(source.graph.segments)
    if tested is not None:
        shares = np.bincount(tested.exit, minlength=exits) / len(tested.exit)
        return shares.tolist(), Kind.TEST.value
    if exits == 1:
        return [1.0], "any images"
    if source.recorded is not None and source.recorded.exit_share is not None:
        return list(source.recorded.exit_share), RECORDED
    return None, None


def load_data(graph: Graph, option: str, spec: str, split: str) -> Dataset:
    """A split of images that a model takes.

    option: where the spec was given, for errors. Raises CocError for data that cannot be had, and of another
    size or task.
    """
    try:
        data = datasets.load(spec, split)
    except CocError as error:
        own = graph.meta.get("data")
        trained = f" (the model was trained on {one_line(own)})" if isinstance(own, str) and own else ""
        raise CocError(f"{option} {spec}: {error}{trained}") from error
    datasets.tell(data)
    shape = graph.tensors[graph.input].shape
    if data.images.shape[1:] != shape:
        found = list(data.images.shape[1:])
        raise CocError(f"{option} {spec}: images are {found}, the model takes {list(shape)}")
    _check_task(graph, f"{option} {spec}", data)
    return data


def _check_task(graph: Graph, where: str, data: Dataset) -> None:
    """Raise CocError unless the data hold what the model predicts."""
    task = graph.task
    if data.task is not task:
        kinds = {Task.CLASSIFICATION: ("classes", "digits"), Task.REGRESSION: ("numbers", "rotated-digits")}
        (held, _), (wanted, example) = kinds[data.task], kinds[task]
        raise CocError(f"{where}: holds {held}, the model predicts {wanted}: give such data, e.g. {example}")
    if task is Task.REGRESSION and data.labels.shape[1] != graph.classes:
        raise CocError(f"{where}: {data.labels.shape[1]} numbers an image, the model gives {graph.classes}")
