"""What runs an integer graph: one file per backend, one interface, the same integers out of each."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

SingleRun = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, int, np.ndarray]]
"""(images uint8 [1, C, H, W], thresholds float32 [exits - 1]) -> (logits float32 [1, classes], exit,
confidence float32 [1])."""

Outcome = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""The arrays of a `Result`: logits, label, exit, confidence, bitops."""


class Backend(Protocol):
    """Runs segments; holds no state that a run changes, so that threads may share it."""

    @property
    def name(self) -> str:
        """What the user calls it: "reference", "onnxruntime"."""

    @property
    def run_single(self) -> SingleRun | None:
        """Runs one image to the exit that it takes; None where the backend cannot decide that itself."""

    def run_segment(self, index: int, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Run segment `index` on a batch of at least one.

        codes: uint8 [N, *shape of the segment's input]; for segment 0 the raw image bytes, which are
        the codes. Returns (logits as float32 values [N, classes], the carry's codes uint8
        [N, *shape] or None from the last segment).
        """


class WholeBackend(Protocol):
    """Runs a whole model and takes the exits itself; threads may share it."""

    @property
    def name(self) -> str:
        """What the user calls it: "native"."""

    def run(self, images: np.ndarray) -> Outcome:
        """Classify raw images uint8 [N, C, H, W], each up to its first confident exit."""

    def logits_per_exit(self, images: np.ndarray) -> np.ndarray:
        """float32 [exits, N, classes] of raw images, nothing left early."""


@runtime_checkable
class Profiled(Protocol):
    """A backend that can say where its time goes."""

    def operator_times(self, images: np.ndarray, rounds: int) -> np.ndarray:
        """Microseconds per image of each of the graph's operators, in order, and last of everything else:
        float64 [operators + 1].

        images: raw, uint8 [N, C, H, W], at least one; each runs `rounds` times, alone, nothing left early.
        """


def middle(times: np.ndarray) -> np.ndarray:
    """Mean along the first axis but for the lowest and the highest tenth: few interruptions do not change it,
    and unlike a median it is finer than the steps in which a clock counts."""
    ordered = np.sort(times, axis=0)
    tenth = len(ordered) // 10
    mean: np.ndarray = ordered[tenth : len(ordered) - tenth].mean(axis=0)
    return mean
