"""Ctrl-C and SIGTERM end a command soon, also while its main thread is inside a long computation."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

GRACE = 0.7
"""Seconds in which a command that was stopped may leave its work in order."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Inside, the first of SIGNALS raises KeyboardInterrupt in the main thread. If the process has not ended
    GRACE seconds later, or a second one comes, a watching thread ends it at once.

    This is safe at any moment: files get their names when they are whole. tell: says on stderr that the
    command was stopped, unless that has been said.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._number = 0
        self._over = False
        self._handlers: dict[signal.Signals, Any] = {}
        self._watched: int | None = None
        self._wakeup: int | None = None

    @property
    def code(self) -> int:
        """Exit code of a command that was stopped."""
        return _code(self._number or signal.SIGINT)

    def end(self) -> NoReturn:
        """End the process of a stopped command: Python would first take torch down, for seconds."""
        _end(self.code)

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self
        usual = (signal.SIG_DFL, signal.default_int_handler)  # another, or none, was chosen by our parent
        self._handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self._handlers = {number: was for number, was in self._handlers.items() if was in usual}
        read, self._watched = os.pipe()
        os.set_blocking(self._watched, False)
        self._wakeup = signal.set_wakeup_fd(self._watched, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(read,), daemon=True).start()
        for number in self._handlers:
            signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        if self._watched is None:
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1 if self._wakeup is None else self._wakeup)
        os.close(self._watched)

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        first, self._number = not self._number, self._number or number
        if first and not self._over:
            raise KeyboardInterrupt

    def _watch(self, read: int) -> None:
        """Python runs signal handlers between two steps of the main thread only; the bytes that it writes for
        signals come at once."""
        end, number = float("inf"), 0
        while True:
            left = max(end - time.monotonic(), 0) if number else None
            if not select.select([read], [], [], left)[0]:
                break
            received = os.read(read, 1)
            if not received:
                os.close(read)
                return
            if received[0] in self._handlers:
                if number:
                    break
                end, number = time.monotonic() + GRACE, received[0]
        telling = threading.Thread(target=self._tell, daemon=True)  # a reader that waits would hold it
        telling.start()
        telling.join(0.2)
        _end(_code(number))


def _code(number: int) -> int:
    """The exit code of a program that this signal ended, as shells count."""
    return 128 + number


def _end(code: int) -> NoReturn:
    """Children of multiprocessing end with their parent only if it ends in order, so they are killed."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None:
        for child in multiprocessing.active_children():
            child.kill()
    os._exit(code)
