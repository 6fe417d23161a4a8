"""The C extension, runtime/native/pymodule.c."""

import numpy as np

def levels() -> tuple[str, ...]:
    """Levels of kernels that this build and this CPU have, best first; the last is "scalar"."""

class Runner:
    """A .coc model and its sessions; threads may share it. Raises CocError with coc_strerror's line."""

    def __new__(cls, data: bytes) -> Runner: ...
    def info(self) -> tuple[int, int, int, int, tuple[float, ...], tuple[int, ...]]:
        """(channels, height, width, classes, thresholds, BitOps of each exit)"""

    def start(self, threads: int, thresholds: bytes, cpu: str | None = None) -> str:
        """Make the first session; gives its level of kernels. To be called once, before a run.

        thresholds: float32, one per early exit. cpu: one of `levels()`; None: that of COC_CPU, else the best.
        """

    def session_bytes(self) -> int:
        """What a session takes: weights as kernels read them, activations, scratch."""

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

    def operators(self) -> int:
        """How many operators the model has."""

    def profile(self, images: np.ndarray, times: np.ndarray) -> None:
        """Fills times, uint64 [N, operators + 1]: nanoseconds of each operator and of everything else."""
