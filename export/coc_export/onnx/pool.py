"""Pools: the maximum on codes, means on what they stand for."""

from coc_runtime.ops import AveragePool, GlobalAveragePool, MaxPool
from coc_runtime.ops.pool import divides_exactly

from .segment import SegmentWriter


def write_max(writer: SegmentWriter, pool: MaxPool, key: str) -> None:
    writer.window(pool, [writer.name(pool.input)], writer.name(pool.output))


def write_average(writer: SegmentWriter, pool: AveragePool, key: str) -> None:
    """A power-of-two count divides exactly; others multiply sums as the definition says.

    A convolution of ones sums, over the images of one channel each. A Mul that followed it directly
    would be fused into its weights; the Reshape between them prevents that.
    """
    count, value, constants = pool.kernel[0] * pool.kernel[1], writer.value(pool.input), writer.constants
    if divides_exactly(count):
        writer.quantize(writer.window(pool, [value], f"y{key}"), pool.output)
        return
    x, y = (writer.graph.tensors[name].shape for name in (pool.input, pool.output))
    flat = writer.node("Reshape", [value, constants.sizes([-1, 1, *x[1:]])], f"p{key}f")
    total = writer.window(pool, [flat, constants.ones(pool.kernel)], f"p{key}s")
    total = writer.node("Reshape", [total, constants.sizes([-1, *y])], f"p{key}")
    value = writer.node("Mul", [total, constants.reciprocal(count)], f"y{key}")
    writer.quantize(value, pool.output)


def write_global_average(writer: SegmentWriter, pool: GlobalAveragePool, key: str) -> None:
    """A power-of-two count divides exactly; others multiply sums as the definition says."""
    x = writer.graph.tensors[pool.input]
    count, value = x.shape[1] * x.shape[2], writer.value(pool.input)
    if divides_exactly(count):
        value = writer.node("GlobalAveragePool", [value], f"y{key}", pool.name)
        writer.quantize(value, pool.output, flatten=True)
        return
    axes = writer.constants.sizes([2, 3])
    total = writer.node("ReduceSum", [value, axes], f"p{key}", pool.name, keepdims=0)
    value = writer.node("Mul", [total, writer.constants.reciprocal(count)], f"y{key}")
    writer.quantize(value, pool.output)
