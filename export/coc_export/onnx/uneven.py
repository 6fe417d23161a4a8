"""Means of windows of different sizes: matrices sum rows and columns, then every window has a factor."""

from coc_runtime.ops.uneven import Uneven

from .segment import SegmentWriter


def write(writer: SegmentWriter, pool: Uneven, key: str) -> None:
    """MatMul adds whole numbers, exactly in any order.

    A Mul that followed it directly would be fused into its weights; the Reshape between them prevents that.
    """
    (source,), constants = pool.inputs, writer.constants
    x, y = (writer.graph.tensors[name].shape for name in (source, pool.output))
    rows, columns = pool.matrices(*x[1:])
    left, right = constants.matrix(rows), constants.matrix(columns.T)
    lines = writer.node("MatMul", [left, writer.value(source)], f"p{key}r", pool.name)
    sums = writer.node("MatMul", [lines, right], f"p{key}s")
    flat = writer.node("Reshape", [sums, constants.sizes([-1, y[1] * y[2]])], f"p{key}f")
    means = writer.node("Mul", [flat, constants.reciprocals(pool.counts(*x[1:]).flatten())], f"p{key}")
    writer.quantize(writer.node("Reshape", [means, constants.sizes([-1, *y])], f"y{key}"), pool.output)
