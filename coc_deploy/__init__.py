"""The Chain of Compression: distillation, pruning, quantization and early exit of PyTorch networks."""

from coc_runtime.errors import CocError

from .api import Run, compress

__all__ = ["CocError", "Run", "compress"]
