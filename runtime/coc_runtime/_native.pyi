"""The C extension, runtime/native/pymodule.c."""

import numpy as np

class Runner:
    """A .coc model and its sessions; threads may share it. Raises CocError with coc_strerror's line."""

    def __new__(cls, data: bytes) -> Runner: ...
    def info(self) -> tuple[int, int, int, int, tuple[float, ...], tuple[int, ...]]:
        """(channels, height, width, classes, thresholds, BitOps of each exit)"""

    def start(self, threads: int, thresholds: bytes) -> str:
        """Make the first session; gives its level of kernels. To be called once, before a run.

        thresholds: float32, one per early exit.
        """

    def run(
        self,
        images: np.ndarray,
        logits: np.ndarray,
        label: np.ndarray,
        exit: np.ndarray,
        confidence: np.ndarray,
        bitops: np.ndarray,
    ) -> None:
        """Contiguous planar images; fills the arrays, whose types are those of `Result`."""

    def run_all_exits(self, images: np.ndarray, logits: np.ndarray) -> None:
        """Fills logits, float32 [exits, N, classes]."""
