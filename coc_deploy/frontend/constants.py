"""Constants that a network multiplies with or adds, folded into layers around them where that is exact."""

import torch
from torch import Tensor, fx, nn

from .draft import Draft
from .modules import Scale, Shift

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d)


def thaw(draft: Draft, node: fx.Node) -> None:
    """A batch-norm that keeps its statistics in training mode is a scale and a shift."""
    norm = draft.module(node)
    if not isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d) or not node.meta.get("frozen"):
        return
    assert norm.running_mean is not None and norm.running_var is not None
    gain = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    offset = norm.bias.detach().double() - norm.running_mean.double() * gain
    ones = (1,) * (len(node.meta["size"]) - 1)
    scale, shift = Scale.of(gain.reshape(-1, *ones)), Shift.of(offset.reshape(-1, *ones))
    draft.modules[str(node.target)] = scale
    new = draft.insert_behind(node, shift, f"{node.name}_shift", node.meta["size"])
    draft.moved[node] = new


def merge(draft: Draft, node: fx.Node) -> None:
    """Two scales or two shifts, one behind the other, are one."""
    module, user = _constant(draft, node), draft.sole_user(node)
    behind = _constant(draft, user) if user is not None else None
    if module is None or user is None or behind is None or type(module) is not type(behind):
        return
    first, second = value_of(module), value_of(behind)
    _set(draft, user, type(behind), first * second if isinstance(module, Scale) else first + second)
    draft.remove(node)


def fold_behind(draft: Draft, node: fx.Node) -> None:
    """A constant for each channel behind a layer becomes part of it."""
    module = _constant(draft, node)
    source = draft.source(node) if module is not None else node
    layer = draft.module(source)
    if module is None or not isinstance(layer, LAYERS) or draft.sole_user(source) is not node:
        return
    channels = source.meta["size"][0]
    constant = _per_channel(value_of(module), channels)
    if constant is None:
        return
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    if isinstance(layer, nn.ConvTranspose2d) and layer.groups > 1:
        return
    if isinstance(module, Scale):
        shape = [1] * layer.weight.dim()
        shape[axis] = channels
        layer.weight = _parameter(layer.weight.detach().double() * constant.reshape(shape))
        if layer.bias is not None:
            layer.bias = _parameter(layer.bias.detach().double() * constant)
    else:
        before = 0 if layer.bias is None else layer.bias.detach().double()
        layer.bias = _parameter(before + constant)
    draft.remove(node)


def fold_in_front(draft: Draft, node: fx.Node) -> None:
    """A constant for each channel in front of convolutions or linear layers becomes part of them.

    A shift in front of zero padding does not: what the border shows would change. It goes in front of a
    scale, which can be folded.
    """
    module = _constant(draft, node)
    readers = [draft.module(user) for user in node.users]
    if module is None or not readers or not all(isinstance(r, nn.Conv2d | nn.Linear) for r in readers):
        return
    channels = node.meta["size"][0]
    constant = _per_channel(value_of(module), channels)
    if constant is None:
        return
    if isinstance(module, Scale):
        for reader in readers:
            _scale_inputs(reader, constant)
        draft.remove(node)
    elif any(isinstance(reader, nn.Conv2d) and any(map(int, reader.padding)) for reader in readers):
        _swap(draft, node)
    else:
        for user in list(node.users):
            _shift_inputs(draft, user, constant)
        draft.remove(node)


def _swap(draft: Draft, shift: fx.Node) -> None:
    """x * scale + shift as (x + shift / scale) * scale, and the scale folded into what reads it."""
    source = draft.source(shift)
    scale = _constant(draft, source)
    if not isinstance(scale, Scale) or draft.sole_user(source) is not shift or not scale.constant.all():
        return
    factor, offset = value_of(scale), value_of(draft.module(shift))  # type: ignore[arg-type]
    _set(draft, source, Shift, offset / factor)
    _set(draft, shift, Scale, factor)
    fold_in_front(draft, shift)


def _constant(draft: Draft, node: fx.Node) -> Scale | Shift | None:
    """The module of a node that multiplies with or adds a constant which is not trained."""
    module = draft.module(node)
    return module if isinstance(module, Scale | Shift) and not module.learned else None


def value_of(module: Scale | Shift) -> Tensor:
    return module.constant.detach().double()


def _set(draft: Draft, node: fx.Node, kind: type[Scale] | type[Shift], value: Tensor) -> None:
    draft.modules[str(node.target)] = kind.of(value)


def _per_channel(constant: Tensor, channels: int) -> Tensor | None:
    """[channels] float64, or None if the constant differs within a channel."""
    if constant.numel() == 1:
        return constant.reshape(1).expand(channels)
    return constant.reshape(-1) if constant.numel() == constant.shape[0] == channels else None


def _parameter(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.float())


def channels_read(conv: nn.Conv2d) -> Tensor:
    """Channels of its input that each output channel of a convolution reads, [O, I / groups]."""
    read = torch.arange(conv.in_channels).view(conv.groups, -1)
    return read.repeat_interleave(conv.out_channels // conv.groups, dim=0)


def _scale_inputs(layer: nn.Module | None, factors: Tensor) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    if isinstance(layer, nn.Conv2d):
        factors = factors[channels_read(layer)][:, :, None, None]
    layer.weight = _parameter(layer.weight.detach().double() * factors)


def _shift_inputs(draft: Draft, node: fx.Node, offsets: Tensor) -> None:
    layer = draft.module(node)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight = layer.weight.detach().double()
    if isinstance(layer, nn.Conv2d):
        constant = (weight * offsets[channels_read(layer)][:, :, None, None]).sum(dim=(1, 2, 3))
    else:
        constant = weight @ offsets
    user = draft.sole_user(node)
    norm = draft.module(user) if user is not None else None
    if isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
        assert norm.running_mean is not None
        norm.running_mean = (norm.running_mean.double() - constant).float()
    else:
        before = 0 if layer.bias is None else layer.bias.detach().double()
        layer.bias = _parameter(before + constant)
