"""Does the training loop keep up with the bare model step?

Compares images/s of train.fit (shuffling, augmentation, schedule, progress) with a loop of nothing but
forward, backward and optimizer on the same batches, made beforehand. Both train the same model in the
same precision, alternately, so that a machine that slows down slows both; medians are compared. On a machine
that others use, the ratio of CPU seconds is the steadier one; the loop's include writing its progress and
looking at a few held-out images.

    python benchmarks/scripts/train_speed.py [--data cifar10] [--model resnet20] [--images 6400] \
        [--json out.json]
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from coc_deploy import machine, train
from coc_deploy.models import Architecture
from coc_deploy.network import Network
from coc_runtime import datasets
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError


def job(network: Network, data: Dataset, folder: Path, batch: int, low_precision: bool) -> train.Job:
    """One epoch of ordinary training."""

    def prepare(epoch: int) -> bool:
        network.train()
        return low_precision

    return train.Job(
        name="speed",
        key="speed",
        network=network,
        parameters=list(network.parameters()),
        loss=lambda x, y: train.cross_entropy(network(x), y),
        prepare=prepare,
        schedule=train.Schedule(1, 0.01, batch),
        seed=0,
        folder=folder,
        train=data,
        held_out=_some(data, 10),
        augment=train.Augment(4, True),
    )


def loop_speed(work: train.Job) -> tuple[float, float]:
    """Images/s of the loop, as it prints them, and its CPU seconds."""
    (work.folder / "progress.pt").unlink(missing_ok=True)
    busy = time.process_time()
    speed = train.fit(work)[0]["images_per_s"]
    return speed, time.process_time() - busy


def bare_speed(work: train.Job) -> tuple[float, float]:
    """Images/s and CPU seconds of forward, backward and optimizer alone."""
    fabric = machine.fabric()
    network = work.network.to(fabric.device)
    optimizer = torch.optim.SGD(work.parameters, 0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
    share = train.Share(device=fabric.device)
    batches = list(train.batches(work, torch.Generator().manual_seed(0), share))
    low_precision = work.prepare(0)
    _wait()
    started, busy = time.perf_counter(), time.process_time()
    for x, y in batches:
        with fabric.autocast() if low_precision else nullcontext():
            loss = work.loss(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    _wait()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    network.to("cpu")
    return sum(len(y) for _, y in batches) / seconds, busy


def _wait() -> None:
    if machine.fabric().device.type == "cuda":
        torch.cuda.synchronize()


def _some(data: Dataset, count: int) -> Dataset:
    """Some of the images, of all classes though they may lie sorted."""
    chosen = slice(None, None, max(1, len(data.labels) // count))
    return replace(data, images=data.images[chosen][:count], labels=data.labels[chosen][:count])


def measure(data: Dataset, model: str, width: int, batch: int, rounds: int, precise: bool) -> dict[str, Any]:
    _, channels, height, width_ = data.images.shape
    network = Network(Architecture(model, width, "B", channels, len(data.classes)), (height, width_))
    network.to(memory_format=torch.channels_last)
    speeds: dict[str, list[float]] = {"bare": [], "loop": []}
    busy: dict[str, list[float]] = {"bare": [], "loop": []}
    with tempfile.TemporaryDirectory() as folder:
        work = job(network, data, Path(folder), batch, not precise)
        loop_speed(replace(work, train=_some(data, 4 * batch)))
        for turn in range(rounds):
            for name in ("bare", "loop") if turn % 2 else ("loop", "bare"):
                speed, seconds = loop_speed(work) if name == "loop" else bare_speed(work)
                speeds[name].append(speed)
                busy[name].append(seconds)
    pairs = [loop / bare for loop, bare in zip(speeds["loop"], speeds["bare"], strict=True)]
    return {
        "model": model,
        "width": width,
        "precision": "float32" if precise else "bfloat16",
        "images_per_s": {name: round(statistics.median(values), 1) for name, values in speeds.items()},
        "loop_over_bare": round(statistics.median(pairs), 3),
        "loop_over_bare_in_cpu_time": round(
            statistics.median(busy["bare"]) / statistics.median(busy["loop"]), 3
        ),
        "rounds": {name: [round(value, 1) for value in values] for name, values in speeds.items()},
    }


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    result.add_argument("--data", default="cifar10")
    result.add_argument("--model", nargs="+", default=["resnet20"])
    result.add_argument("--width", type=int, default=16)
    result.add_argument("--images", type=int, default=6400, help="of one round")
    result.add_argument("--batch", type=int, default=128)
    result.add_argument("--rounds", type=int, default=7)
    result.add_argument("--threads", type=int, default=torch.get_num_threads())
    result.add_argument("--json", type=Path)
    return result


def main() -> int:
    options = parser().parse_args()
    torch.set_num_threads(options.threads)
    try:
        data = _some(datasets.load(options.data, "train"), options.images)
        precisions = [True, False] if machine.bfloat16_pays() else [True]
        results = [
            measure(data, model, options.width, options.batch, options.rounds, precise)
            for model in options.model
            for precise in precisions
        ]
    except CocError as error:
        print(f"train_speed: error: {error}", file=sys.stderr)
        return 2
    for result in results:
        speed = result["images_per_s"]
        print(
            f"{result['model']} {result['precision']}: bare step {speed['bare']:.0f} images/s, "
            f"loop {speed['loop']:.0f} images/s, {result['loop_over_bare']:.1%} of it, "
            f"{result['loop_over_bare_in_cpu_time']:.1%} by CPU time"
        )
    if options.json:
        document = {
            "data": data.name,
            "images": options.images,
            "batch": options.batch,
            "device": str(machine.fabric().device),
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "machine": platform.machine(),
            "runs": results,
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
