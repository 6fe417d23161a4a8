"""Whole models on the native back end against ONNX Runtime: latency, overhead, load, memory, import, wheel.

    python benchmarks/scripts/native_models.py [--data imagefolder:data/cifar10] [--rounds 2000] \
        [--json out.json]

Everything is measured one image at a time on one thread. In a round every subject runs the same image once,
in random order. Every CPU level with vectors that this machine has is a subject of its own. ResNet-20 and
ResNet-8 have random 1-bit weights and no exits; the example is the committed one, through its exits, over the
test split.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coc_deploy import checkpoint
from coc_deploy.models import Architecture
from coc_deploy.network import Network
from coc_export.lowering import lower
from coc_export.onnx.float_network import write_float
from coc_export.onnx.writer import write_onnx
from coc_runtime import cocwrite, datasets, files
from coc_runtime.backends.native import levels
from coc_runtime.environment import environment
from coc_runtime.graph import Graph
from coc_runtime.session import Session
from resnets import first, resnet, without_exits

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/cifar10-resnet20-1x8/model.pt"
ORIGINAL = Architecture("resnet56", width=16, shortcut="A", channels=3, classes=10)
WARM_UP = 50
TRIES = 25
"""What is measured by starting anew (loads, processes) is started so many times."""

Run = Callable[[np.ndarray], Any]


def interleaved(runs: dict[str, Run], images: np.ndarray, rounds: int) -> dict[str, np.ndarray]:
    """Microseconds [rounds] of each run at batch 1; round r gives image r to all, in random order."""
    for run in runs.values():
        for index in range(WARM_UP):
            run(images[index % len(images)][None])
    order, names = np.random.default_rng(0), list(runs)
    times = {name: np.empty(rounds) for name in names}
    for index in range(rounds):
        image = images[index % len(images)][None]
        for name in order.permutation(names):
            start = time.perf_counter_ns()
            runs[name](image)
            times[name][index] = (time.perf_counter_ns() - start) / 1000
    return times


def latency(times: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(times.mean()),
        "p50": float(np.percentile(times, 50)),
        "p99": float(np.percentile(times, 99)),
    }


def native_sessions(path: Path) -> dict[str, Session]:
    """A session of a .coc file for each CPU level of this machine; the scalar one is not made to be fast."""
    sessions = {}
    for level in levels()[:-1]:
        os.environ["COC_CPU"] = level
        sessions[f"native {level}"] = Session(path, backend="native")
    del os.environ["COC_CPU"]
    return sessions


def compare(
    graph: Graph, images: np.ndarray, rounds: int, folder: Path, peers: dict[str, Run]
) -> dict[str, Any]:
    """A graph on ONNX Runtime and on every native level, and peers, in one interleaved run."""
    onnx_path, coc_path = folder / "model.onnx", folder / "model.coc"
    onnx_path.write_bytes(write_onnx(graph).SerializeToString(deterministic=True))
    coc_path.write_bytes(cocwrite.dump(graph))
    sessions = {"onnxruntime": Session(onnx_path, backend="onnxruntime")} | native_sessions(coc_path)
    some = images[:200]
    expected = sessions["onnxruntime"].run(some)
    differing = {
        name: int((session.run(some).logits != expected.logits).sum()) for name, session in sessions.items()
    }
    times = interleaved({name: session.run for name, session in sessions.items()} | peers, images, rounds)
    rival = times["onnxruntime"].mean()
    return {
        "macs": sum(layer.macs for layer in graph.layers()),
        "file_bytes": {"onnx": onnx_path.stat().st_size, "coc": coc_path.stat().st_size},
        "rounds": rounds,
        "differing_logits": differing,
        "latency_us": {name: latency(values) for name, values in times.items()},
        "faster_than_onnxruntime": {
            name: float(rival / values.mean()) for name, values in times.items() if name != "onnxruntime"
        },
    }


def example(data: str, rounds: int, folder: Path) -> dict[str, Any]:
    """The committed example over the test split, beside the original in float."""
    graph = lower(checkpoint.load(EXAMPLE), EXAMPLE)
    images = datasets.load(data, "test").images
    images = images[np.random.default_rng(0).permutation(len(images))]
    peers = {"original float": _original(folder)}
    result = compare(graph, images, rounds or len(images), folder, peers)
    mean = {name: values["mean"] for name, values in result["latency_us"].items()}
    result["faster_than_original"] = {name: mean["original float"] / value for name, value in mean.items()}
    result["load_ms"] = statistics.median(_load_ms(folder / "model.coc") for _ in range(TRIES))
    return result


def _original(folder: Path) -> Run:
    """The float network that the example came from, in ONNX Runtime; untrained, which takes the same time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    path = folder / "original.onnx"
    path.write_bytes(write_float(Network(ORIGINAL, (32, 32)).eval()).SerializeToString())
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return lambda image: session.run(["logits"], {"image": image})


