"""Do all back ends give the same integers? Asked on real images, before a file leaves the exporter."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from coc_deploy.network import Network, exit_logits
from coc_runtime import arithmetic, quality
from coc_runtime.backends import native
from coc_runtime.backends.native import NativeBackend
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.cocfile import CocFile
from coc_runtime.datasets import Dataset
from coc_runtime.graph import Graph
from coc_runtime.onnxfile import OnnxFile
from coc_runtime.session import Session


@dataclass(frozen=True, eq=False)
class Answer:
    """What one back end says: logits per exit where it computes all of them, and the exit it takes."""

    name: str
    logits: np.ndarray | None
    """float32 [exits, N, classes]"""
    taken: np.ndarray
    """float32 [N, classes], at the exit taken"""
    exit: np.ndarray
    """int64 [N]"""


def gated(name: str, logits: np.ndarray, graph: Graph) -> Answer:
    """The answer of a back end that computed every exit."""
    chosen = arithmetic.exits_taken(logits, graph.thresholds, graph.task)
    return Answer(name, logits, logits[chosen, np.arange(len(chosen))], chosen)


def ask_all(network: Network, file: OnnxFile | CocFile, images: np.ndarray) -> list[Answer]:
    """Every back end that runs the file on the same images, uint8 [N, C, H, W].

    First torch in integer mode and the NumPy reference, which runs the graph read from the file.
    """
    graph = file.graph
    return [
        gated("torch integer mode", exit_logits(network, images), graph),
        gated("reference", Session.from_graph(graph).logits_per_exit(images), graph),
        *(_onnxruntime(file, images) if isinstance(file, OnnxFile) else _native(file, images)),
    ]


def _onnxruntime(file: OnnxFile, images: np.ndarray) -> list[Answer]:
    """ONNX Runtime with all and with no optimizations: segment by segment on batches, and as users run
    it, the one file image by image."""
    graph, answers = file.graph, []
    for label, optimize in (("all", True), ("none", False)):
        backend = OrtBackend(file, optimize=optimize)
        session = Session.from_graph(graph, backend=backend)
        answers.append(gated(f"onnxruntime {label}, segments", _in_chunks(session, images), graph))
        answers.append(_one_file(f"onnxruntime {label}, one file", backend, graph, images))
    return answers


def _native(file: CocFile, images: np.ndarray) -> list[Answer]:
    """The C core at every level of kernels that can run here: all exits, and, as users run it, up to the
    exit that it takes itself."""
    if native.why_missing() is not None:
        return []
    answers = []
    for level in native.levels():
        backend = NativeBackend(file.data, "the exported file", cpu=level)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            logits = np.concatenate(list(pool.map(backend.logits_per_exit, _chunks(images))), axis=1)
            taken, _, exits, _, _ = zip(*pool.map(backend.run, _chunks(images)), strict=True)
        answers.append(gated(f"native-{level}, all exits", logits, file.graph))
        answers.append(Answer(f"native-{level}", None, np.concatenate(taken), np.concatenate(exits)))
    return answers


def _in_chunks(session: Session, images: np.ndarray) -> np.ndarray:
    return np.concatenate([session.logits_per_exit(chunk) for chunk in _chunks(images)], axis=1)


def _chunks(images: np.ndarray, size: int = 250) -> list[np.ndarray]:
    return [images[i : i + size] for i in range(0, len(images), size)]


def _one_file(name: str, backend: OrtBackend, graph: Graph, images: np.ndarray) -> Answer:
    thresholds = arithmetic.gate_thresholds(graph.thresholds, graph.task)
    results = [backend.run_single(images[i : i + 1], thresholds) for i in range(len(images))]
    taken = np.concatenate([logits for logits, _, _ in results])
    return Answer(name, None, taken, np.array([exit_ for _, exit_, _ in results]))


def compare(answers: list[Answer]) -> list[dict[str, Any]]:
    """One record per pair of back ends: images, logits compared, logits that differ, exits that differ."""
    records = []
    for a, b in itertools.combinations(answers, 2):
        left, right = (a.taken, b.taken) if a.logits is None or b.logits is None else (a.logits, b.logits)
        records.append(
            {
                "pair": [a.name, b.name],
                "images": len(a.exit),
                "logits": int(left.size),
                "differing_logits": int((left != right).sum()),
                "flipped_exits": int((a.exit != b.exit).sum()),
            }
        )
    return records


def report(network: Network, file: OnnxFile | CocFile, data: Dataset) -> tuple[dict[str, Any], Answer]:
    """The parity section of the report, and the reference's answer.

    Where the C core should take part and cannot, "native_missing" says why.
    """
    answers = ask_all(network, file, data.images)
    reference = answers[1]
    found = quality.measure(reference.taken, data.labels, file.graph.task)
    pairs = compare(answers)
    missing = native.why_missing() if isinstance(file, CocFile) else None
    return {
        "data": data.name,
        "images": len(data.labels),
        **found,
        "differing_logits": sum(pair["differing_logits"] for pair in pairs),
        "flipped_exits": sum(pair["flipped_exits"] for pair in pairs),
        "pairs": pairs,
    } | ({"native_missing": missing} if missing else {}), reference
