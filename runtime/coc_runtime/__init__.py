"""Runs compressed multi-exit networks: `Session(path).run(images)`. Needs NumPy only."""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import CocError

if TYPE_CHECKING:
    from .arithmetic import Task
    from .session import Info, Result, Session

__version__ = "0.1.0"

__all__ = ["CocError", "Info", "Result", "Session", "Task"]

_HOMES = {"Info": "session", "Result": "session", "Session": "session", "Task": "arithmetic"}


def __getattr__(name: str) -> Any:
    """Names whose modules need NumPy, imported when they are asked for: commands answer at once."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
