"""Run exported ONNX files on engines that are not ours, and count what differs from the definition.

    python benchmarks/scripts/engines.py --json benchmarks/results/engines.json
    python benchmarks/scripts/engines.py --model runs/demo/model.pt digits --json out.json

Every engine runs the one file (nested `If`s, one image at a time) and the files of `coc-export --split`
(batches, logits of every exit). What is compared with is the NumPy reference. Needs the extra [engines].
"""

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from coc_deploy import checkpoint
from coc_export.lowering import lower
from coc_export.onnx.writer import write_onnx, write_segments
from coc_runtime import Session, arithmetic, datasets, files
from coc_runtime.environment import environment
from coc_runtime.graph import Graph, Task

ROOT = Path(__file__).resolve().parents[2]
CIFAR = "imagefolder:data/cifar10"
MODELS = (
    ("runs/demo/model.pt", "digits"),
    ("examples/cifar10-resnet20-1x8/model.pt", CIFAR),
    ("examples/cifar10-resnet20-4x8/model.pt", CIFAR),
)
NOTE = (
    "Each engine runs the first images of a test split; ONNX's reference evaluator, which is Python, a tenth "
    "of them. Differences are to the NumPy reference. 'one file': logits of the exit taken, the largest "
    "difference among images that take the same exit; 'split': logits of every exit."
)
BATCH = 50

Runner = Callable[[dict[str, np.ndarray]], list[np.ndarray]]
"""Inputs by name -> outputs in the order of the file."""


@dataclass(frozen=True)
class Engine:
    """Something that runs ONNX files. load raises whatever the engine raises when it refuses a file."""

    name: str
    package: str
    settings: dict[str, str]
    load: Callable[[onnx.ModelProto, Path], Runner]
    share: float = 1.0
    """of the images that it is given: the evaluator in Python is slow"""


def _evaluator(model: onnx.ModelProto, _: Path) -> Runner:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return lambda feeds: list(evaluator.run(None, feeds))


def _tract(model: onnx.ModelProto, folder: Path) -> Runner:
    import tract

    loaded = tract.onnx().load(_saved(model, folder))
    names = [loaded.input_name(i) for i in range(loaded.input_count())]
    runnable = loaded.into_model().into_runnable()

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        outputs = runnable.run([np.ascontiguousarray(feeds[name]) for name in names])
        return [output.to_numpy() for output in outputs]

    return run


def _openvino(settings: dict[str, str]) -> Callable[[onnx.ModelProto, Path], Runner]:
    def load(model: onnx.ModelProto, folder: Path) -> Runner:
        import openvino

        core = openvino.Core()
        compiled = core.compile_model(core.read_model(_saved(model, folder)), "CPU", settings)
        names = [port.get_any_name() for port in compiled.inputs]

        def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            found = compiled([np.ascontiguousarray(feeds[name]) for name in names])
            return [np.array(found[port]) for port in compiled.outputs]

        return run

    return load


