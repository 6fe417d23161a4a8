"""Concatenation, padding, enlarging, and what changes nothing."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...shortcuts import ShortcutA
from .. import rearrange
from ..builder import Builder
from ..modules import Crop, PadChannels
from ..program import BATCH, Constant
from ..value import Call, Value, image_size

VIEWS = frozenset(
    [
        *("view", "_unsafe_view", "reshape", "view_as", "reshape_as", "flatten", "unflatten", "ravel"),
        *("squeeze", "unsqueeze", "transpose", "swapaxes", "swapdims", "permute", "t", "movedim", "moveaxis"),
        *("slice", "select", "narrow", "split", "split_with_sizes", "chunk", "tensor_split", "unbind"),
        *("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk", "index_select", "index", "flip", "roll"),
        *("expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave"),
        *("contiguous", "clone", "detach", "alias", "numpy_T", "mT"),
        *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle"),
    ]
)
"""Operators that only rearrange values: they are run on the positions of the values."""

SHAPED = frozenset(
    [
        *("zeros_like", "ones_like", "full_like", "empty_like"),
        *("new_zeros", "new_ones", "new_full", "new_empty"),
    ]
)
"""Operators whose result depends on the shape of a tensor, not on its values."""

CHECKS = frozenset(["_assert_tensor_metadata", "_assert_async", "_assert_scalar"])
"""Operators that only look."""


MIRRORS: dict[str, type[nn.ReflectionPad2d | nn.ReplicationPad2d]] = {
    "reflect": nn.ReflectionPad2d,
    "reflection": nn.ReflectionPad2d,
    "replicate": nn.ReplicationPad2d,
    "replication": nn.ReplicationPad2d,
}
"""How operators call padding with pixels of the image -> the module that pads so."""


def same(b: Builder, call: Call) -> Value:
    """Conversions to the type and device that everything has."""
    return call.value("self")


def copied(b: Builder, call: Call) -> Value | Constant:
    """`copy_` of a tensor over a whole other one."""
    source = call["src"]
    if isinstance(source, Value) and source.shape != call.shape:
        raise call.refuse("copying into a tensor of another shape")
    return source


def concatenation(b: Builder, call: Call) -> Value:
    """Channels of all parts one behind the other, then as the operator arranges them."""
    parts, dim = call["tensors"], call["dim"]
    rank = len(call.shape)
    if any(isinstance(part, Constant) for part in parts):
        return _with_zeros(b, call, parts, dim % rank)
    if len(parts) == 1 and call.op == "cat":
        return parts[0]
    if call.op == "cat" and dim % rank != 1:
        raise call.refuse("concatenation of anything but channels")
    return _side_by_side(b, call, parts, lambda pieces: call.run(pieces, dim))


def scattered(b: Builder, call: Call) -> Value:
    """A tensor with a slice of it replaced: channels of both, of which the replaced ones are left out."""
    whole, part = call["self"], call["src"]
    if not isinstance(whole, Value) or not isinstance(part, Value):
        raise call.refuse("replacing a part by or of a constant")
    rest = {name: value for name, value in call.given.items() if name not in ("self", "src")}
    return _side_by_side(b, call, [whole, part], lambda pieces: call.run(*pieces, **rest))


def _side_by_side(
    b: Builder, call: Call, parts: Sequence[Value], arrange: Callable[[list[Tensor]], Tensor]
) -> Value:
    """The channels of all parts one behind the other, and then in the order in which `arrange` puts them."""
    nodes = [b.node(part, call) for part in parts]
    sizes = [node.meta["size"] for node in nodes]
    if len({size[1:] for size in sizes}) != 1:
        raise call.refuse("concatenation of anything but channels")
    size = (sum(size[0] for size in sizes), *sizes[0][1:])
    joined = b.function(call, torch.cat, nodes, size)
    numbers = torch.arange(BATCH * torch.Size(size).numel()).reshape(BATCH, *size)
    pieces = numbers.split([size[0] for size in sizes], 1)
    shaped = [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]
    return Value(joined.node, size, (BATCH, *size)).arranged(arrange(shaped), call)


def _with_zeros(b: Builder, call: Call, parts: Sequence[Value | Constant], dim: int) -> Value:
    """A concatenation with constants: zeros in front of and behind the channels of one tensor."""
    values = [number for number, part in enumerate(parts) if isinstance(part, Value)]
    zeros = all(not part.tensor.any() for part in parts if isinstance(part, Constant))
    if len(values) != 1 or not zeros or dim != 1 or call.op != "cat":
        raise call.refuse("concatenation with constants")
    position = values[0]
    front, behind = (
        sum(part.tensor.shape[1] for part in side if isinstance(part, Constant))
        for side in (parts[:position], parts[position + 1 :])
    )
    return _padded_channels(b, call, parts[position], front, behind)  # type: ignore[arg-type]


def _padded_channels(b: Builder, call: Call, value: Value, front: int, behind: int) -> Value:
    """Channels of zeros; with every s-th pixel taken before, shortcut A of CIFAR ResNets."""
    size = image_size(call.shape)
    if size is None or len(size) != 3:
        raise call.refuse("padding of anything but images")
    index = value.of_one_image() if value.index is not None else None
    step = None if index is None else rearrange.subsampling(index, value.size)
    channels = size[0] - front - behind
    if front == (size[0] - channels) // 2 and (step or value.index is None):
        return b.apply(call, ShortcutA(channels, size[0], step or 1), value.node)
    return b.apply(call, PadChannels(front, behind), value)


def pad(b: Builder, call: Call) -> Value:
    value = call.value("self")
    pads = [int(number) for number in call["pad"]]
    if call.given.get("mode", "constant") != "constant":
        raise call.refuse(f"padding mode '{call['mode']}'", ": use zeros, 'reflect' or 'replicate'")
    fill = call.given.get("value") or 0.0
    pads += [0] * (2 * (len(call.shape) - 1) - len(pads))
    left, right, top, bottom, front, behind = (pads + [0, 0, 0, 0])[:6]
    if len(call.shape) == 3:  # a sequence: its channels are what rows are in an image
        top, bottom, front, behind = 0, 0, pads[2], pads[3]
    if any(pads[2 * (len(call.shape) - 2) + 2 :]) or len(call.shape) not in (3, 4):
        raise call.refuse(f"padding {call['pad']}", ": only images are padded")
    if not any(pads):
        return value
    if front or behind:
        if fill or left or right or top or bottom or min(front, behind) < 0:
            raise call.refuse(
                f"padding {call['pad']} with {fill:g}", ": channels are padded alone, with zeros"
            )
        return _padded_channels(b, call, value, front, behind)
    return _padded(b, call, value, (left, right, top, bottom), fill)


def _padded(b: Builder, call: Call, value: Value, pads: tuple[int, int, int, int], fill: float) -> Value:
    left, right, top, bottom = pads
    grown = (max(left, 0), max(right, 0), max(top, 0), max(bottom, 0))
    if min(pads) >= 0:
        module = nn.ConstantPad2d(pads, fill) if fill else nn.ZeroPad2d(pads)
        return b.apply(call, module, value)
    channels, height, width = b.node(value, call).meta["size"]
    less = [max(-number, 0) for number in (top, left, bottom, right)]
    size = (channels, height - less[0] - less[2], width - less[1] - less[3])
    if not any(grown):
        return b.apply(call, Crop(*less), value)
    node = b.apply(call, Crop(*less), value, size=size, name=f"{call.op}_crop").node
    return b.apply(call, nn.ConstantPad2d(grown, fill) if fill else nn.ZeroPad2d(grown), node)


def mirrored(b: Builder, call: Call) -> Value:
    """Padding with pixels of the image."""
    return _mirrored(b, call, MIRRORS[call.op.partition("_")[0]], call["padding"])


def _mirrored(
    b: Builder, call: Call, kind: type[nn.ReflectionPad2d | nn.ReplicationPad2d], pads: Sequence[int]
) -> Value:
    left, right, top, bottom = (list(pads) + [0, 0])[:4]
    return b.apply(call, kind((left, right, top, bottom)), call.value("self"))


def padded(b: Builder, call: Call) -> Value:
    """`pad` with any mode."""
    kind = MIRRORS.get(call["mode"])
    return pad(b, call) if kind is None else _mirrored(b, call, kind, call["pad"])


def nearest(b: Builder, call: Call) -> Value:
    """Enlarging by whole factors, every pixel repeated."""
    value = call.value("self" if "self" in call.given else "input")
    source = b.node(value, call)
    before, after = source.meta["size"][1:], tuple(call.shape[2:])
    if len(after) == 1:
        after = (1, *after)
    if before == after:
        return value
    if any(out % size for size, out in zip(before, after, strict=True)):
        raise call.refuse(f"enlarging {list(before)} to {list(after)}", ": only whole factors are")
    factors = tuple(float(out // size) for size, out in zip(before, after, strict=True))
    return b.apply(call, nn.Upsample(scale_factor=factors, mode="nearest"), source)


def interpolated(b: Builder, call: Call) -> Value:
    """Other ways of enlarging, where the size stays."""
    value = call.value("self" if "self" in call.given else "input")
    if value.shape != call.shape:
        raise call.refuse(call.op, ": use mode 'nearest'")
    return value


def softmax(b: Builder, call: Call) -> Value:
    """Left out at the end, refused elsewhere, once it is known what reads it."""
    if len(call.shape) != 2 or call["dim"] % 2 != 1:
        raise call.refuse("softmax inside the network", "")
    kind = nn.LogSoftmax if "log" in call.op else nn.Softmax
    return b.apply(call, kind(1), call.value("self"))


RULES = {
    "cat": concatenation,
    "concat": concatenation,
    "stack": concatenation,
    "slice_scatter": scattered,
    "select_scatter": scattered,
    "pad": padded,
    "constant_pad_nd": pad,
    "reflection_pad1d": mirrored,
    "reflection_pad2d": mirrored,
    "replication_pad1d": mirrored,
    "replication_pad2d": mirrored,
    "upsample_nearest1d": nearest,
    "upsample_nearest2d": nearest,
    "_upsample_nearest_exact2d": nearest,
    "upsample_bilinear2d": interpolated,
    "upsample_bicubic2d": interpolated,
    "softmax": softmax,
    "log_softmax": softmax,
    "_softmax": softmax,
    "_log_softmax": softmax,
    "copy": copied,
    "to": same,
    "_to_copy": same,
    "type_as": same,
}
