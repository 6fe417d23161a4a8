"""A trained, quantized network -> the integer graph that the runtime executes."""

from .graph import lower

__all__ = ["lower"]
