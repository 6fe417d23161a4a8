"""What a search wants, and the operating points to choose from: of held-out images, never of test images.

A loss is counted with one standard error on top, as thresholds count theirs (`coc_runtime.thresholds`): what
few images say about a small loss is worth little, and the best of many trials looks better than it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from coc_deploy import checkpoint
from coc_deploy.counting import segment_layers
from coc_deploy.network import exit_logits
from coc_runtime import cost
from coc_runtime.datasets import Dataset

from .. import points

SLACK = 2.0
"""Points of accuracy that a stage in the middle may lose beyond what is allowed: later stages train on."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """An operating point on the held-out images: accuracy in percent, BitOpsCR of the mean image.

    error: standard error, in points of accuracy, of what it loses against the original. Both answer the same
    images, so it counts those that only one of them gets right.
    """

    thresholds: tuple[float, ...]
    accuracy: float
    bitops_cr: float
    error: float = 0.0


class Kind(Enum):
    MAX_DROP = "max-drop"
    TARGET = "target-bitopscr"


@dataclass(frozen=True)
class Choice:
    """A point chosen of several. value: what the optimiser maximises, negative unless the goal is met."""

    point: Point
    met: bool
    value: float


@dataclass(frozen=True)
class Goal:
    """amount: points of accuracy that may be lost, or the BitOpsCR to reach. original: held-out accuracy of
    the original in percent."""

    kind: Kind
    amount: float
    original: float

    def lost(self, point: Point) -> float:
        """Points of accuracy below the original's, one standard error on top."""
        return self.original - point.accuracy + point.error

    def met(self, point: Point) -> bool:
        if self.kind is Kind.MAX_DROP:
            return self.lost(point) <= self.amount + ROUNDING
        return point.bitops_cr >= self.amount - ROUNDING

    def choose(self, points: Sequence[Point]) -> Choice:
        """The best point that meets the goal, or the one that comes nearest to it."""
        meeting = [point for point in points if self.met(point)]
        if self.kind is Kind.MAX_DROP:
            if meeting:
                best = max(meeting, key=lambda point: (point.bitops_cr, point.accuracy))
                return Choice(best, True, best.bitops_cr)
            nearest = max(points, key=lambda point: (-self.lost(point), point.bitops_cr))
            return Choice(nearest, False, self.amount - self.lost(nearest))
        if meeting:
            best = max(meeting, key=lambda point: (point.accuracy, point.bitops_cr))
            return Choice(best, True, best.accuracy)
        nearest = max(points, key=lambda point: (point.bitops_cr, point.accuracy))
        return Choice(nearest, False, nearest.bitops_cr - self.amount)

    def cannot_win(self, most_cr: float, best: Choice | None) -> bool:
        """Whether a network that reaches this BitOpsCR if every image leaves at once is of no use."""
        if self.kind is Kind.TARGET:
            return most_cr < self.amount - ROUNDING
        return best is not None and best.met and most_cr <= best.point.bitops_cr

    def has_lost(self, accuracy: float, best: Choice | None) -> bool:
        """Whether a chain that has this accuracy in the middle is given up."""
        if self.kind is Kind.MAX_DROP:
            return self.original - accuracy > self.amount + SLACK
        return best is not None and best.met and accuracy < best.point.accuracy - SLACK


def better(choice: Choice, best: Choice | None) -> bool:
    """Whether a choice beats the best so far; of equals the first stays."""
    return best is None or (choice.met, choice.value) > (best.met, best.value)


def answers(model: Path, images: Dataset) -> np.ndarray:
    """Which images a model gets right as it is, bool [N]."""
    network = checkpoint.load(model).network
    return points.answers(exit_logits(network, images.images), images.labels, network.thresholds)[0]


def measure(
    model: Path,
    limits: Sequence[tuple[float, ...]],
    original_bitops: int,
    original_right: np.ndarray,
    images: Dataset,
) -> list[Point]:
    """A model's operating points on these images, with its own thresholds and each of the given sets.

    original_right: which of the images the original gets right, bool [N].
    """
    network = checkpoint.load(model).network
    exits = np.asarray(cost.exit_bitops(segment_layers(network)))
    logits = exit_logits(network, images.images)
    found = []
    for limit in dict.fromkeys((network.thresholds, *limits)):
        right, taken = points.answers(logits, images.labels, limit)
        lost = original_right.astype(np.int64) - right
        found.append(
            Point(
                tuple(limit),
                float(100 * right.mean()),
                float(original_bitops / exits[taken].mean()),
                float(100 * lost.std() / len(lost) ** 0.5),
            )
        )
    return found


def most_ratio(bitops: Sequence[int], original_bitops: int) -> float:
    """BitOpsCR if every image left at the first exit. bitops: of each segment."""
    return original_bitops / bitops[0]
