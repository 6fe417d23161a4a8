"""Writing files so that a killed program never leaves half of one, and reading artifacts whole."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import CocError
from .limits import MAX_FILE_BYTES
from .text import encodable


def read_artifact(path: str | Path) -> bytes:
    """A file that coc-export wrote; CocError, naming the path, if it is missing or cannot be read."""
    try:
        if Path(path).is_dir():
            raise CocError(f"{path}: is a directory: give the file that coc-export wrote")
        if Path(path).exists() and not Path(path).is_file():
            raise CocError(f"{path}: is not a regular file: give the file that coc-export wrote")
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
    """Write to a temporary name in the same folder, then rename; CocError where that fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CocError(f"{path}: cannot be written ({error.strerror}): choose another place") from error


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
