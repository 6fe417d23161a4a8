"""A trained, quantized network -> the integer graph that the runtime executes."""

from .graph import lower, task_of

__all__ = ["lower", "task_of"]
