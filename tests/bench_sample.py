"""A benchmark's report as coc-bench writes it (schema 2), made by hand: every optional part is present."""

import base64
import struct
import zlib
from typing import Any

import numpy as np

ORIGINAL_BITOPS = 128_700_000_000
ENDS = (0.74, 0.88, 1.0)
"""Of the BitOps, spent when an image leaves at each exit."""
BITOPS = 391_000_000
SHARES = (0.47, 0.24, 0.29)


def report() -> dict[str, Any]:
    """Two back ends of one compressed CIFAR network with two early exits, its original, an int8 peer."""
    rng = np.random.default_rng(0)
    runs = [
        _run("resnet20-1x8/model.onnx", "artifact", "onnxruntime", None, (292.0, 300.1, 401.7), rng),
        _run("resnet20-1x8/model.coc", "artifact", "native", "avx512", (79.4, 78.2, 102.6), rng),
        _peer("original.onnx", "original", "onnxruntime", 1213.0, 0.8995),
        _peer("pruned.onnx (int8)", "int8", "onnxruntime", 81.1, 0.8871),
        _peer("original.onnx", "peer", "openvino", 1004.0, 0.8995),
    ]
    for run in runs:
        run["mean_speedup_over_original"] = 1213.0 / run["latency_us"]["mean"]
        run["speedup_over_original"] = 1190.0 / run["latency_us"]["p50"]
    runs[3]["settings"] = {"calibration": "MinMax", "calibration_images": 1024, "reduce_range": False}
    return {
        "schema": 2,
        "environment": {
            "cpu": "Example CPU 9000 8-Core Processor",
            "machine": "x86_64",
            "flags": ["avx2", "avx512f", "avx512bw", "avx512_vnni"],
            "cores": 8,
            "os": "Linux 6.1.0",
            "python": "3.11.7",
            "coc_runtime": "0.1.0",
            "date": "2026-01-02T03:04:05+00:00",
            "numpy": "2.4.6",
            "onnxruntime": "1.32.0",
            "openvino": None,
        },
        "settings": {
            "data": "cifar10:data",
            "threads": 1,
            "cpus": [7],
            "rounds": 2000,
            "warm_up_rounds": 20,
            "batch": 64,
            "drift_limit": 0.1,
            "confidence": 0.95,
            "resamples": 2000,
        },
        "runs": runs,
        "ratios": [
            {"of": of, "to": to, "mean_latency_ratio": ratio, "interval": interval, "verdict": verdict}
            for of, to, ratio, interval, verdict in (
                (1, 0, 0.2719, [0.2688, 0.2751], "faster"),
                (1, 2, 0.06546, [0.0648, 0.0661], "faster"),
                (1, 3, 0.979, [0.951, 1.012], "no difference"),
                (1, 4, 0.0791, [0.0779, 0.0802], "faster"),
            )
        ],
        "missing_peers": [
            {"peer": "mnn", "reason": "not installed: pip install MNN"},
            {
                "peer": "ncnn",
                "reason": "its converter does not take the model: unknown operator Clip <opset 21>",
            },
        ],
        "drift": {"repeated_rounds": 4, "unsettled_rounds": 1, "spread": 0.0312},
    }


def _run(
    name: str, kind: str, backend: str, level: str | None, latency: tuple[float, float, float], rng: Any
) -> dict[str, Any]:
    mean, p50, p99 = latency
    by_exit = [mean * scale for scale in (0.8, 1.02, 1.28)]
    expected = BITOPS * float(np.dot(SHARES, ENDS))
    return {
        "artifact": name,
        "kind": kind,
        "precision": None,
        "backend": backend,
        "version": "0.1.0",
        "cpu_level": level,
        "reason": "the fastest that is installed",
        "threads": 1,
        "accuracy": 0.8642,
        "latency_us": {"mean": mean, "p50": p50, "p90": p99 * 0.93, "p99": p99, "max": p99 * 2.1},
        "mean_latency_interval_us": [mean * 0.994, mean * 1.007],
        "latency_us_by_exit": by_exit,
        "images_per_s": 1.31e6 / mean,
        "exit_share": list(SHARES),
        "expected_bitops": expected,
        "bitops_cr": ORIGINAL_BITOPS / expected,
        "bitops_cr_uniform": ORIGINAL_BITOPS / expected * 1.17,
        "cr": 101.4,
        "file_bytes": 55320,
        "load_ms": 0.35,
        "peak_rss_mb": 34.2,
        "imports_rss_mb": 31.0,
        "data": "cifar10",
        "samples": 10000,
        "rounds": 2000,
        "batch": 64,
        "latency_histogram": _histogram(by_exit, rng),
        "accuracy_by_exit": [0.961, 0.874, 0.699],
        "exit_accuracy": [0.8219, 0.8518, 0.8709],
        "exit_latency_us": [mean * scale for scale in (0.8, 1.02, 1.28)],
        "thresholds": [0.775, 0.75],
        "curve": [_point(early, mean, expected) for early in np.linspace(0, 1, 21)],
        "layers": _layers(mean),
        "exit_images": [[_picture(rng, k, j) for j in range(8)] for k in range(3)],
    }


