"""How often the promise about early exits is broken, and what keeping it costs.

The test images of a network with exits are split at random, 200 times: one half chooses thresholds as the
held-out images of a run would, the other half is new. A promise is broken where the new half loses more than
max_drop against the last exit. `rule of thumb` is what was used before: the cheapest thresholds whose loss on
the choosing images is within max_drop, one standard error included.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from coc_deploy import checkpoint
from coc_deploy.counting import segment_layers
from coc_deploy.network import exit_logits
from coc_runtime import cost, datasets, environment, files, promise, thresholds
from coc_runtime.arithmetic import Task, exits_taken
from coc_runtime.promise import Promise

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("examples/cifar10-resnet20-1x8", "examples/cifar10-resnet20-4x8")
DROPS = (0.3, 0.5, 1.0)
CONFIDENCE = 0.9
COMBINATIONS = 400
"""Settings that the rule of thumb's frontier tries of the first exit: hundreds of frontiers are searched."""

Chosen = dict[str, tuple[float, ...]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="imagefolder:data/cifar10")
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in NETWORKS:
        logits, labels, spent = outputs(ROOT / name / "model.pt", options.data)
        choose = partial(chosen, logits, labels, spent)
        with ProcessPoolExecutor(options.workers) as pool:
            splits = list(pool.map(choose, range(options.splits), chunksize=5))
        for drop in DROPS:
            for rule in ("rule of thumb", "promise"):
                limits = [found[f"{rule} {drop}"] for found in splits]
                row = {"network": Path(name).name, "max_drop": drop, "rule": rule}
                rows.append({**row, **judged(logits, labels, spent, limits, drop)})
                print(rows[-1], flush=True)
        result = {
            "cpu": environment.cpu(),
            "data": options.data.rpartition("/")[2],
            "test_images": len(labels),
            "splits": options.splits,
            "confidence": CONFIDENCE,
            "rows": rows,
        }
        files.write_json(options.json, result)


def outputs(model: Path, data: str) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Logits of all exits on the test images, labels, and BitOps up to each exit."""
    network, test = checkpoint.load(model).network, datasets.load(data, "test")
    return exit_logits(network, test.images), test.labels, cost.exit_bitops(segment_layers(network))


def halves(images: int, split: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images choose, and which are new."""
    order = np.random.RandomState(split).permutation(images)
    return order[: images // 2], order[images // 2 :]


def chosen(logits: np.ndarray, labels: np.ndarray, spent: list[int], split: int) -> Chosen:
    """The thresholds of both rules for all drops, by "rule drop"."""
    choosing, _ = halves(len(labels), split)
    known, right = logits[:, choosing], labels[choosing]
    frontier = thresholds.frontier(known, right, spent, combinations=COMBINATIONS)
    found: Chosen = {}
    for drop in DROPS:
        within = np.flatnonzero(frontier.loss <= drop / 100)
        found[f"rule of thumb {drop}"] = tuple(frontier.thresholds[within[0]].tolist())
        found[f"promise {drop}"] = promise.choose(known, right, spent, Promise(drop, CONFIDENCE)).thresholds
    return found


def judged(
    logits: np.ndarray, labels: np.ndarray, spent: list[int], limits: list[tuple[float, ...]], drop: float
) -> dict[str, float]:
    """What thresholds, one set a split, did to the new images."""
    worth = thresholds.gains(logits, labels, Task.CLASSIFICATION)
    costs = np.asarray(spent)
    losses, everywhere, saved = [], [], []
    for split, chosen_limits in enumerate(limits):
        _, new = halves(len(labels), split)
        taken = exits_taken(logits, chosen_limits)
        lost = worth[-1] - worth[taken, np.arange(len(taken))]
        losses.append(100 * lost[new].mean())
        everywhere.append(100 * lost.mean())
        saved.append(100 * (1 - costs[taken[new]].mean() / costs[-1]))
    limit = drop + 1e-9
    return {
        "broken": float(np.mean(np.array(losses) > limit)),
        "broken_on_all": float(np.mean(np.array(everywhere) > limit)),
        "mean_loss": float(np.mean(losses)),
        "worst_loss": float(np.max(losses)),
        "saved_bitops_percent": float(np.mean(saved)),
        "without_exits": float(np.mean([min(chosen_limits) > 1 for chosen_limits in limits])),
    }


if __name__ == "__main__":
    main()
