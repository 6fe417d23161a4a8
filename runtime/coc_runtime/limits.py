"""The limits of graphs and files, each stated once: here.

`runtime/generate.py` writes runtime/native/coc_limits.h and tables of docs/format.md from this file, its
comments included; ONNX_ limits concern the reader of ONNX files alone. coc.h, a manual, repeats three limits.
"""

LOGIT_BITS = 32
"""Bits of logits, signed integers with zero point 0."""
MAX_BITS = 8
"""Bits of an activation's codes, at least 2."""
WEIGHT_BITS = (1, 2, 4, 8)
"""Bits of a weight's code."""
EXACT_LIMIT = 1 << 24
"""Integers below this are exact in float32, and so are their sums in any order."""
SUM_LIMIT = 1 << 31
"""Sums of a layer, its bias included, stay below this: they fit 32 bits."""
MULTIPLIER_BITS = 8
"""Significant bits of a channel's scale (HAWQ-V3 calls such numbers dyadic)."""
MAX_EXPONENT = 32
"""Magnitude of the exponent of a tensor's step."""
MAX_SCALE_EXPONENT = 60
"""Magnitude of the exponent of a channel's scale. With both, every multiplier is a normal float32 number."""
MAX_SHIFT = 7
"""How many powers of two the steps of an addition's operands lie apart."""
MAX_WINDOW = 255
"""Height and width of a pool's window; larger ones are global."""
MAX_DILATION = 256
"""Pixels from weight to weight of a convolution."""

MAX_CHANNELS = 1 << 16
"""Channels of a tensor, features, classes."""
MAX_SIZE = (1 << 16) - 1
"""Height and width of a tensor."""
MAX_ELEMENTS = 1 << 28
"""Elements of a tensor per image, and weights of a layer."""
MAX_EXITS = 16
"""Early exits. Levels of an ONNX file nest; protobuf libraries refuse messages nested 100 deep, a level takes
three."""
MAX_SEGMENTS = MAX_EXITS + 1
"""Segments: one for each early exit and the final one."""
MAX_OPERATORS = 4096
"""Operators of a .coc file."""
MAX_DESCRIPTION = 1 << 20
"""Bytes of the description in a .coc file."""
MAX_NAME = 1000
"""Characters of a name."""
MAX_BITOPS = (1 << 63) - 1
"""BitOps of a whole graph."""
MAX_FILE_BYTES = (1 << 31) - 1
"""Bytes of an artifact: Protobuf's own limit for a message, and that of .coc files."""
MAX_CONFIDENCE = 2.0
"""A threshold of a classification; above 1 an image never leaves."""
MAX_TOLERANCE = (2.0 - 2.0**-23) * 2.0**127
"""A threshold of a regression: the largest float32 number."""
MAX_THREADS = 64
"""Threads of a session of the C core."""

HEADER_BYTES = 48
"""Bytes of a .coc file's header."""
OPERATOR_BYTES = 24
"""Bytes of an operator in a .coc file."""
SEGMENT_BYTES = 8
"""Bytes of a segment in a .coc file."""
WEIGHT_ALIGNMENT = 16
"""A layer's weights begin at a multiple of so many bytes in a .coc file."""

ONNX_TABLE_ROW = 8
"""Integers that a byte of packed weights stands for."""
ONNX_PARTS = 4096
"""Tensors that one may be joined from in an ONNX file."""
ONNX_FIELD = 1 << 16
"""A stride or a number of groups in a manifest is below."""
