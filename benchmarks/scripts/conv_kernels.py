"""Convolution kernels against ONNX Runtime's int8 QLinearConv, one thread, interleaved in one process.

    python benchmarks/scripts/conv_kernels.py [--json out.json] [--rounds 300] [--only 3x3s1] \
        [--kernel NAME ...]

Every kernel of the table that accepts a layer is measured, not only the one that the planner would take, so
that each CPU level has its figure. ONNX Runtime cannot be told which instructions to use: on a CPU with VNNI
its int8 kernels are two to four times as fast as on one with AVX2 alone, and the ratio of an AVX2 kernel to
it is that much lower than on such a machine. `onnxruntime_uses_vnni` in the environment says which it was,
judged by its speed: without VNNI, three instructions do 32 MACs and at most 32 MACs per cycle are possible.

ONNX Runtime's time of a layer is the difference between a graph of several such layers and a graph of one,
divided by the difference of their numbers, so that the cost of a call cancels. Results are compared, too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from coc_runtime import arithmetic
from coc_runtime.environment import environment
from native_driver import NATIVE, core_sources

LEVELS = ("scalar", "avx2", "avxvnni", "avx512", "neon")
LOAD_LIMIT = 128  # MACs per cycle: two 32-byte loads per cycle, 64 MACs each (16-bit sums of 4 channels)


@dataclass(frozen=True)
class Layer:
    kernel: int
    stride: int
    channels: int
    outputs: int
    size: int
    weight_bits: int
    in_bits: int

    @property
    def name(self) -> str:
        return (
            f"{self.kernel}x{self.kernel}s{self.stride} C{self.channels} O{self.outputs} "
            f"{self.size}x{self.size} {self.weight_bits}x{self.in_bits}"
        )

    @property
    def out_size(self) -> int:
        return (self.size - 1) // self.stride + 1

    @property
    def macs(self) -> int:
        return self.kernel**2 * self.channels * self.outputs * self.out_size**2


def layers() -> list[Layer]:
    cases = [Layer(3, 1, c, c, s, 1, 8) for s in (16, 32, 8) for c in (16, 32, 64, 128)]
    cases += [Layer(3, 2, c, 2 * c, s, 1, 8) for s, c in ((32, 16), (32, 32), (16, 32), (16, 64), (8, 128))]
    cases += [Layer(1, 1, c, c, 16, 1, 8) for c in (16, 32, 64, 128)]
    cases += [Layer(1, 2, c, 2 * c, 16, 1, 8) for c in (16, 32, 64)]
    cases += [
        Layer(3, 1, c, c, s, b, 8) for b in (2, 4, 8) for c, s in ((32, 16), (64, 16), (128, 16), (64, 8))
    ]
    cases += [Layer(3, 1, c, c, s, 1, 4) for c, s in ((32, 16), (64, 16), (128, 16), (64, 8))]
    cases += [Layer(3, 1, 3, 16, 32, 8, 8)]
    return cases


def load_native(folder: Path) -> ctypes.CDLL:
    library = folder / "libkernels.so"
    sources = [*core_sources(), Path(__file__).with_suffix(".c")]
    subprocess.run(
        [
            "cc",
            "-std=gnu11",
            "-O2",
            "-ffp-contract=off",
            "-fPIC",
            "-shared",
            f"-I{NATIVE}",
            "-o",
            library,
            *sources,
            "-pthread",
            "-lm",
        ],
        check=True,
    )
    native = ctypes.CDLL(str(library))
    native.bench_kernel_name.restype = ctypes.c_char_p
    native.bench_open.restype = ctypes.c_void_p
    for name in ("bench_run", "bench_cycles_per_tick", "bench_ticks"):
        getattr(native, name).restype = ctypes.c_double
    for name in ("bench_scratch_bytes", "bench_weight_bytes"):
        getattr(native, name).restype = ctypes.c_size_t
    return native


@dataclass(frozen=True)
class Data:
    """Numbers of a layer; weight codes are unpacked here and integers follow from them as ARITHMETIC says."""

    codes: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    x: np.ndarray
    in_zero: int
    out_max: int

    def packed(self, bits: int) -> np.ndarray:
        return arithmetic.pack(self.codes, bits)


def make_data(layer: Layer, seed: int = 1) -> Data:
    rng = np.random.default_rng(seed)
    shape = (layer.outputs, layer.channels, layer.kernel, layer.kernel)
    codes = rng.integers(0, 2**layer.weight_bits, shape, dtype=np.uint8)
    spread = 2**layer.weight_bits * np.sqrt(np.prod(shape[1:])) * 2**layer.in_bits / 3
    multiplier = np.float32(
        rng.integers(128, 256, layer.outputs) / 128 * 2.0 ** np.round(np.log2(90 / spread))
    )
    in_zero = 128 if layer.channels == 3 else 0
    x = rng.integers(0, 2**layer.in_bits, (1, layer.channels, layer.size, layer.size), dtype=np.uint8)
    bias = rng.integers(-500, 500, layer.outputs, dtype=np.int32)
    return Data(codes, bias, multiplier, x, in_zero, 255)


def onnx_weights(layer: Layer, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights and their zero points: 8-bit ones as uint8 around 128; int8 saturates without VNNI."""
    if layer.weight_bits == 8:
        return codes, np.full(layer.outputs, 128, np.uint8)
    odd = 2 * codes.astype(np.int32) - (2**layer.weight_bits - 1)
    return odd.astype(np.int8), np.zeros(layer.outputs, np.int8)


