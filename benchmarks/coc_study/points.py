"""What one finished chain is worth: accuracy against BitOps, at several operating points if it has exits."""

import json
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from coc_deploy.chain import Data, Start, chain_bits
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.counting import segment_layers
from coc_deploy.network import Network, exit_logits
from coc_runtime import cost, files, thresholds
from coc_runtime.arithmetic import Task, exits_taken
from coc_runtime.errors import CocError

FILE = "points.npz"
COMBINATIONS = 400
"""Settings of the exits before the last early one that a frontier tries; a study has many frontiers."""
MOST_LOST = 0.1
"""Share of the held-out images: what loses more answers than that is no use to anybody."""


@dataclass(frozen=True)
class Point:
    """One operating point, on the test images. accuracy in percent; BitOps are the mean of an image."""

    thresholds: tuple[float, ...]
    accuracy: float
    bitops_cr: float
    bitops_cr_uniform: float
    expected_bitops: float
    exit_share: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """All operating points of one finished chain; wanted: how many were asked for.

    exit_bitops: of an image that leaves at each exit. correct: bool [points, N], taken: uint8 [points, N], of
    each test image whether it was answered rightly and where it left. epochs, seconds: of the whole chain.
    """

    points: tuple[Point, ...]
    wanted: int
    original_accuracy: float
    original_bitops: int
    exit_bitops: tuple[int, ...]
    cr: float
    epochs: int
    seconds: float
    data: str
    correct: np.ndarray
    taken: np.ndarray


def measure(stage: Checkpoint, begun: Start, data: Data, logits: np.ndarray, count: int) -> Measured:
    """The operating points of a finished stage. logits: on the test images, [exits, N, classes].

    Thresholds come from the frontier of the held-out images; the test images only say what they do.
    """
    network, bits = stage.network, chain_bits(stage.network)
    segments = segment_layers(network)
    cumulative = np.array(cost.exit_bitops(segments))
    uniform = np.cumsum([cost.uniform_bitops(segment, bits) for segment in segments])
    choices = [()] if network.exits is None else _choices(network, data, cumulative.tolist(), count)
    points, correct, everywhere = [], [], []
    for choice in choices:
        answered, taken = answers(logits, data.test.labels, choice)
        expected = float(cumulative[taken].mean())
        points.append(
            Point(
                thresholds=choice,
                accuracy=float(answered.mean() * 100),
                bitops_cr=begun.bitops / expected,
                bitops_cr_uniform=begun.bitops / float(uniform[taken].mean()),
                expected_bitops=expected,
                exit_share=tuple(np.bincount(taken, minlength=len(logits)) / len(taken)),
            )
        )
        correct.append(answered)
        everywhere.append(taken)
    return Measured(
        points=tuple(points),
        wanted=count,
        original_accuracy=stage.history[0]["accuracy"],
        original_bitops=begun.bitops,
        exit_bitops=tuple(int(spent) for spent in cumulative),
        cr=stage.history[-1]["cr"],
        epochs=sum(len(record["epochs"]) for record in stage.history),
        seconds=sum(record["seconds"] for record in stage.history),
        data=data.training.name,
        correct=np.stack(correct),
        taken=np.stack(everywhere).astype(np.uint8),
    )


def answers(
    logits: np.ndarray, labels: np.ndarray, limits: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Which images logits [exits, N, classes] answer rightly, bool [N], and at which exit they leave."""
    taken = exits_taken(logits, limits)
    return logits[taken, np.arange(len(taken))].argmax(axis=1) == labels, taken


def _choices(network: Network, data: Data, exit_bitops: list[int], count: int) -> list[tuple[float, ...]]:
    """Thresholds of up to `count` points along the frontier of the held-out images, cheapest first; the last
    sends every image through the whole network."""
    held_out = exit_logits(network, data.held_out.images)
    labels = data.held_out.labels
    found = thresholds.frontier(held_out, labels, exit_bitops, combinations=COMBINATIONS)
    whole = (thresholds.NEVER[Task.CLASSIFICATION],) * len(network.heads)
    useful = [point for point in found.spread(3 * count) if found.loss[point] <= MOST_LOST]
    early = [limits for limits in map(tuple, found.thresholds[useful].tolist()) if limits != whole]
    kept = np.linspace(0, len(early) - 1, min(count - 1, len(early))).round().astype(int).tolist()
    return [*(early[at] for at in kept), whole]


def save(folder: Path, measured: Measured) -> None:
    """Into a stage's folder, by a temporary name."""
    values = asdict(measured)
    arrays = {name: values.pop(name) for name in ("correct", "taken")}
    buffer = BytesIO()
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    np.savez_compressed(
        buffer, values=text, correct=np.packbits(arrays["correct"], axis=1), taken=arrays["taken"]
    )
    files.write_bytes(folder / FILE, buffer.getvalue())


def load(folder: Path) -> Measured | None:
    """What `save` left in a stage's folder, or None; CocError for a damaged file."""
    path = folder / FILE
    try:
        with np.load(path, allow_pickle=False) as stored:
            values: dict[str, Any] = json.loads(stored["values"].tobytes())
            taken = stored["taken"]
            correct = np.unpackbits(stored["correct"], axis=1, count=taken.shape[1]).astype(bool)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise CocError(f"{path}: unreadable; remove it to measure this stage again") from error
    points = tuple(
        Point(**point | {name: tuple(point[name]) for name in ("thresholds", "exit_share")})
        for point in values.pop("points")
    )
    values["exit_bitops"] = tuple(values["exit_bitops"])
    return Measured(points=points, correct=correct, taken=taken, **values)


def is_measured(folder: Path, count: int) -> bool:
    """Whether a stage's folder holds its operating points, as many as are wanted."""
    found = load(folder)
    return found is not None and found.wanted == count
