"""Lowering of trained networks to the integer graph and to ONNX, with proof that the integers agree."""
