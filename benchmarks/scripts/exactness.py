"""Does the native core compute the reference's integers: all logits, all exits, on whole test splits?

Two networks at six widths, quantized from calibration images alone, with untrained heads and with
thresholds that send many images to every exit: their accuracy is of no interest and is not reported. The
file's bytes run at every level of kernels of this CPU, in the C extension, and at level neon under
qemu-aarch64. Exits are compared as the core takes them, from confidences of its own.

    python benchmarks/scripts/exactness.py [--cifar10 SPEC] [--weights FILE] [--slow-images N] \
        [--json OUT.json]

Exits with 1 if anything differs. Takes about 40 minutes of CPU time; nearly all of it goes to the levels
scalar and neon, which --slow-images limits to N images of each test split.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from coc_deploy import checkpoint, norms
from coc_deploy.calibration import calibrate, calibrate_heads
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.network import ExitSpec, Network, to_input
from coc_deploy.quantizers import QuantSpec
from coc_deploy.sections import Model
from coc_deploy.stages import distill
from coc_export.lowering import lower
from coc_runtime import Session, arithmetic, cocfile, cocwrite, datasets, files
from coc_runtime.backends import native
from coc_runtime.backends.native import NativeBackend
from coc_runtime.environment import environment
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from native_driver import ARM, COMMON, Driver, Request, build_driver

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = ((1, 8), (2, 8), (4, 8), (8, 8), (1, 4), (4, 4))
LEAVE = (0.5, 0.6)
"""Share of the images that are still there and leave at each early exit, about."""
SLOW = ("scalar", "neon")
"""Levels of milliseconds an image; neon under emulation."""
CHUNK = 250
WORKERS = os.cpu_count() or 1
EMULATED = replace(ARM, name="aarch64-optimized", flags=(*COMMON, "-O2"))
"""NEON as it is shipped: optimized, without sanitizers."""


@dataclass(frozen=True)
class Case:
    """A network and the data that it runs on."""

    data: str
    model: Model
    exits: ExitSpec


@dataclass(frozen=True, eq=False)
class Answer:
    """What a level computes for some images."""

    logits: np.ndarray
    """float32 [exits, N, classes]"""
    taken: np.ndarray
    """float32 [N, classes], at the exit taken"""
    exit: np.ndarray
    """int64 [N]"""


Drivers = SimpleQueue[Driver]
"""Idle processes of the emulator."""
Run = Callable[[np.ndarray], Answer]
"""A function that answers images uint8 [N, C, H, W]; threads may share it."""


def quantized(case: Case, bits: tuple[int, int], images: np.ndarray) -> Network:
    """The case's network at these bits (8-bit stem and linear layers), calibrated on the images."""
    torch.manual_seed(0)
    batches = [to_input(images[i : i + 128]) for i in range(0, min(len(images), 1024), 128)]
    network = distill.build(case.model, images.shape[1], 10, (images.shape[2], images.shape[3]))
    if not case.model.weights:
        norms.renew(network, batches)
    network.quantize(QuantSpec(bits[0], bits[1], 8))
    calibrate(network, batches)
    norms.renew(network, batches)
    network.add_exits(case.exits)
    network.to(memory_format=torch.channels_last)
    calibrate_heads(network, batches)
    return network


def lowered(network: Network, folder: Path) -> Graph:
    """Its integer graph, read back from the bytes of a .coc file; the thresholds are yet to be chosen."""
    network.thresholds = (0.0,) * len(network.heads)
    path = folder / "model.pt"
    checkpoint.save(path, Checkpoint(network))
    return cocfile.parse(cocwrite.dump(lower(checkpoint.load(path), path)), str(path)).graph


def thresholds(logits: np.ndarray) -> tuple[float, ...]:
    """Such that LEAVE of the images leave, for logits [exits, N, classes] of the reference.

    Each lies in a wide gap between confidences: the integers decide, not the last digit of exp.
    """
    chosen, staying = [], np.ones(logits.shape[1], dtype=bool)
    for k, share in enumerate(LEAVE):
        score = arithmetic.confidence(logits[k]).astype(np.float64)
        ordered = np.unique(score[staying])
        low = max(int(len(ordered) * (1 - share)) - 20, 0)
        gaps = np.diff(ordered[low : low + 41])
        widest = low + int(np.argmax(gaps))
        chosen.append(float(ordered[widest] + ordered[widest + 1]) / 2)
        staying &= score < chosen[-1]
    return tuple(chosen)


def in_extension(data: bytes, level: str) -> Run:
    backend = NativeBackend(data, "the graph's .coc file", cpu=level)

    def run(images: np.ndarray) -> Answer:
        taken, _, exits, _, _ = backend.run(images)
        return Answer(backend.logits_per_exit(images), taken, exits)

    return run


def emulated(data: bytes, classes: int, drivers: Drivers) -> Run:
    def run(images: np.ndarray) -> Answer:
        driver = drivers.get()
        try:
            result = driver.run(data, images, classes, Request(cpu="neon"))
            logits = driver.run_all_exits(data, images, classes, Request(cpu="neon"))
        finally:
            drivers.put(driver)
        return Answer(logits, result.logits, result.exit)

    return run


def reference(graph: Graph, images: np.ndarray, pool: ThreadPoolExecutor) -> np.ndarray:
    """float32 [exits, N, classes]"""
    session = Session.from_graph(graph)
    parts = pool.map(session.logits_per_exit, (images[i : i + CHUNK] for i in range(0, len(images), CHUNK)))
    return np.concatenate(list(parts), axis=1)


