"""Packed weights as the integers that convolutions and linear layers read."""

import numpy as np
import onnx

from coc_runtime.arithmetic import Encoding
from coc_runtime.errors import CocError
from coc_runtime.ops import Weight

from .segment import SegmentWriter


def integers(writer: SegmentWriter, weight: Weight, key: str) -> tuple[str, bool]:
    """Name of the integer weights and whether they are int8 (else uint8 with zero point 128).

    Integers beyond +-63 must be uint8: ONNX Runtime's int8 kernels for AVX2 without VNNI add pairs
    of products in saturating 16 bits.
    """
    if weight.bits == 8:
        if weight.encoding is not Encoding.SYMMETRIC:
            raise CocError("8-bit weights must have symmetric encoding to fit 8-bit integers")
        return writer.parameter(f"w{key}", weight.codes), False
    if not writer.packed:
        return writer.parameter(f"w{key}", weight.integers.astype(np.int8)), True
    count, constants = weight.codes.size, writer.constants
    packed = writer.parameter(f"w{key}", weight.packed)
    wide = writer.node("Cast", [packed], f"w{key}c", to=onnx.TensorProto.INT32)
    table = constants.table(weight.bits, weight.encoding)
    found = writer.node("Gather", [table, wide], f"w{key}g")
    if count * weight.bits % 8:
        found = writer.node("Reshape", [found, constants.sizes([-1])], f"w{key}p")
        bounds = [constants.sizes([0]), constants.sizes([count])]
        found = writer.node("Slice", [found, *bounds], f"w{key}s")
    shape = constants.sizes(weight.codes.shape)
    return writer.node("Reshape", [found, shape], f"w{key}i"), True
