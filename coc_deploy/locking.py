"""One command at a time works in a run's folder."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coc_runtime import files
from coc_runtime.errors import CocError

from . import machine


@contextmanager
def hold(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make the folder and keep others out of it inside the block; CocError, naming the holder, if it is held.

    wait: until it is free, instead. The operating system releases the lock of a process that is killed.
    """
    held: list[int] = []
    machine.once(lambda: held.append(_lock(folder, wait)))
    try:
        yield
    finally:
        for descriptor in held:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)


def _lock(folder: Path, wait: bool = False) -> int:
    """An open file that holds the lock and says who we are."""
    files.make_folder(folder)
    path = folder / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise CocError(f"{path}: cannot be written ({error.strerror}): choose another place") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        os.ftruncate(descriptor, 0)
        os.write(descriptor, os.fsencode(f"process {os.getpid()} ({' '.join(sys.argv)})"))
    except BlockingIOError:
        holder = os.fsdecode(os.read(descriptor, 1000)) or "another process"
        os.close(descriptor)
        raise CocError(
            f"{folder}: {' '.join(holder.split())} works in it: wait for its end or choose another --out"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise CocError(f"{path}: cannot be locked ({error.strerror}): choose another place") from error
    return descriptor
