"""Does storing weights at their bits cost latency, and does leaving early save its share?

Measures in one interleaved run, one image at a time: the exported file with packed weights, the same
graph with int8 weights (both all the way through), the packed file leaving at its first exit, and two
models without any If: all layers without early heads, and the first segment alone.

MACs are no measure of time across layers (a stem of 1 % of the MACs takes 10 % of the time), so that the
share of layers that an exit should cost is given twice: in MACs, and in time measured without exits.

    python benchmarks/scripts/packed_weights.py [--model model.onnx] [--rounds 2000] [--json out.json]
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from coc_export.onnx.writer import write_onnx
from coc_runtime import onnxfile
from coc_runtime.environment import environment
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from resnets import first, resnet, without_exits

WARMUP = 50


def session(model: onnx.ModelProto) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def measure(graph: Graph, rounds: int) -> dict[str, Any]:
    """Latencies in microseconds and their ratios; sizes in bytes; shares of MACs."""
    models = {"packed": write_onnx(graph), "unpacked": write_onnx(graph, packed=False)}
    sessions = {name: session(model) for name, model in models.items()}
    image = np.random.default_rng(1).integers(0, 256, (1, *graph.tensors[graph.input].shape), np.uint8)
    never = {"image": image}
    runs: dict[str, Callable[[], object]] = {}
    if graph.thresholds:
        all_layers = session(write_onnx(without_exits(graph)))
        first_layers = session(write_onnx(first(graph)))
        plain = {"image": image}
        runs["all_layers_no_exits"] = lambda: all_layers.run(None, plain)
        runs["first_layers_no_exits"] = lambda: first_layers.run(None, plain)
        never["thresholds"] = np.full(len(graph.thresholds), 2, np.float32)
        at_once = {"image": image, "thresholds": np.zeros(len(graph.thresholds), np.float32)}
        runs["first_exit"] = lambda: sessions["packed"].run(None, at_once)
    runs["packed"] = lambda: sessions["packed"].run(None, never)
    runs["unpacked"] = lambda: sessions["unpacked"].run(None, never)
    times = _interleaved(runs, rounds)
    result: dict[str, Any] = {
        "latency_us": {name: _summary(values) for name, values in times.items()},
        "packed_over_unpacked": float(np.median(times["packed"]) / np.median(times["unpacked"])),
        "file_bytes": {name: model.ByteSize() for name, model in models.items()},
    }
    if graph.thresholds:
        macs = [sum(layer.macs for layer in graph.segment_layers(k)) for k in range(len(graph.segments))]
        median = {name: values["median"] for name, values in result["latency_us"].items()}
        share = median["first_layers_no_exits"] / median["all_layers_no_exits"]
        result["first_exit"] = {
            "share_of_macs": macs[0] / sum(macs),
            "share_of_time_without_exits": share,
            "latency_over_packed": median["first_exit"] / median["packed"],
            "latency_over_all_layers": median["first_exit"] / median["all_layers_no_exits"],
            "latency_over_its_layers": median["first_exit"] / median["first_layers_no_exits"],
        }
    return result


def _interleaved(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Times in microseconds [rounds] of each run; in random order, so that drift and caches cancel."""
    for run in runs.values():
        for _ in range(WARMUP):
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    order = np.random.default_rng(2)
    for _ in range(rounds):
        for name in order.permutation(list(runs)):
            start = time.perf_counter_ns()
            runs[name]()
            times[name].append((time.perf_counter_ns() - start) / 1000)
    return {name: np.array(values) for name, values in times.items()}


def _summary(values: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(values)), "p99": float(np.percentile(values, 99))}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, help="a file of coc-export; default: a random 1x8 ResNet-20")
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(arguments)
    try:
        graph = onnxfile.read(options.model).graph if options.model else resnet(20)
        source = str(options.model) if options.model else "random ResNet-20, 1x8, two early exits"
        settings = {"schema": 1, "model": source, "threads": 1, "batch": 1, "rounds": options.rounds}
        figures = settings | {"environment": environment()} | measure(graph, max(options.rounds, 1))
    except CocError as error:
        print(f"packed_weights: {error}", file=sys.stderr)
        return 1
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
