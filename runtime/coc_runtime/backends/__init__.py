"""What runs an integer graph: one file per backend, one interface, the same integers out of each."""

from collections.abc import Callable
from typing import Protocol

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
