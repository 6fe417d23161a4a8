"""One command at a time works in a run's folder."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from coc_runtime import files
from coc_runtime.errors import CocError
from coc_runtime.text import one_line

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
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            tqdm.write(one_line(f"  waiting for {_holder(descriptor)}, which works in {folder}"))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, os.fsencode(f"process {os.getpid()} ({' '.join(sys.argv)})"), 0)
    except BlockingIOError:
        holder = _holder(descriptor)
        os.close(descriptor)
        raise CocError(f"{folder}: {holder} works in it: wait for its end or choose another --out") from None
    except OSError as error:
        os.close(descriptor)
        raise CocError(f"{path}: cannot be locked ({error.strerror}): choose another place") from error
    return descriptor


def _holder(descriptor: int) -> str:
    """Who says to hold the lock of an open file."""
    return " ".join(os.fsdecode(os.pread(descriptor, 1000, 0)).split()) or "another process"