def onnx_session(layer: Layer, data: Data, copies: int) -> onnxruntime.InferenceSession:
    """`copies` layers: a chain where shapes allow it, else side by side on the same input."""
    chain = layer.channels == layer.outputs and layer.stride == 1
    weights, weight_zero = onnx_weights(layer, data.codes)
    constants = [
        ("xs", np.float32(1)),
        ("xz", np.uint8(data.in_zero)),
        ("ys", np.float32(1)),
        ("yz", np.uint8(0)),
        ("ws", data.multiplier),
        ("wz", weight_zero),
        ("b", data.bias),
    ]
    constants += [(f"w{i}", weights) for i in range(copies)]
    nodes, outputs = [], []
    pad, shape = layer.kernel // 2, [1, layer.outputs, layer.out_size, layer.out_size]
    for i in range(copies):
        source = f"y{i - 1}" if chain and i else "x"
        nodes.append(
            helper.make_node(
                "QLinearConv",
                [source, "xs", "xz", f"w{i}", "ws", "wz", "ys", "yz", "b"],
                [f"y{i}"],
                kernel_shape=[layer.kernel] * 2,
                strides=[layer.stride] * 2,
                pads=[pad] * 4,
            )
        )
        if not chain or i + 1 == copies:
            outputs.append(helper.make_tensor_value_info(f"y{i}", TensorProto.UINT8, shape))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, data.x.shape)],
        outputs,
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class OnnxLayer:
    """Times in ticks of one layer under ONNX Runtime."""

    def __init__(self, native: ctypes.CDLL, layer: Layer, data: Data, copies: int) -> None:
        self.native, self.copies = native, copies
        self.sessions = [self._bind(onnx_session(layer, data, n), layer, data) for n in (1, copies)]
        self.ticks: list[list[float]] = [[], []]
        self.output = self.sessions[0][2]

    @staticmethod
    def _bind(session, layer: Layer, data: Data):
        binding = session.io_binding()
        value = onnxruntime.OrtValue.ortvalue_from_numpy(data.x)
        binding.bind_ortvalue_input("x", value)
        buffers = []
        for output in session.get_outputs():
            buffers.append(
                onnxruntime.OrtValue.ortvalue_from_numpy(
                    np.zeros((1, layer.outputs, layer.out_size, layer.out_size), np.uint8)
                )
            )
            binding.bind_ortvalue_output(output.name, buffers[-1])
        session.run_with_iobinding(binding)
        return session, binding, buffers[0]

    def run(self) -> None:
        for (session, binding, _), ticks in zip(self.sessions, self.ticks, strict=True):
            session.run_with_iobinding(binding)
            start = self.native.bench_ticks()
            session.run_with_iobinding(binding)
            ticks.append(self.native.bench_ticks() - start)

    def summary(self, statistic) -> float:
        return (statistic(self.ticks[1]) - statistic(self.ticks[0])) / (self.copies - 1)


