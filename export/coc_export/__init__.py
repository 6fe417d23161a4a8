"""Lowering of trained networks to the integer graph and to ONNX, with proof that the integers agree."""

from coc_runtime.errors import CocError

from .api import Report, export

__all__ = ["CocError", "Report", "export"]
