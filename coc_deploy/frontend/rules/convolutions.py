"""Convolutions and linear layers."""

from collections.abc import Sequence

import torch
from torch import nn

from ...convolution import Conv2d
from ..builder import Builder
from ..program import Constant
from ..value import Call, Size, Value, image_size


def conv(b: Builder, call: Call) -> Value:
    """A convolution in one dimension is one of images that are one pixel high."""
    weight, flat, kernel, stride, dilation = _windows(call)
    source = b.node(call.value("input"), call)
    size: Size = source.meta["size"]
    padding, odd = _padding(call["padding"], kernel, dilation, flat)
    if any(odd):
        pads = (padding[1], padding[1] + odd[1], padding[0], padding[0] + odd[0])
        size = (size[0], size[1] + pads[2] + pads[3], size[2] + pads[0] + pads[1])
        name = f"{call.place.name.replace('.', '_') if call.place.leaf else call.op}_pad"
        source, padding = b.apply(call, nn.ZeroPad2d(pads), source, size=size, name=name).node, (0, 0)
    out, per_group = weight.tensor.shape[:2]
    groups, bias = call["groups"], call.constant("bias")
    module = _empty(
        Conv2d, per_group * groups, out, kernel, stride, padding, dilation, groups, bias is not None
    )
    _fill(module, weight, bias, (out, per_group, *kernel))
    return b.apply(call, module, source, weights=(weight, bias))


def conv_transpose(b: Builder, call: Call) -> Value:
    weight, flat, kernel, stride, dilation = _windows(call)
    padding, extra = (_pair(call[name], flat, 0) for name in ("padding", "output_padding"))
    channels, per_group = weight.tensor.shape[:2]
    groups, bias = call["groups"], call.constant("bias")
    module = _empty(
        nn.ConvTranspose2d,
        channels,
        per_group * groups,
        kernel,
        stride,
        padding,
        extra,
        groups,
        bias is not None,
        dilation,
    )
    _fill(module, weight, bias, (channels, per_group, *kernel))
    return b.apply(call, module, call.value("input"), weights=(weight, bias))


def linear(b: Builder, call: Call) -> Value:
    return _linear(b, call, call.value("input"), _weight(call), call.constant("bias"))


def product(b: Builder, call: Call) -> Value:
    """A product with a constant matrix is a linear layer without bias."""
    factors = ("mat1", "mat2") if call.op == "addmm" else ("self", "mat2" if call.op == "mm" else "other")
    source, matrix = (call[name] for name in factors)
    if not isinstance(source, Value) or not isinstance(matrix, Constant) or matrix.tensor.dim() != 2:
        raise call.refuse(f"{call.op} of two tensors")
    weight = Constant(matrix.tensor.detach().T.contiguous(), matrix.sources, matrix.learned)
    return _linear(b, call, source, weight, call.constant("self") if call.op == "addmm" else None)


def _linear(b: Builder, call: Call, source: Value, weight: Constant, bias: Constant | None) -> Value:
    out, features = weight.tensor.shape
    if len(source.shape) > 2:
        return _pointwise(b, call, source, weight, bias)
    if b.steps(source) is None:
        weight, source = _rearranged(source, weight)
    module = _empty(nn.Linear, features, out, bias is not None)
    _fill(module, weight, bias, (out, features))
    return b.apply(call, module, source, weights=(weight, bias))


def _pointwise(b: Builder, call: Call, source: Value, weight: Constant, bias: Constant | None) -> Value:
    """A linear layer on the last of several dimensions: a 1x1 convolution, these being the channels."""
    first = source.arranged(source.indices.movedim(-1, 1).contiguous(), source.call or call, source.name)
    out, features = weight.tensor.shape
    shape = (call.shape[0], out, *call.shape[1:-1])
    size = image_size(shape)
    if size is None:
        raise call.refuse(f"{call.kind} on {len(source.shape) - 1} dimensions", ": flatten first")
    module = _empty(Conv2d, features, out, 1, 1, 0, 1, 1, bias is not None)
    _fill(module, weight, bias, (out, features, 1, 1))
    result = b.apply(call, module, first, size=size, weights=(weight, bias))
    ordered = torch.arange(torch.Size(shape).numel()).reshape(shape).movedim(1, -1)
    return Value(result.node, size, shape).arranged(ordered.contiguous(), call)


def _rearranged(source: Value, weight: Constant) -> tuple[Constant, Value]:
    """Weights for the source's values in the order of its node, where that holds each of them once."""
    index = source.of_one_image()
    if index is None or not torch.equal(index.sort().values, torch.arange(source.count)):
        return weight, source
    ordered = torch.empty_like(weight.tensor)
    ordered[:, index] = weight.tensor.detach()
    flat = Value(source.node, source.size, source.shape, None, source.call, source.name)
    return Constant(ordered, weight.sources, weight.learned), flat


def _windows(call: Call) -> tuple[Constant, bool, tuple[int, ...], tuple[int, int], tuple[int, int]]:
    """The weight, whether it is of one dimension, and in two dimensions kernel, stride and dilation."""
    weight = _weight(call)
    flat = weight.tensor.dim() == 3
    if weight.tensor.dim() > 4:
        raise call.refuse(call.kind)
    kernel = (1, weight.tensor.shape[2]) if flat else tuple(weight.tensor.shape[2:])
    return weight, flat, kernel, _pair(call["stride"], flat, 1), _pair(call["dilation"], flat, 1)


def _weight(call: Call) -> Constant:
    weight = call.constant("weight")
    assert weight is not None
    return weight


def _empty(kind: type[nn.Module], *arguments: object) -> nn.Module:
    """A module whose parameters hold nothing yet: that takes neither time nor random numbers."""
    with torch.device("meta"):
        return kind(*arguments)


def _fill(module: nn.Module, weight: Constant, bias: Constant | None, shape: Sequence[int]) -> None:
    module.weight = parameter(weight, tuple(shape))
    if bias is not None:
        module.bias = parameter(bias, tuple(bias.tensor.shape))


def parameter(constant: Constant, shape: Size) -> nn.Parameter:
    """The constant as a parameter; the user's own if it is one of this shape."""
    tensor = constant.tensor
    if isinstance(tensor, nn.Parameter) and constant.whole and tuple(tensor.shape) == shape:
        tensor.requires_grad_(True)
        return tensor
    return nn.Parameter(tensor.detach().reshape(shape).clone().float())


def _pair(given: int | Sequence[int], flat: bool, neutral: int) -> tuple[int, int]:
    """(vertical, horizontal); flat: of an operator in one dimension."""
    numbers = list(given) if isinstance(given, Sequence) else [given]
    if flat:
        return (neutral, numbers[0])
    return (numbers[0], numbers[-1])


def _padding(
    given: str | Sequence[int], kernel: Sequence[int], dilation: Sequence[int], flat: bool
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(vertical, horizontal) padding on both sides, and what "same" needs more at the bottom and right."""
    if not isinstance(given, str):
        return _pair(given, flat, 0), (0, 0)
    total = [d * (k - 1) if given == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return (total[0] // 2, total[1] // 2), (total[0] % 2, total[1] % 2)


def convolution(b: Builder, call: Call) -> Value:
    """The operator that both kinds come down to."""
    return conv_transpose(b, call) if call["transposed"] else conv(b, call)


RULES = {
    "conv1d": conv,
    "conv2d": conv,
    "convolution": convolution,
    "conv_transpose1d": conv_transpose,
    "conv_transpose2d": conv_transpose,
    "linear": linear,
    "matmul": product,
    "mm": product,
    "addmm": product,
}
