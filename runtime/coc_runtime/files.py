"""Writing files so that a killed program never leaves half of one."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from .errors import CocError


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


def write_json(path: Path, value: Any) -> None:
    """A JSON value, indented; CocError where it cannot be written."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def make_folder(path: Path) -> None:
    """The folder and those above it; CocError where they cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CocError(f"{path}: cannot be created ({error.strerror}): choose another folder") from error
