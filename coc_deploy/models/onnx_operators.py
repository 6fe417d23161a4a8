"""What operators of ONNX compute, in torch's functions and layers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from onnx import NodeProto, helper
from torch import Tensor, nn
from torch.nn import functional as f

from coc_runtime.errors import CocError


class Step:
    """A node: its operator, its name, names of values, and attributes.

    single: whether the file says that there is one image in a batch, so that shapes that begin with 1 mean
    any number of images.
    """

    def __init__(self, node: NodeProto, single: bool) -> None:
        self.node, self.op, self.single = node, node.op_type, single
        self.name = node.name or node.output[0]
        self.inputs, self.outputs = list(node.input), list(node.output)
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}

    def get(self, name: str, default: Any = None) -> Any:
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def refuse(self, what: str) -> CocError:
        return CocError(f"{self.name}: {self.op} with {what} is not supported")


def tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """A value as a tensor."""
    return value if isinstance(value, Tensor) else torch.tensor(np.asarray(value))


def numbers(step: Step, value: Any, what: str) -> list[int]:
    """Whole numbers that do not depend on the images."""
    if isinstance(value, Tensor):
        raise step.refuse(f"{what} that depend on the image")
    return [int(number) for number in np.asarray(value).flatten()]


# Layers: modules with weights. Each takes the step and the constants among its inputs.

Constants = Sequence[np.ndarray | None]


def conv(step: Step, given: Constants) -> nn.Module:
    weight, bias = given[1], _optional(given, 2)
    assert weight is not None
    strides, dilations, pads, groups = _window(step, weight.ndim - 2)
    kinds: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d}
    kind = kinds.get(weight.ndim - 2)
    if kind is None:
        raise step.refuse(f"weights of shape {list(weight.shape)}")
    layer = kind(
        weight.shape[1] * groups,
        weight.shape[0],
        weight.shape[2:],
        strides,
        _symmetric(pads) or 0,
        dilations,
        groups,
        bias is not None,
    )
    return _with_weights(layer, weight, bias)


def conv_transpose(step: Step, given: Constants) -> nn.Module:
    weight, bias = given[1], _optional(given, 2)
    assert weight is not None
    strides, dilations, pads, groups = _window(step, weight.ndim - 2)
    padding = _symmetric(pads)
    if weight.ndim != 4 or padding is None or step.get("output_shape"):
        raise step.refuse("output_shape, unequal pads or one dimension")
    channels, out, extra = (
        weight.shape[0],
        weight.shape[1] * groups,
        tuple(step.get("output_padding", [0, 0])),
    )
    kind: Callable[..., nn.Module] = nn.ConvTranspose2d
    layer = kind(
        channels, out, weight.shape[2:], strides, padding, extra, groups, bias is not None, dilations
    )
    return _with_weights(layer, weight, bias)


def gemm(step: Step, given: Constants) -> nn.Module:
    weight, bias = given[1], _optional(given, 2)
    assert weight is not None
    if step.get("transA", 0):
        raise step.refuse("transA")
    weight = (weight if step.get("transB", 0) else weight.T) * step.get("alpha", 1.0)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1) * step.get("beta", 1.0), (weight.shape[0],))
    return _with_weights(layer, weight, bias)


def matmul(step: Step, given: Constants) -> nn.Module:
    weight = given[1]
    assert weight is not None
    if weight.ndim != 2:
        raise step.refuse(f"a matrix of shape {list(weight.shape)}")
    return _with_weights(nn.Linear(weight.shape[0], weight.shape[1], bias=False), weight.T, None)


class AnyNorm(nn.BatchNorm2d):
    """Batch-norm of vectors, sequences and images."""

    def _check_input_dim(self, input: Tensor) -> None:
        """All are taken."""


def batch_norm(step: Step, given: Constants) -> nn.Module:
    weight, bias, mean, variance = (np.asarray(value, np.float32) for value in given[1:5])
    norm = AnyNorm(len(weight), float(step.get("epsilon", 1e-5)), 1 - float(step.get("momentum", 0.9)))
    norm.running_mean, norm.running_var = (torch.tensor(value) for value in (mean, variance))
    return _with_weights(norm, weight, bias)


def prelu(step: Step, given: Constants) -> nn.Module:
    slope = given[1]
    assert slope is not None
    return _with_weights(nn.PReLU(slope.size), slope.reshape(-1), None)


def _with_weights(layer: nn.Module, weight: np.ndarray, bias: np.ndarray | None) -> nn.Module:
    layer.weight = nn.Parameter(torch.tensor(np.ascontiguousarray(weight, np.float32)))
    if bias is not None:
        layer.bias = nn.Parameter(torch.tensor(np.ascontiguousarray(bias, np.float32)))
    return layer


def _optional(given: Constants, position: int) -> np.ndarray | None:
    return given[position] if len(given) > position else None


Window = tuple[tuple[int, ...], tuple[int, ...], list[int], int]


def _window(step: Step, dimensions: int) -> Window:
    """Strides, dilations, pads (begin and end of each dimension) and groups."""
    ones = [1] * dimensions
    strides, dilations = (tuple(step.get(name, ones)) for name in ("strides", "dilations"))
    return strides, dilations, list(step.get("pads", [0] * (2 * dimensions))), int(step.get("group", 1))


def _symmetric(pads: Sequence[int]) -> tuple[int, ...] | None:
    half = len(pads) // 2
    return tuple(pads[:half]) if list(pads[:half]) == list(pads[half:]) else None


def padded_input(step: Step, x: Tensor, kernel: Sequence[int], value: float = 0.0) -> Tensor:
    """The image with what the layer itself cannot pad: unequal sides, and sides by `auto_pad`."""
    strides, dilations, pads, _ = _window(step, len(kernel))
    mode = step.get("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        totals = [
            max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
        ]
        less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*less, *more] if mode == "SAME_UPPER" else [*more, *less]
    elif _symmetric(pads) is not None:
        return x
    sides = [
        side for pair in zip(pads[: len(kernel)], pads[len(kernel) :], strict=True) for side in pair[::-1]
    ]
    return f.pad(x, sides[::-1], value=value) if any(pads) else x


# Functions: each takes the step and its inputs, tensors that depend on the images and arrays.


def hard_sigmoid(step: Step, x: Tensor) -> Tensor:
    alpha, beta = step.get("alpha", 0.2), step.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return f.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0, 1)


def clip(step: Step, x: Tensor, low: Any = None, high: Any = None) -> Tensor:
    limits = [
        step.get(name) if value is None else float(np.asarray(value))
        for name, value in (("min", low), ("max", high))
    ]
    return torch.clamp(x, *limits) if any(limit is not None for limit in limits) else x


def gelu(step: Step, x: Tensor) -> Tensor:
    return f.gelu(x, approximate=step.get("approximate", "none"))


def max_pool(step: Step, x: Tensor) -> Tensor:
    kernel = step.get("kernel_shape")
    strides, dilations, pads, _ = _window(step, len(kernel))
    padding = _symmetric(pads) if step.get("auto_pad", "NOTSET") == "NOTSET" else None
    if padding is None:
        x, padding = padded_input(step, x, kernel, -torch.inf), (0,) * len(kernel)
    pool = f.max_pool1d if len(kernel) == 1 else f.max_pool2d
    return pool(x, kernel, strides, padding, dilations, bool(step.get("ceil_mode", 0)))


def average_pool(step: Step, x: Tensor) -> Tensor:
    kernel = step.get("kernel_shape")
    strides, dilations, pads, _ = _window(step, len(kernel))
    include = bool(step.get("count_include_pad", 0))
    padding = _symmetric(pads) if step.get("auto_pad", "NOTSET") == "NOTSET" else None
    if padding is None:
        before, x = x, padded_input(step, x, kernel)
        padding = (0,) * len(kernel)
        if not include and x is not before:
            raise step.refuse("unequal padding that is not counted")
    if set(dilations) != {1}:
        raise step.refuse("dilations")
    pool = f.avg_pool1d if len(kernel) == 1 else f.avg_pool2d
    return pool(x, kernel, strides, padding, bool(step.get("ceil_mode", 0)), include)


def global_average(step: Step, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def global_maximum(step: Step, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


def reduced(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def run(step: Step, x: Tensor, axes: Any = None) -> Tensor:
        given = step.get("axes") if axes is None else numbers(step, axes, "axes")
        return function(x, tuple(given or range(x.dim())), bool(step.get("keepdims", 1)))

    return run


def reshape(step: Step, x: Tensor, shape: Any) -> Tensor:
    sizes = numbers(step, shape, "sizes")
    if not step.get("allowzero", 0):
        sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(sizes)]
    if step.single and len(sizes) > 1 and sizes[0] == 1:
        sizes[0] = x.shape[0]
    return x.reshape(sizes)


def flatten(step: Step, x: Tensor) -> Tensor:
    if step.get("axis", 1) % x.dim() != 1:
        raise step.refuse(f"axis {step.get('axis', 1)}")
    return x.flatten(1)


def _axes(step: Step, axes: Any) -> list[int]:
    return list(step.get("axes") or []) if axes is None else numbers(step, axes, "axes")


def squeeze(step: Step, x: Tensor, axes: Any = None) -> Tensor:
    given = _axes(step, axes) or [axis for axis, size in enumerate(x.shape) if size == 1 and axis]
    return x.squeeze(tuple(given))


def unsqueeze(step: Step, x: Tensor, axes: Any = None) -> Tensor:
    given = _axes(step, axes)
    rank = x.dim() + len(given)
    for axis in sorted(axis % rank for axis in given):
        x = x.unsqueeze(axis)
    return x


def transpose(step: Step, x: Tensor) -> Tensor:
    return x.permute(step.get("perm") or list(range(x.dim()))[::-1])


def concat(step: Step, *parts: Any) -> Tensor:
    tensors = [tensor(part) for part in parts]
    count = max(part.shape[0] for part in tensors)
    alike = [part.expand(count, *part.shape[1:]) if step.single else part for part in tensors]
    return torch.cat(alike, step.get("axis"))


def split(step: Step, x: Tensor, sizes: Any = None) -> Sequence[Tensor]:
    axis = step.get("axis", 0)
    given = step.get("split") if sizes is None else numbers(step, sizes, "sizes")
    if given is None:
        return x.chunk(len(step.outputs), axis)
    return x.split(list(given), axis)


def sliced(step: Step, x: Tensor, *given: Any) -> Tensor:
    names = ("starts", "ends", "axes", "steps")
    found: dict[str, list[int]] = {
        name: numbers(step, value, name)
        for name, value in zip(names, given, strict=False)
        if value is not None
    }
    if not given:
        found = {name: step.get(name) for name in names if step.get(name) is not None}
    starts, ends, axes, steps = (found.get(name) for name in names)
    assert starts is not None and ends is not None
    parts: list[slice] = [slice(None)] * x.dim()
    for position, axis in enumerate(axes or range(len(starts))):
        step_ = steps[position] if steps else 1
        if step_ < 1:
            raise step.refuse(f"step {step_}")
        parts[axis] = slice(starts[position], min(ends[position], x.shape[axis]), step_)
    return x[tuple(parts)]


def gather(step: Step, x: Tensor, indices: Any) -> Tensor:
    axis = step.get("axis", 0)
    chosen = np.asarray(indices)
    if chosen.ndim == 0:
        return x.select(axis, int(chosen))
    return x.index_select(axis, torch.tensor(chosen % x.shape[axis]).flatten())


def pad(step: Step, x: Tensor, pads: Any = None, value: Any = None, axes: Any = None) -> Tensor:
    given = list(step.get("pads") or []) if pads is None else numbers(step, pads, "pads")
    which = list(range(x.dim())) if axes is None else [a % x.dim() for a in numbers(step, axes, "axes")]
    sides = [(0, 0)] * x.dim()
    for position, axis in enumerate(which):
        sides[axis] = (given[position], given[position + len(which)])
    fill = step.get("value", 0.0) if value is None else float(np.asarray(value))
    mode = step.get("mode", "constant")
    flat = [side for pair in reversed(sides[2:] if mode != "constant" else sides) for side in pair]
    if mode == "constant":
        return f.pad(x, flat, value=fill)
    names = {"reflect": "reflect", "edge": "replicate"}
    if mode not in names or any(before or behind for before, behind in sides[:2]):
        raise step.refuse(f"mode '{mode}'")
    return f.pad(x, flat, names[mode])


def resize(step: Step, x: Tensor, *given: Any) -> Tensor:
    """Nearest neighbours by whole factors."""
    mode = step.get("mode", "nearest")
    scales, sizes = _resized(step, x, given)
    if all(a == b for a, b in zip(sizes, x.shape[2:], strict=True)):
        return x
    if mode != "nearest" or any(size % n for size, n in zip(sizes, x.shape[2:], strict=True)):
        raise step.refuse(f"mode '{mode}' to {sizes}")
    return f.interpolate(x, size=sizes)


def _resized(step: Step, x: Tensor, given: Sequence[Any]) -> tuple[list[float], list[int]]:
    if step.op == "Upsample":
        scales = step.get("scales") if not given else list(np.asarray(given[0]).flatten())
    else:
        scales = list(np.asarray(given[1]).flatten()) if len(given) > 1 and given[1] is not None else []
        if len(given) > 2 and given[2] is not None:
            return [], numbers(step, given[2], "sizes")[2:]
    return list(scales)[2:], [int(n * scale) for n, scale in zip(x.shape[2:], list(scales)[2:], strict=True)]


def depth_to_space(step: Step, x: Tensor) -> Tensor:
    size = step.get("blocksize")
    n, channels, height, width = x.shape
    if step.get("mode", "DCR") == "CRD":
        return f.pixel_shuffle(x, size)
    split_ = x.reshape(n, size, size, channels // size**2, height, width)
    return split_.permute(0, 3, 4, 1, 5, 2).reshape(n, channels // size**2, height * size, width * size)


def space_to_depth(step: Step, x: Tensor) -> Tensor:
    size = step.get("blocksize")
    n, channels, height, width = x.shape
    split_ = x.reshape(n, channels, height // size, size, width // size, size)
    return split_.permute(0, 3, 5, 1, 2, 4).reshape(n, channels * size**2, height // size, width // size)


def softmax(step: Step, x: Tensor) -> Tensor:
    axis = step.get("axis", -1)
    return x.log_softmax(axis) if step.op == "LogSoftmax" else x.softmax(axis)


def expand(step: Step, x: Tensor, shape: Any) -> Tensor:
    sizes = numbers(step, shape, "sizes")
    if step.single and sizes and sizes[0] == 1:
        sizes[0] = x.shape[0]
    return x.expand(torch.broadcast_shapes(tuple(sizes), x.shape))


def _unary(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda step, x: function(x)


def _several(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def run(step: Step, *given: Any) -> Tensor:
        first, *others = (tensor(value) for value in given)
        for other in others:
            first = function(first, other)
        return first

    return run


LAYERS: dict[str, Callable[[Step, Constants], nn.Module]] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "MatMul": matmul,
    "BatchNormalization": batch_norm,
    "PRelu": prelu,
}
"""Operators that are a layer if all their inputs but the first are constants."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "Relu": _unary(f.relu),
    "LeakyRelu": lambda step, x: f.leaky_relu(x, step.get("alpha", 0.01)),
    "Elu": lambda step, x: f.elu(x, step.get("alpha", 1.0)),
    "Selu": _unary(f.selu),
    "Celu": lambda step, x: f.celu(x, step.get("alpha", 1.0)),
    "Sigmoid": _unary(torch.sigmoid),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": _unary(f.hardswish),
    "Tanh": _unary(torch.tanh),
    "Softplus": _unary(f.softplus),
    "Softsign": _unary(f.softsign),
    "Mish": _unary(f.mish),
    "Gelu": gelu,
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Reciprocal": _unary(torch.reciprocal),
    "Abs": _unary(torch.abs),
    "Neg": _unary(torch.neg),
    "Clip": clip,
    "Add": _several(torch.add),
    "Sub": _several(torch.sub),
    "Mul": _several(torch.mul),
    "Div": _several(torch.div),
    "Sum": _several(torch.add),
    "Max": _several(torch.maximum),
    "Min": _several(torch.minimum),
    "Pow": _several(torch.pow),
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_maximum,
    "ReduceMean": reduced(torch.mean),
    "ReduceSum": reduced(torch.sum),
    "ReduceMax": reduced(torch.amax),
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": sliced,
    "Gather": gather,
    "Pad": pad,
    "Resize": resize,
    "Upsample": resize,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Expand": expand,
    "Softmax": softmax,
    "LogSoftmax": softmax,
    "Identity": lambda step, x: x,
    "Dropout": lambda step, x, *more: x,
    "Cast": lambda step, x: x,
}
"""Operators that are functions."""
