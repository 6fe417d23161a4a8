"""Do all back ends give the same integers? Asked on real and on generated images, before a file leaves the
exporter and, by --verify, wherever the file goes."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from coc_runtime import arithmetic, batches, quality, thresholds
from coc_runtime.backends import native, ort
from coc_runtime.backends.native import NativeBackend
from coc_runtime.backends.ort import OrtBackend
from coc_runtime.cocfile import CocFile
from coc_runtime.graph import Graph, Task
from coc_runtime.onnxfile import OnnxFile
from coc_runtime.session import Session
from coc_runtime.threads import each

from .imagesets import ImageSet, Kind

if TYPE_CHECKING:  # torch takes seconds to import, and may not be installed where a file is verified
    from coc_deploy.network import Network

REFERENCE = "reference"
OPTIMIZATIONS = (("all", True), ("none", False))
"""How ONNX Runtime is asked: the name that its answers get, and whether it optimizes."""
MOST_IMAGES = 250
"""A batch holds at most so many images."""


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


def ask_all(network: "Network | None", file: OnnxFile | CocFile, images: np.ndarray) -> list[Answer]:
    """Every back end that runs the file on the same images, uint8 [N, C, H, W].

    First torch in integer mode, where there is a network, and the NumPy reference, which runs the graph
    read from the file.
    """
    graph, answers = file.graph, []
    if network is not None:
        answers.append(gated("torch integer mode", exit_logits(network, images), graph))
    answers.append(gated(REFERENCE, all_logits(Session.from_graph(graph), images), graph))
    if why_missing(file) is None:
        answers += _onnxruntime(file, images) if isinstance(file, OnnxFile) else _native(file, images)
    return answers


def exit_logits(network: "Network", images: np.ndarray) -> np.ndarray:
    """See `coc_deploy.network.exit_logits`."""
    from coc_deploy import network as networks

    return networks.exit_logits(network, images)


def why_missing(file: OnnxFile | CocFile) -> str | None:
    """Why the fast back end for a file cannot take part; None if it can."""
    return ort.why_missing() if isinstance(file, OnnxFile) else native.why_missing()


def _onnxruntime(file: OnnxFile, images: np.ndarray) -> list[Answer]:
    """ONNX Runtime with all and with no optimizations: segment by segment on batches, and as users run
    it, the one file image by image."""
    graph, answers = file.graph, []
    for label, optimize in OPTIMIZATIONS:
        backend = OrtBackend(file, optimize=optimize)
        session = Session.from_graph(graph, backend=backend)
        answers.append(gated(f"onnxruntime {label}, segments", all_logits(session, images), graph))
        answers.append(_one_file(f"onnxruntime {label}, one file", backend, graph, images))
    return answers


def _native(file: CocFile, images: np.ndarray) -> list[Answer]:
    """The C core at every level of kernels that can run here: all exits, and, as users run it, up to the
    exit that it takes itself."""
    answers = []
    for level in native.levels():
        backend = NativeBackend(file.data, "the exported file", cpu=level)
        logits = np.concatenate(each(backend.logits_per_exit, _chunks(images, file.graph)), axis=1)
        answers.append(gated(f"native-{level}, all exits", logits, file.graph))
        answers.append(_gated_by_core(f"native-{level}", backend, file.graph, images))
    return answers


def _gated_by_core(name: str, backend: NativeBackend, graph: Graph, images: np.ndarray) -> Answer:
    taken, _, exits, _, _ = zip(*each(backend.run, _chunks(images, graph)), strict=True)
    return Answer(name, None, np.concatenate(taken), np.concatenate(exits))


def all_logits(session: Session, images: np.ndarray) -> np.ndarray:
    """Logits of every exit, float32 [exits, N, classes], in batches that memory holds."""
    found = [session.logits_per_exit(chunk) for chunk in _chunks(images, session.graph)]
    return np.concatenate(found, axis=1)


def _chunks(images: np.ndarray, graph: Graph) -> Iterator[np.ndarray]:
    return batches.cut(images, batches.fitting(MOST_IMAGES, batches.largest(graph)))


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


def report(
    network: "Network | None", file: OnnxFile | CocFile, sets: Sequence[ImageSet]
) -> tuple[dict[str, Any], Answer | None]:
    """The parity section of the report, and the reference's answer to the test split if there is one.

    The section is that of the first set, those of the others are its "also". Where the file's fast back end
    cannot take part, "native_missing" or "onnxruntime_missing" says why.
    """
    sections, tested = [], None
    for given in sets:
        section, reference = _section(network, file, given)
        sections.append(section)
        tested = reference if given.kind is Kind.TEST else tested
    result = sections[0] | {"also": sections[1:]}
    missing = why_missing(file)
    if missing is not None:
        result["onnxruntime_missing" if isinstance(file, OnnxFile) else "native_missing"] = missing
    return result, tested


def _section(
    network: "Network | None", file: OnnxFile | CocFile, given: ImageSet
) -> tuple[dict[str, Any], Answer]:
    """What a report says of one set of images, and the reference's answer to it. Quality is of test images
    alone; on generated ones the exits are tried one and all."""
    answers = ask_all(network, file, given.images)
    reference = reference_of(answers)
    pairs = compare(answers)
    spread = _spread(file, given.images, reference) if given.kind is Kind.GENERATED else {}
    every = [*pairs, *spread.get("pairs", ())]
    section = {
        "set": given.kind.value,
        "data": given.data,
        "images": len(given.images),
        **_quality(given, reference, file.graph.task),
        **totals(every),
        **image_digests(given.images, given.labels),
        **digests(reference),
        "pairs": pairs,
    }
    return section | ({"spread": spread} if spread else {}), reference


def _quality(given: ImageSet, reference: Answer, task: Task) -> dict[str, float | None]:
    if given.kind is Kind.TEST and given.labels is not None:
        return quality.measure(reference.taken, given.labels, task)
    return {"accuracy": None} if task is Task.CLASSIFICATION else {"accuracy": None, "mae": None, "r2": None}


def _spread(file: OnnxFile | CocFile, images: np.ndarray, reference: Answer) -> dict[str, Any]:
    """What back ends that take exits themselves say with thresholds at which images leave at every exit;
    empty without early exits."""
    answers, limits = ask_at_every_exit(file, images, reference)
    if not limits:
        return {}
    shares = np.bincount(answers[0].exit, minlength=len(limits) + 1) / len(images)
    return {"thresholds": list(limits), "exit_share": shares.tolist(), "pairs": compare(answers)}


def ask_at_every_exit(
    file: OnnxFile | CocFile, images: np.ndarray, reference: Answer
) -> tuple[list[Answer], tuple[float, ...]]:
    """The answers of the reference, known by its logits, and of what takes exits itself, and the thresholds
    that all of them had: those at which about as many of the images leave at every exit."""
    assert reference.logits is not None
    limits = thresholds.spread(reference.logits, file.graph.task)
    graph = replace(file.graph, thresholds=limits)
    answers = [gated(REFERENCE, reference.logits, graph)]
    if not limits or why_missing(file) is not None:
        return answers, limits
    if isinstance(file, OnnxFile):
        for label, optimize in OPTIMIZATIONS:
            backend = OrtBackend(file, optimize=optimize)
            answers.append(_one_file(f"onnxruntime {label}, one file", backend, graph, images))
        return answers, limits
    for level in native.levels():
        core = NativeBackend(file.data, "the exported file", thresholds=limits, cpu=level)
        answers.append(_gated_by_core(f"native-{level}", core, file.graph, images))
    return answers, limits


def reference_of(answers: Iterable[Answer]) -> Answer:
    """The NumPy reference's answer."""
    return next(answer for answer in answers if answer.name == REFERENCE)