def compared(run: Run, images: np.ndarray, expected: Answer, pool: ThreadPoolExecutor) -> dict[str, Any]:
    """Counts of what a level computes and of what differs from the reference."""

    def differing(start: int) -> tuple[int, int, int]:
        part = slice(start, start + CHUNK)
        found = run(images[part])
        return (
            int((found.logits != expected.logits[:, part]).sum()),
            int((found.taken != expected.taken[part]).sum()),
            int((found.exit != expected.exit[part]).sum()),
        )

    logits, taken, exits = np.sum(list(pool.map(differing, range(0, len(images), CHUNK))), axis=0)
    shares = np.bincount(expected.exit, minlength=len(expected.logits)) / len(images)
    return {
        "images": len(images),
        "logits": len(images) * expected.logits.shape[0] * expected.logits.shape[2],
        "differing_logits": int(logits),
        "differing_logits_at_the_exit_taken": int(taken),
        "differing_exits": int(exits),
        "exit_share": [float(share) for share in shares],
    }


def measure(case: Case, drivers: Drivers | None, slow_images: int | None) -> list[dict[str, Any]]:
    """A record per width and level."""
    held_out, test = (datasets.load(case.data, split) for split in ("held-out", "test"))
    count = len(test.images)
    some = np.unique(np.linspace(0, count - 1, min(slow_images or count, count)).astype(int))
    records = []
    with ThreadPoolExecutor(WORKERS) as pool, tempfile.TemporaryDirectory() as folder:
        for bits in WIDTHS:
            graph = lowered(quantized(case, bits, held_out.images), Path(folder))
            logits = reference(graph, test.images, pool)
            graph = replace(graph, thresholds=thresholds(logits))
            exits = arithmetic.exits_taken(logits, graph.thresholds)
            expected = Answer(logits, logits[exits, np.arange(len(exits))], exits)
            data = cocwrite.dump(graph)
            runs = {level: in_extension(data, level) for level in native.levels()}
            if drivers is not None:
                runs["neon"] = emulated(data, graph.classes, drivers)
            for level, run in runs.items():
                at = some if level in SLOW else np.arange(count)
                about = {
                    "data": test.name,
                    "network": case.model.model,
                    "bits": "x".join(map(str, bits)),
                    "level": level,
                    "emulated": level == "neon" and drivers is not None,
                    "test_split": count,
                }
                part = Answer(logits[:, at], expected.taken[at], exits[at])
                records.append(about | compared(run, test.images[at], part, pool))
                print(line(records[-1]), flush=True)
    return records


def line(record: dict[str, Any]) -> str:
    shares = " ".join(f"{share:.0%}" for share in record["exit_share"])
    return (
        f"{record['data']:18} {record['network']:9} {record['bits']}  {record['level']:7} "
        f"{record['images']:6} images  {record['differing_logits']} of {record['logits']} logits and "
        f"{record['differing_exits']} exits differ  ({shares})"
    )


def wrong(record: dict[str, Any]) -> bool:
    return any(count > 0 for key, count in record.items() if key.startswith("differing"))


def emulation() -> dict[str, Any]:
    """How NEON ran: versions of compiler and emulator, or why it did not."""
    missing = EMULATED.missing()
    if missing is not None:
        return {"missing": f"{missing} is not installed"}
    tools = (EMULATED.gcc, EMULATED.emulator[0])
    said = [subprocess.run([tool, "--version"], capture_output=True, text=True).stdout for tool in tools]
    compiler, emulator = (text.splitlines()[0] for text in said)
    return {"compiler": compiler, "flags": " ".join(EMULATED.flags[-1:]), "emulator": emulator}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar10", default=f"imagefolder:{ROOT / 'data/cifar10'}", metavar="SPEC")
    weights = ROOT / "data/weights/resnet20_optB_distiller_dense_cifar10.pt"
    parser.add_argument("--weights", default=weights, metavar="FILE", help="a ResNet-20's for CIFAR-10")
    parser.add_argument(
        "--slow-images", type=int, metavar="N", help="for scalar and neon: N images spread over each split"
    )
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="write the counts here")
    options = parser.parse_args()
    cases = (
        Case("digits", Model(model="resnet8"), ExitSpec(("layer1.0", "layer2.0"), "conv", 16)),
        Case(
            options.cifar10,
            Model(model="resnet20", weights=str(options.weights)),
            ExitSpec(("layer1.0", "layer2.0"), "conv", 16),
        ),
    )
    missing, emulator, drivers = native.why_missing(), emulation(), None
    records: list[dict[str, Any]] = []
    try:
        if missing is not None:
            raise CocError(missing)
        if "missing" not in emulator and "neon" not in native.levels():
            drivers = Drivers()
            for _ in range(WORKERS):
                drivers.put(Driver(build_driver(EMULATED)))
        for case in cases:
            records += measure(case, drivers, options.slow_images)
    except CocError as error:
        print(f"exactness: error: {error}", file=sys.stderr)
        return 2
    while drivers is not None and not drivers.empty():
        drivers.get().close()
    result = {
        "schema": 1,
        "about": "native core against the NumPy reference; networks quantized from calibration images alone, "
        "heads untrained, thresholds from the test images: made to compare integers, not to classify",
        "environment": environment(),
        "neon": emulator,
        "runs": records,
    }
    if options.json is not None:
        files.write_json(options.json, result)
    return int(any(wrong(record) for record in records))


if __name__ == "__main__":
    sys.exit(main())
