"""The Chain of Compression: distillation, pruning, quantization and early exit of PyTorch networks."""