def measure(
    native: ctypes.CDLL, layer: Layer, rounds: int, wanted: list[str], tick_us: float, levels: int
) -> dict:
    data = make_data(layer)
    copies = 4 if layer.channels >= 128 else 8
    shape = np.array(
        [
            layer.channels,
            layer.size,
            layer.size,
            layer.outputs,
            layer.kernel,
            layer.stride,
            layer.weight_bits,
            layer.in_bits,
            data.in_zero,
            data.out_max,
        ],
        np.int32,
    )
    packed = data.packed(layer.weight_bits)

    def pointer(array: np.ndarray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    handles = {}
    for index in range(native.bench_kernel_count()):
        name = native.bench_kernel_name(index).decode()
        level = LEVELS[native.bench_kernel_level(index)]
        if (
            (wanted and name not in wanted)
            or (not wanted and level == "scalar")
            or not levels & 1 << LEVELS.index(level)
        ):
            continue
        handle = native.bench_open(
            index,
            pointer(shape),
            pointer(packed),
            pointer(data.bias),
            pointer(data.multiplier),
            pointer(data.x),
            copies,
        )
        if handle:
            handles[name] = (level, ctypes.c_void_p(handle), [])
    ort = OnnxLayer(native, layer, data, copies)
    cycles = []
    for _ in range(rounds):
        ort.run()
        for _, handle, ticks in handles.values():
            native.bench_run(handle)
            ticks.append(native.bench_run(handle))
        cycles.append(native.bench_cycles_per_tick())
    per_tick = max(cycles)
    ort_min, ort_median = ort.summary(np.min), ort.summary(np.median)
    rows = []
    for name, (level, handle, ticks) in handles.items():
        output = np.zeros((1, layer.outputs, layer.out_size, layer.out_size), np.uint8)
        native.bench_output(handle, pointer(output))
        low, middle = float(np.min(ticks)), float(np.median(ticks))
        rows.append(
            {
                "kernel": name,
                "level": level,
                "min_us": low * tick_us,
                "median_us": middle * tick_us,
                "ratio_min": ort_min / low,
                "ratio_median": ort_median / middle,
                "macs_per_cycle": layer.macs / (low * per_tick),
                "of_avx2_load_limit": layer.macs / (low * per_tick) / LOAD_LIMIT,
                "differs_from_onnxruntime": int((output != ort.output.numpy()).sum()),
                "scratch_bytes": native.bench_scratch_bytes(handle),
                "weight_bytes": native.bench_weight_bytes(handle),
            }
        )
        native.bench_close(handle)
    return {
        "layer": layer.name,
        **asdict(layer),
        "macs": layer.macs,
        "core_ghz": per_tick / tick_us / 1000,
        "onnxruntime": {
            "min_us": ort_min * tick_us,
            "median_us": ort_median * tick_us,
            "macs_per_cycle": layer.macs / (ort_min * per_tick),
        },
        "kernels": rows,
    }


def circumstances() -> dict[str, Any]:
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
    return environment() | {
        "compiler": compiler,
        "threads": 1,
        "load_average": Path("/proc/loadavg").read_text().split()[:3],
        "onnxruntime_altered": os.environ.get("COC_ONNXRUNTIME"),  # by avx2_only.py
    }


def tick_microseconds(native: ctypes.CDLL) -> float:
    ticks, seconds = native.bench_ticks(), time.perf_counter()
    time.sleep(0.2)
    return (time.perf_counter() - seconds) * 1e6 / (native.bench_ticks() - ticks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--only", default="", help="measure the layers whose name contains this")
    parser.add_argument(
        "--kernel", action="append", default=[], help="measure only this kernel; may be repeated"
    )
    arguments = parser.parse_args()
    env = circumstances()
    wanted = {
        "scalar": set(),
        "avx2": {"avx2"},
        "avxvnni": {"avx_vnni"},
        "avx512": {"avx512bw", "avx512_vnni"},
    }
    levels = sum(1 << LEVELS.index(level) for level, flags in wanted.items() if flags <= set(env["flags"]))
    with tempfile.TemporaryDirectory() as folder:
        native = load_native(Path(folder))
        tick = tick_microseconds(native)
        runs = []
        for layer in layers():
            if arguments.only not in layer.name:
                continue
            run = measure(native, layer, arguments.rounds, arguments.kernel, tick, levels)
            runs.append(run)
            ort = run["onnxruntime"]
            print(
                f"{run['layer']:30} {'onnxruntime':24} {ort['min_us']:8.1f} us"
                f"{'':12}{ort['macs_per_cycle']:6.1f}"
                " MACs/cycle"
            )
            for row in run["kernels"]:
                print(
                    f"{'':30} {row['kernel']:24} {row['min_us']:8.1f} us  {row['ratio_min']:6.2f} x "
                    f"{row['macs_per_cycle']:6.1f}  differs {row['differs_from_onnxruntime']}",
                    flush=True,
                )
    env["onnxruntime_uses_vnni"] = any(run["onnxruntime"]["macs_per_cycle"] > 40 for run in runs)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"schema": 1, "environment": env, "runs": runs}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
