"""Writing files so that a killed program never leaves half of one, and reading artifacts whole."""

import contextlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from .errors import CocError
from .limits import MAX_FILE_BYTES
from .text import encodable

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{12}\.tmp", re.DOTALL)
"""Names of files that are being written, or that a killed program left; see `write_bytes`."""


def _unfit(path: str | Path) -> str | None:
    """What lies at a path in place of a regular file; None for such a file, for nothing, and for what this
    process may not see: whoever opens it is told."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return None
    if stat.S_ISREG(mode):
        return None
    return "is a directory" if stat.S_ISDIR(mode) else "is not a regular file"


def require_regular(path: str | Path, advice: str) -> None:
    """Raise CocError for a folder, FIFO, socket or device: reading one fails, waits or never ends."""
    found = _unfit(path)
    if found is not None:
        raise CocError(f"{path}: {found}: {advice}")


def read_artifact(path: str | Path) -> bytes:
    """A file that coc-export wrote; CocError, naming the path, if it is missing or cannot be read."""
    require_regular(path, "give the file that coc-export wrote")
    try:
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise CocError(f"{path}: larger than 2 GB, which no artifact can be: give another file")
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise CocError(f"{path}: no such file: check the path, or write it with coc-export") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CocError(
            f"{str(path)!r}: cannot be read ({reason}): check the path and its permissions"
        ) from None


def write_bytes(path: Path, data: bytes) -> None:
    """Write to a new name in the same folder, then rename; CocError where that fails.

    The new name, .NAME.RANDOM.tmp, is nobody else's: of several writers to one path the last to rename
    leaves its file, whole. A device or FIFO is not replaced.
    """
    found = _unfit(path)
    if found is not None:
        raise CocError(f"{path}: cannot be written ({found}): choose another place")
    temporary = _temporary(path)
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666
        )
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise CocError(f"{path}: cannot be written ({error.strerror}): choose another place") from error
        raise


def _temporary(path: Path) -> Path:
    """A hidden name beside a path; a long name is cut to what file systems take, 255 bytes."""
    name = os.fsdecode(os.fsencode(path.name)[:200])
    return path.with_name(f".{name}.{secrets.token_hex(6)}.tmp")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed programs left unfinished in a folder; for whoever is alone in it."""
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def taking_turns(folders: Iterable[Path]) -> Iterator[None]:
    """Inside, other programs that ask for one of these folders wait: files stay together.

    Where a file system has no locks for folders, nobody waits.
    """
    with contextlib.ExitStack() as held:
        for folder in sorted({folder.resolve() for folder in folders}):
            with contextlib.suppress(OSError):
                descriptor = os.open(folder, os.O_RDONLY)
                held.callback(os.close, descriptor)
                if fcntl is not None:
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def write_text(path: Path, text: str) -> None:
    """Text as UTF-8, what of names of files is none escaped; CocError where it cannot be written."""
    write_bytes(path, encodable(text).encode())


def write_json(path: Path, value: Any) -> None:
    """A JSON value, indented; CocError where it cannot be written."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def make_folder(path: Path) -> None:
    """The folder and those above it; CocError where they cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CocError(f"{path}: cannot be created ({error.strerror}): choose another folder") from error
