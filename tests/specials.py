"""What hangs where a guard is missing: special files at a path, processes that were forked off."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

KINDS = ("fifo", "device", "socket", "directory")


def make(kind: str, path: Path) -> Path:
    """A special file at the path; of a device, which only root can make, a link to one."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "directory":
        path.mkdir()
    else:
        before = os.getcwd()
        os.chdir(path.parent)  # a socket's address has room for 107 bytes
        try:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(path.name)
        finally:
            os.chdir(before)
    return path


@contextmanager
def at_once(seconds: float = 30) -> Iterator[None]:
    """Fail instead of hanging: what waits inside is interrupted by an error."""

    def give_up(_signal: int, _frame: FrameType | None) -> Any:
        raise AssertionError(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_with_children(words: list[str], seconds: float = 60) -> tuple[int | None, str]:
    """(exit code, what it wrote to stderr) of a program; None where it or a process that it forked off still
    runs after so many seconds. None of them outlives this call."""
    running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        _, errors = running.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        _, errors = running.communicate()
        return None, errors
    return running.returncode, errors
