"""Runs compressed multi-exit networks: `Session(path).run(images)`. Needs NumPy only."""

from .arithmetic import Task
from .errors import CocError
from .session import Info, Result, Session

__version__ = "0.1.0"

__all__ = ["CocError", "Info", "Result", "Session", "Task"]
