"""What a search wants, and the operating points to choose from: of held-out images, never of test images."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from coc_runtime import cost, thresholds
from coc_runtime.datasets import Dataset

from ... import checkpoint
from ...counting import segment_layers
from ...network import exit_logits

SLACK = 2.0
"""Points of accuracy that a stage in the middle may lose beyond what is allowed: later stages train on."""
ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """An operating point on the held-out images: accuracy in percent, BitOpsCR of the mean image."""

    thresholds: tuple[float, ...]
    accuracy: float
    bitops_cr: float


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

    def met(self, point: Point) -> bool:
        if self.kind is Kind.MAX_DROP:
            return self.original - point.accuracy <= self.amount + ROUNDING
        return point.bitops_cr >= self.amount - ROUNDING

    def choose(self, points: Sequence[Point]) -> Choice:
        """The best point that meets the goal, or the one that comes nearest to it."""
        meeting = [point for point in points if self.met(point)]
        if self.kind is Kind.MAX_DROP:
            if meeting:
                best = max(meeting, key=lambda point: (point.bitops_cr, point.accuracy))
                return Choice(best, True, best.bitops_cr)
            nearest = max(points, key=lambda point: (point.accuracy, point.bitops_cr))
            return Choice(nearest, False, self.amount - (self.original - nearest.accuracy))
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


def measure(
    model: Path, limits: Sequence[tuple[float, ...]], original_bitops: int, images: Dataset
) -> list[Point]:
    """A model's operating points on these images, with each of the given sets of thresholds and its own."""
    network = checkpoint.load(model).network
    exits = cost.exit_bitops(segment_layers(network))
    logits = exit_logits(network, images.images)
    points = []
    for limit in dict.fromkeys((network.thresholds, *limits)):
        gated = thresholds.gate(logits, images.labels, limit, exits)
        points.append(Point(tuple(limit), gated.accuracy, original_bitops / gated.bitops))
    return points


def most_ratio(bitops: Sequence[int], original_bitops: int) -> float:
    """BitOpsCR if every image left at the first exit. bitops: of each segment."""
    return original_bitops / bitops[0]