def _saved(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


FLOAT = {"INFERENCE_PRECISION_HINT": "f32"}
UNTOUCHED = {**FLOAT, "LP_TRANSFORMS_MODE": "NO", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""OpenVINO runs the file's operators as they stand, in float32: neither moves scales nor quantizes anew."""

ENGINES = (
    Engine("ONNX's reference evaluator", "onnx", {}, _evaluator, 0.1),
    Engine("tract", "tract", {}, _tract),
    Engine("OpenVINO", "openvino", FLOAT, _openvino(FLOAT)),
    Engine("OpenVINO, nothing rewritten", "openvino", UNTOUCHED, _openvino(UNTOUCHED)),
)


@dataclass(frozen=True)
class Count:
    """How an engine's outputs compare with the reference's; refused: why it does not load the file."""

    images: int
    logits: int = 0
    differing_logits: int = 0
    largest_difference: float = 0.0
    differing_labels: int = 0
    differing_exits: int = 0
    refused: str | None = None


def compare_one_file(graph: Graph, images: np.ndarray, engine: Engine) -> Count:
    """The one file, image by image. The largest difference is that of images that take the same exit."""
    expected = Session.from_graph(graph).run(images)
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = engine.load(write_onnx(graph), Path(folder))
            outputs = [run({"image": images[i : i + 1]}) for i in range(len(images))]
        except Exception as error:  # engines share no base class
            return Count(len(images), refused=_first_line(error))
    logits = np.concatenate([found[0] for found in outputs])
    same = np.array([int(found[1][0]) for found in outputs]) == expected.exit
    count = _count(graph, expected.logits, logits, int((~same).sum()))
    largest = float(np.abs(logits - expected.logits)[same].max(initial=0))
    return replace(count, largest_difference=largest)


def compare_segments(graph: Graph, images: np.ndarray, engine: Engine) -> Count:
    """The files of --split, in batches, nothing left early; exits follow from the logits."""
    session = Session.from_graph(graph)
    expected = session.logits_per_exit(images)
    with tempfile.TemporaryDirectory() as folder:
        try:
            runs = [engine.load(model, Path(folder)) for model in write_segments(graph)]
            parts = [_run_segments(graph, runs, images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        except Exception as error:  # engines share no base class
            return Count(len(images), refused=_first_line(error))
    logits = np.concatenate(parts, axis=1)
    differing = int((_exits(graph, logits) != _exits(graph, expected)).sum())
    return _count(graph, expected, logits, differing)


def _run_segments(graph: Graph, runs: Sequence[Runner], images: np.ndarray) -> np.ndarray:
    """Logits of every exit, [exits, N, classes], each segment fed with what the one before gave."""
    feeds, logits = {"image": images}, []
    for k, run in enumerate(runs):
        found = run(feeds)
        logits.append(found[0])
        feeds = {f"carry{k}": found[2]} if k + 1 < len(runs) else {}
        if graph.task is Task.REGRESSION:
            feeds["logits_before"] = found[0]
    return np.array(logits)


def _exits(graph: Graph, logits: np.ndarray) -> np.ndarray:
    """The exit that each image takes, from logits of every exit."""
    thresholds = arithmetic.gate_thresholds(graph.thresholds, graph.task)
    taken = np.full(logits.shape[1], len(thresholds))
    for k in reversed(range(len(thresholds))):
        score = arithmetic.exit_confidence(logits[k], logits[k - 1] if k else None, graph.task)
        taken[arithmetic.leaves(score, thresholds[k], graph.task)] = k
    return taken


def _count(graph: Graph, expected: np.ndarray, found: np.ndarray, exits: int) -> Count:
    classified = graph.task is Task.CLASSIFICATION
    labels = (found.argmax(axis=-1) != expected.argmax(axis=-1)).sum() if classified else 0
    return Count(
        images=found.shape[-2],
        logits=found.size,
        differing_logits=int((found != expected).sum()),
        largest_difference=float(np.abs(found - expected).max(initial=0)),
        differing_labels=int(labels),
        differing_exits=exits,
    )


FORMS = {"one file": compare_one_file, "split": compare_segments}


def rows(path: Path, spec: str, most: int) -> Iterator[dict[str, Any]]:
    """A row for every engine and form, on the first images of a test split."""
    graph, data = lower(checkpoint.load(path), path), datasets.load(spec, "test")
    for engine in ENGINES:
        images = data.images[:most]
        images = images[: max(round(len(images) * engine.share), 1)]
        for form, compare in FORMS.items():
            row = {"model": path.parent.name, "source_sha256": graph.meta["source_sha256"], "data": data.name}
            row |= {"test_images": len(data.images), "engine": engine.name, "settings": engine.settings}
            row |= {"version": importlib.metadata.version(engine.package), "form": form}
            yield row | asdict(compare(graph, images, engine))


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--model", nargs=2, action="append", metavar=("MODEL.pt", "DATA"), help="default: digits and CIFAR-10"
    )
    parser.add_argument("--images", type=int, default=1000, help="of each test split, at most")
    parser.add_argument("--json", type=Path, help="where the counts go")
    options = parser.parse_args()
    found = []
    for path, spec in options.model or [(str(ROOT / name), spec) for name, spec in MODELS]:
        for row in rows(Path(path), spec, options.images):
            refused = f"; refused: {row['refused']}" if row["refused"] else ""
            print(
                f"{row['model']}  {row['engine']} {row['version']}  {row['form']}: {row['images']} images, "
                f"{row['differing_logits']} of {row['logits']} logits differ by up to "
                f"{row['largest_difference']:.3g}, {row['differing_labels']} labels, "
                f"{row['differing_exits']} exits{refused}",
                flush=True,
            )
            found.append(row)
    if options.json is not None:
        about = {"schema": 1, "environment": environment(), "note": NOTE}
        files.write_json(options.json, about | {"runs": found})


if __name__ == "__main__":
    sys.exit(main())