def totals(pairs: Iterable[dict[str, Any]]) -> dict[str, int]:
    """Logits that differ and exits that differ, summed over pairs of back ends."""
    found = list(pairs)
    return {key: sum(pair[key] for pair in found) for key in ("differing_logits", "flipped_exits")}


def sections(agreement: dict[str, Any]) -> list[dict[str, Any]]:
    """The sections of a report's parity, one per set of images, the main one first."""
    return [agreement, *agreement.get("also", ())]


def image_digests(images: np.ndarray, labels: np.ndarray | None) -> dict[str, str]:
    """SHA-256 (hexadecimal) of the images' bytes and, where there are some, of the labels', little-endian
    and in order."""
    found = {"images_sha256": _digest(images)}
    return found if labels is None else found | {"labels_sha256": _digest(labels)}


def digests(answer: Answer) -> dict[str, str]:
    """SHA-256 of an answer: float32 logits [exits, N, classes] and int64 exits [N], little-endian."""
    assert answer.logits is not None
    zero = np.float32(0)  # added, it makes -0 +0, to which it is equal
    return {"logits_sha256": _digest(answer.logits + zero), "exits_sha256": _digest(answer.exit)}


def _digest(array: np.ndarray) -> str:
    little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return hashlib.sha256(little_endian.tobytes()).hexdigest()
