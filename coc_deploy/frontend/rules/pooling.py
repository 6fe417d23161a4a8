"""Pooling over windows, to a size, and over whole images."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..builder import Builder
from ..modules import Scale
from ..program import Constant
from ..value import Call, Size, Value


def max_pool(b: Builder, call: Call) -> Value:
    source = b.node(call.value("self"), call)
    flat = call.op == "max_pool1d"
    kernel, stride, padding = _window(call, flat)
    dilation = _pair(call["dilation"], flat, 1)
    ceil = bool(call["ceil_mode"])
    module = nn.MaxPool2d(kernel, stride, padding, dilation if dilation != (1, 1) else 1, ceil_mode=ceil)
    return b.apply(call, module, source)


def max_pool_with_indices(b: Builder, call: Call) -> tuple[Value, None]:
    return max_pool(b, call), None


def average_pool(b: Builder, call: Call) -> Value:
    source = b.node(call.value("self"), call)
    kernel, stride, padding = _window(call, call.op == "avg_pool1d")
    steps = stride if isinstance(stride, tuple) else (stride, stride)
    sizes = source.meta["size"][1:]
    rest = [(n + 2 * p - k) % s for n, p, k, s in zip(sizes, padding, kernel, steps, strict=True)]
    over = bool(call["ceil_mode"]) and any(rest)
    include = bool(call["count_include_pad"]) or not any(padding)
    divisor = call.given.get("divisor_override")
    if divisor == kernel[0] * kernel[1] and include and not over:
        divisor = None
    return b.apply(call, nn.AvgPool2d(kernel, stride, padding, over, include, divisor), source)


def _window(call: Call, flat: bool) -> tuple[tuple[int, int], int | tuple[int, int], tuple[int, int]]:
    """Kernel, stride (one number where it is the same in both directions) and padding."""
    kernel = _pair(call["kernel_size"], flat, 1)
    stride = _pair(call["stride"], flat, 1) if call["stride"] else kernel
    padding = _pair(call["padding"], flat, 0)
    across = call.shape[2:] if not flat else (1, *call.shape[2:])
    # The step of a single window does not matter.
    steps = {step for step, size in zip(stride, across, strict=True) if size > 1} or {stride[0]}
    return kernel, steps.pop() if len(steps) == 1 else stride, padding


def _pair(given: int | Sequence[int], flat: bool, neutral: int) -> tuple[int, int]:
    numbers = list(given) if isinstance(given, Sequence) else [given]
    return (neutral, numbers[0]) if flat else (numbers[0], numbers[-1])


def adaptive(b: Builder, call: Call) -> Value:
    """Global pooling, windows of one size where the image's size can be divided, or else of several."""
    value = call.value("self")
    source = b.node(value, call)
    sizes = tuple(source.meta["size"][1:])
    wanted = (1, *call.shape[2:]) if call.op.endswith("1d") else tuple(call.shape[2:])
    maximum = "max" in call.op
    if wanted == sizes and sizes != (1, 1):
        return value
    if wanted == (1, 1) and not maximum:
        return b.apply(call, nn.AdaptiveAvgPool2d(1), source)
    if any(size % out for size, out in zip(sizes, wanted, strict=True)):
        kind = nn.AdaptiveMaxPool2d if maximum else nn.AdaptiveAvgPool2d
        return b.apply(call, kind(wanted), source)
    kernel = (sizes[0] // wanted[0], sizes[1] // wanted[1])
    steps = {step for step, size in zip(kernel, wanted, strict=True) if size > 1} or {kernel[0]}
    stride = steps.pop() if len(steps) == 1 else kernel
    if maximum:
        return b.apply(call, nn.MaxPool2d(kernel, stride, (0, 0)), source)
    return b.apply(call, nn.AvgPool2d(kernel, stride, (0, 0)), source)


def adaptive_with_indices(b: Builder, call: Call) -> tuple[Value, None]:
    return adaptive(b, call), None


def reduced(b: Builder, call: Call) -> Value:
    """Mean, sum or maximum over the height, the width or both."""
    value = call.value("self")
    moved = value.index is not None or len(value.size) != 3
    if moved and len(value.shape) == 4 and b.steps(value) is not None:
        node = b.node(value, call)
        value = Value(node, node.meta["size"], value.shape)
    rank = len(value.shape)
    given = call.given.get("dim")
    dims = range(rank) if given is None or given == [] else given if isinstance(given, Sequence) else [given]
    axes = sorted({dim % rank for dim in dims})
    kept = [axis for axis in range(rank) if axis not in axes]
    groups = value.indices.permute(*kept, *axes).flatten(len(kept))
    found = _lines(groups, value.size) if 0 in kept and len(value.size) == 3 else None
    if found is None:
        raise call.refuse(f"{call.op} over other dimensions than height and width")
    kernel, size, positions = found
    node = _pooled(b, call, value, kernel, size)
    shape = [1 if axis in axes else n for axis, n in enumerate(value.shape)]
    if not call["keepdim"]:
        shape = [value.shape[axis] for axis in kept]
    pooled = Value(node, size, tuple(shape))
    return pooled.arranged(positions.reshape(shape), call, f"{node.name}_flatten")


def _pooled(b: Builder, call: Call, value: Value, kernel: tuple[int, int], size: Size) -> Any:
    whole = size[1:] == (1, 1)
    module: nn.Module
    if call.op in ("amax", "max"):
        module = nn.MaxPool2d(kernel, kernel[0] if whole else kernel, (0, 0))
    elif whole:
        module = nn.AdaptiveAvgPool2d(1)
    else:
        module = nn.AvgPool2d(kernel, kernel, (0, 0))
    node = b.apply(call, module, value.node, size=size).node
    if call.op == "sum":
        count = Constant(torch.tensor([float(kernel[0] * kernel[1])]))
        node = b.apply(
            call, Scale.of(count.tensor), node, size=size, weights=(count,), name=f"{node.name}_scale"
        ).node
    return node


def _lines(groups: Tensor, size: Size) -> tuple[tuple[int, int], Size, Tensor] | None:
    """Which windows of an image [channels, height, width] the rows of `groups` are.

    Returns the window, the size that pooling with it gives, and for every group its position in that, with
    the batch; None where groups are neither whole channels, nor rows, nor columns.
    """
    channels, height, width = size
    ordered = groups.sort(dim=-1).values
    for kernel in ((height, width), (1, width), (height, 1)):
        windows = torch.arange(2 * channels * height * width).reshape(
            2, channels, height // kernel[0], kernel[0], width // kernel[1], kernel[1]
        )
        windows = windows.transpose(3, 4).flatten(4).flatten(0, 3)
        if ordered.shape[-1] != windows.shape[-1]:
            continue
        where = torch.searchsorted(windows[:, 0].sort().values, ordered[..., 0].contiguous())
        where = windows[:, 0].argsort()[where.clamp(max=len(windows) - 1)]
        if torch.equal(windows[where], ordered):
            return kernel, (channels, height // kernel[0], width // kernel[1]), where
    return None


def maximum_of(b: Builder, call: Call) -> tuple[Value, None]:
    return reduced(b, call), None


RULES = {
    "max_pool1d": max_pool,
    "max_pool2d": max_pool,
    "max_pool2d_with_indices": max_pool_with_indices,
    "avg_pool1d": average_pool,
    "avg_pool2d": average_pool,
    "adaptive_avg_pool1d": adaptive,
    "adaptive_avg_pool2d": adaptive,
    "_adaptive_avg_pool2d": adaptive,
    "adaptive_max_pool1d": adaptive_with_indices,
    "adaptive_max_pool2d": adaptive_with_indices,
    "mean": reduced,
    "sum": reduced,
    "amax": reduced,
    "max": maximum_of,
}