def _load_ms(path: Path) -> float:
    start = time.perf_counter_ns()
    Session(path, backend="native")
    return (time.perf_counter_ns() - start) / 1e6


def overhead(folder: Path, rounds: int) -> dict[str, float]:
    """What a call of Session.run costs beside the model: one image a call against many, in microseconds."""
    path = folder / "model.coc"
    path.write_bytes(cocwrite.dump(first(resnet(8))))
    session = Session(path, backend="native")
    images = np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32), np.uint8)
    one, many = [], []
    for _ in range(rounds):
        for block, times in ((images[:1], one), (images, many)):
            start = time.perf_counter_ns()
            session.run(block)
            times.append((time.perf_counter_ns() - start) / 1000)
    single, batch = statistics.median(one), statistics.median(many)
    per_image = (batch - single) / (len(images) - 1)
    return {"call_us": single, "image_us": per_image, "overhead_us": single - per_image}


def memory(folder: Path) -> dict[str, int]:
    """Bytes of a session of ResNet-20 (weights as kernels read them, activations, scratch) at each level."""
    path = folder / "model.coc"
    path.write_bytes(cocwrite.dump(without_exits(resnet(20))))
    return {name: session.info.memory_bytes for name, session in native_sessions(path).items()}


def import_ms() -> dict[str, float]:
    """What `import coc_runtime` adds to a Python process, and how much of that NumPy is."""

    def start_ms(code: str) -> float:
        start = time.perf_counter_ns()
        subprocess.run([sys.executable, "-c", code], check=True)
        return (time.perf_counter_ns() - start) / 1e6

    codes = {"nothing": "", "numpy": "import numpy", "coc_runtime": "import coc_runtime"}
    taken: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(TRIES):
        for name, code in codes.items():
            taken[name].append(start_ms(code))
    median = {name: statistics.median(values) for name, values in taken.items()}
    return {name: median[name] - median["nothing"] for name in ("numpy", "coc_runtime")}


def wheel_bytes(folder: Path) -> int:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel.stat().st_size


def measure(data: str, rounds: int) -> dict[str, Any]:
    noise = np.random.default_rng(1).integers(0, 256, (256, 3, 32, 32), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return {
            "wheel_bytes": wheel_bytes(folder),
            "import_ms": import_ms(),
            "resnet20": compare(without_exits(resnet(20)), noise, rounds, folder, {}),
            "resnet8": compare(without_exits(resnet(8)), noise, rounds, folder, {}),
            "run_overhead": overhead(folder, rounds),
            "session_bytes": memory(folder),
            "example": example(data, 0, folder),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="imagefolder:data/cifar10", help="what the example runs on")
    parser.add_argument("--rounds", type=int, default=2000, help="of the models without data")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    altered = {"onnxruntime_altered": os.environ.get("COC_ONNXRUNTIME")}  # by avx2_only.py
    result = {"schema": 1, "environment": environment() | altered} | measure(options.data, options.rounds)
    print(json.dumps(result, indent=1))
    if options.json:
        files.write_json(options.json, result)


if __name__ == "__main__":
    main()
