"""The C core: runs .coc files in exact integers, through its public interface coc.h."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import arithmetic, cocfile
from ..coclayout import TASKS
from ..errors import CocError
from ..graph import check_thresholds
from ..limits import MAX_THREADS
from . import Outcome, middle


def why_missing() -> str | None:
    """Why the C core cannot be used here; None if it can."""
    try:
        from .. import _native  # noqa: F401
    except ImportError as error:
        return f"the C extension was not built ({error}): install a C compiler, then coc-deploy again"
    return None


def levels() -> tuple[str, ...]:
    """Levels of kernels that this build and this CPU have, best first; the last is "scalar"."""
    from .. import _native

    return _native.levels()


def _check_level(cpu: str | None, path: str | Path) -> None:
    """Refuse a level that is asked for, or named in the environment, and is none of `levels()`."""
    name = os.environ.get("COC_CPU", "") if cpu is None else cpu
    if name and name not in levels():
        asked = f"COC_CPU is {name!r}" if cpu is None else f"cpu is {name!r}"
        known = ", ".join(levels())
        raise CocError(
            f"{path}: {asked}, not a level of kernels of this CPU and this build: choose one of {known}"
        )


class NativeBackend:
    """A `WholeBackend` for the bytes of a file; threads may share it."""

    name = "native"

    def __init__(
        self,
        data: bytes,
        path: str | Path,
        threads: int = 1,
        thresholds: Sequence[float] | None = None,
        cpu: str | None = None,
    ) -> None:
        """data: the file's bytes, which are copied. path: of the file, for errors. threads: that share the
        rows of one layer. thresholds: None for the file's. cpu: one of `levels()`; None for the one that
        the environment's COC_CPU names, else the best.

        Raises CocError: the file is damaged, thresholds are not legal, the level of kernels is not
        available.
        """
        from .._native import Runner

        _check_level(cpu, path)
        if threads > MAX_THREADS:
            raise CocError(f"backend native runs at most {MAX_THREADS} threads, {threads} given")
        try:
            self._runner = Runner(data)
        except CocError as error:
            cocfile.parse(data, str(path))  # says more about what is wrong
            raise CocError(f"{path}: {error}: export it again") from None
        *shape, self.classes, task, stored, self.exit_bitops = self._runner.info()
        self.input_shape, self.task = tuple(shape), TASKS[task]
        self.thresholds = check_thresholds(
            stored if thresholds is None else tuple(thresholds), len(self.exit_bitops) - 1, self.task
        )
        try:
            gates = arithmetic.gate_thresholds(self.thresholds, self.task).tobytes()
            self.cpu = self._runner.start(threads, gates, cpu)
        except CocError as error:
            raise CocError(f"{path}: cannot run: {error}") from None
        self.memory_bytes = self._runner.session_bytes()

    def run(self, images: np.ndarray) -> Outcome:
        """See `WholeBackend.run`."""
        count = len(images)
        logits = np.empty((count, self.classes), np.float32)
        label = np.empty(count, np.int64)
        taken = np.empty(count, np.int64)
        confidence = np.empty(count, np.float32)
        bitops = np.empty(count, np.int64)
        self._runner.run(np.ascontiguousarray(images), logits, label, taken, confidence, bitops)
        return logits, label, taken, confidence, bitops

    def logits_per_exit(self, images: np.ndarray) -> np.ndarray:
        """See `WholeBackend.logits_per_exit`."""
        logits = np.empty((len(self.exit_bitops), len(images), self.classes), np.float32)
        self._runner.run_all_exits(np.ascontiguousarray(images), logits)
        return logits

    def operator_times(self, images: np.ndarray, rounds: int) -> np.ndarray:
        """See `Profiled.operator_times`: nanoseconds of the core's own clock, coc_profile of coc.h."""
        images = np.ascontiguousarray(images)
        times = np.empty((rounds + 1, len(images), self._runner.operators() + 1), np.uint64)
        for found in times:
            self._runner.profile(images, found)
        return middle(times[1:].reshape(-1, times.shape[-1]) / 1000)  # the first round warms the caches