def _peer(name: str, kind: str, backend: str, mean: float, accuracy: float) -> dict[str, Any]:
    original = kind == "original"
    return {
        "artifact": name,
        "kind": kind,
        "precision": "int8" if kind == "int8" else "float",
        "backend": backend,
        "version": "1.32.0" if backend == "onnxruntime" else "2026.3.0",
        "cpu_level": None,
        "reason": "peers run in their own library",
        "threads": 1,
        "accuracy": accuracy,
        "latency_us": {
            "mean": mean,
            "p50": mean * 0.98,
            "p90": mean * 1.04,
            "p99": mean * 1.21,
            "max": mean * 1.9,
        },
        "mean_latency_interval_us": [mean * 0.991, mean * 1.011],
        "latency_us_by_exit": [mean * 0.98],
        "images_per_s": 1.1e6 / mean,
        "exit_share": [1.0],
        "expected_bitops": ORIGINAL_BITOPS if original else None,
        "bitops_cr": 1.0 if original else None,
        "bitops_cr_uniform": 1.0 if original else None,
        "cr": 1.0 if original else None,
        "file_bytes": 3_430_000 if original else 291_000,
        "load_ms": 11.8,
        "peak_rss_mb": 71.5,
        "imports_rss_mb": 51.0,
        "data": "cifar10",
        "samples": 10000,
        "rounds": 2000,
        "batch": 64,
    }


def _histogram(by_exit: list[float], rng: Any) -> dict[str, Any]:
    times = [
        rng.normal(centre, 0.035 * centre, round(2000 * share))
        for centre, share in zip(by_exit, SHARES, strict=True)
    ]
    low, high = np.percentile(np.concatenate(times), [0, 99])
    edges = np.append(np.linspace(low, high, 40), 3 * high)
    return {
        "edges_us": edges.tolist(),
        "counts_by_exit": [np.histogram(group, edges)[0].tolist() for group in times],
    }


def _point(early: float, mean: float, expected: float) -> dict[str, Any]:
    """early: how many images leave early; 0.5 is the operating point."""
    shares = [early * 0.94, early * (1 - early) * 0.96]
    return {
        "thresholds": [round(1 - 0.45 * early, 3), round(1 - 0.5 * early, 3)],
        "accuracy": 0.8709 - 0.05 * early**3,
        "exit_share": [*shares, 1 - sum(shares)],
        "expected_bitops": expected * (1.13 - 0.26 * early),
        "bitops_cr": ORIGINAL_BITOPS / (expected * (1.13 - 0.26 * early)),
        "expected_latency_us": mean * (1.2 - 0.4 * early),
        "chosen": early == 0.5,
    }


def _layers(mean: float) -> list[dict[str, Any]]:
    names = ["conv1", *(f"layer{1 + k // 3}.{k % 3}.conv{c}" for k in range(9) for c in (1, 2)), "fc"]
    macs = np.array([442368, *([2211840] * 18), 640])
    bits = np.array([64, *([8] * 18), 64])
    bitops = macs * bits
    time = np.array([4.4, *np.linspace(3.4, 2.9, 18), 0.3])
    rows = [
        _layer(name, "Linear" if name == "fc" else "Conv", k // 8, int(m), (8, 8) if b == 64 else (1, 8), t)
        for k, (name, m, b, t) in enumerate(zip(names, macs, bits, time, strict=True))
    ]
    rows += [_layer(f"add{k}", "Add", k // 3, 0, None, 0.31) for k in range(9)]
    rows.append(_layer("exits and the rest", "", None, 0, None, 1.9))
    whole = sum(row["time_us"] for row in rows)
    for row in rows:
        row["share_of_time"] = row["time_us"] / whole
        row["time_us"] *= mean / whole
        row["share_of_bitops"] = row["bitops"] / int(bitops.sum())
    return rows


def _layer(
    name: str, op: str, segment: int | None, macs: int, bits: tuple[int, int] | None, time: float
) -> dict[str, Any]:
    weights, activations = bits or (0, 8)
    return {
        "name": name,
        "op": op,
        "segment": segment,
        "macs": macs,
        "weight_bits": weights,
        "activation_bits": activations,
        "bitops": macs * weights * activations,
        "time_us": float(time),
    }


def _picture(rng: Any, leaves: int, index: int) -> dict[str, Any]:
    """A disc in front of a gradient; those that leave late are noisier."""
    y, x = np.mgrid[:32, :32] / 31
    disc = ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.05 + 0.02 * (index % 4))[..., None]
    image = np.where(disc, rng.integers(60, 250, 3), 90 + 80 * np.stack([x, y, 1 - x], axis=-1))
    image = np.clip(image + rng.normal(0, 6 + 26 * leaves, image.shape), 0, 255).astype(np.uint8)
    names = ("airplane", "cat", "frog", "ship")
    wrong = index == 7 - leaves * 2
    return {
        "png": base64.b64encode(png(image)).decode(),
        "label": names[index % 4],
        "predicted": names[(index + wrong) % 4],
    }


def png(image: np.ndarray) -> bytes:
    """A PNG file of uint8 [height, width, 3]."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = image.shape
    rows = b"".join(b"\0" + row.tobytes() for row in image)
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
