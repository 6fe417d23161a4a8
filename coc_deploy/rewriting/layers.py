"""Rules for layers with weights, and for what becomes one: batch-norm alone, a constant, zero padding."""

import copy

import torch
from torch import fx, nn

from coc_runtime.errors import CocError

from .. import qat
from ..convolution import Conv2d
from ..frontend.modules import Shift
from ..qat import Pads
from ..quantizers import ActQuant
from .context import Context, is_final
from .patch import Patch, Placed, unit_patch, without

Norm = nn.BatchNorm2d | qat.Bias
NEVER_NEGATIVE = 1 - 2.0**-9
"""What makes an image, -1 to 1 in steps of 2**-7, a number of at least 0 when it is added and rounded."""


def convolution(context: Context, node: fx.Node, conv: nn.Module) -> Patch:
    """A convolution with the batch-norm and the ReLU behind it."""
    assert isinstance(conv, nn.Conv2d)
    return _with_norm(context, node, conv, conv.bias, nn.BatchNorm2d)


def linear(context: Context, node: fx.Node, layer: nn.Module) -> Patch:
    """The last layer reads a vector; others are convolutions over whole images."""
    assert isinstance(layer, nn.Linear)
    source = node.all_input_nodes[0]
    image = context.images[source]
    if is_final(node):
        bits, _ = context.spec.of(str(node.target), is_end=True)
        unit = qat.QLinear(layer, bits, context.acts[source])
        flat = flattened(context, source, node, f"{node.name}_flatten")
        return Patch((*flat, Placed(str(node.target), unit, (*flat, source)[:1], node, (node,))), (node,))
    channels, height, width = image
    conv = nn.Conv2d(channels, layer.out_features, (height, width), bias=False)
    conv.weight = nn.Parameter(layer.weight.detach().reshape(-1, channels, height, width))
    return _with_norm(context, node, conv, layer.bias, nn.BatchNorm1d)


def flattened(context: Context, source: fx.Node, reader: fx.Node, target: str) -> tuple[Placed, ...]:
    """A vector of an image for a reader; nothing if it is one."""
    if len(context.images[source]) == 1:
        return ()
    return (Placed(target, qat.QFlatten(context.acts[source]), (source,), reader),)


def logits(context: Context, output: fx.Node, module: nn.Module | None) -> Patch:
    """Codes become logits where no linear layer gives them."""
    last = output.all_input_nodes[-1]
    if isinstance(context.module(last), qat.QLinear):
        return Patch((), ())
    flat = flattened(context, last, output, f"{last.name}_flatten")
    unit = qat.QLogits(context.acts[last])
    return Patch((*flat, Placed(f"{last.name}_logits", unit, (*flat, last)[:1], output, instead=last)), ())


def norm(context: Context, node: fx.Node, module: nn.Module) -> Patch:
    """Batch-norm on its own: a depthwise 1x1 convolution of ones with 8-bit weights."""
    assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
    channels, *size = context.image(node)
    if isinstance(module, nn.BatchNorm1d) and size != [1, 1]:
        raise CocError(f"{node.target}: BatchNorm1d behind a flattened image cannot be quantized")
    return _unit(context, (node,), _ones(channels), _for_images(module), alone=True)


def shift(context: Context, node: fx.Node, module: nn.Module) -> Patch:
    """Of the image, in front of zero padding: a depthwise 1x1 convolution of ones with a bias."""
    assert isinstance(module, Shift)
    channels = context.image(node)[0]
    bias = module.constant.detach().reshape(-1).expand(channels)
    of_image = context.is_stem(node) and context.act(node) is context.source
    act = context.unsigned(bits=8) if of_image and bias.min() > NEVER_NEGATIVE else None
    return _unit(context, (node,), _ones(channels), qat.Bias(bias), alone=True, act=act)


def padding(context: Context, node: fx.Node, pad: nn.Module) -> Patch:
    """Every reader of the padded image pads it itself, or else a layer does."""
    assert isinstance(pad, nn.ZeroPad2d)
    left, right, top, bottom = pad.padding
    before, source = context.extra(node), context.act(node)
    total = (before[0] + top, before[1] + left, before[2] + bottom, before[3] + right)
    if all(_can_pad(context.module(user), source) for user in node.users):
        return without(node, dict.fromkeys(node.users, total))
    channels = context.image(node)[0]
    act = context.signed()
    if context.is_stem(node):
        context.of_input.append(act)
    unit = qat.QConv(padding_convolution(channels, total), qat.Bias(torch.zeros(channels)), 8, source, act)
    return unit_patch(str(node.target), unit, (node,))


def _can_pad(reader: nn.Module | None, source: ActQuant) -> bool:
    """Whether a unit pads with zeros itself: max-pooling pads with the smallest number, 0 where none is
    negative."""
    if isinstance(reader, nn.MaxPool2d):
        return not source.signed
    if isinstance(reader, nn.AvgPool2d):
        return reader.count_include_pad and not reader.ceil_mode
    return isinstance(reader, nn.Conv2d | nn.ZeroPad2d)


def padding_convolution(channels: int, pads: Pads) -> Conv2d:
    """A depthwise convolution of a single one, whose own padding is less than its window.

    pads: top, left, bottom, right.
    """
    top, left, bottom, right = pads
    size, own = (top + bottom + 1, left + right + 1), (top + bottom, left + right)
    conv = Conv2d(channels, channels, size, 1, own, groups=channels, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[:, :, bottom, right] = 1
    conv.weight.requires_grad_(False)
    return conv


def _with_norm(
    context: Context, node: fx.Node, conv: nn.Conv2d, bias: torch.Tensor | None, kind: type[nn.Module]
) -> Patch:
    """The layer with the batch-norm that alone reads it and, behind that, the ReLU."""
    behind = context.sole_user(node, kind)
    if behind is None:
        return _unit(
            context,
            (node,),
            conv,
            qat.Bias(conv.weight.new_zeros(len(conv.weight)) if bias is None else bias),
        )
    found = context.module(behind)
    assert isinstance(found, nn.BatchNorm2d | nn.BatchNorm1d)
    batch_norm = _for_images(found)
    if bias is not None:
        batch_norm = copy.deepcopy(batch_norm)
        assert batch_norm.running_mean is not None
        batch_norm.running_mean -= bias.detach()
    return _unit(context, (node, behind), conv, batch_norm)


def _unit(
    context: Context,
    chain: tuple[fx.Node, ...],
    conv: nn.Conv2d,
    batch_norm: Norm,
    alone: bool = False,
    act: ActQuant | None = None,
) -> Patch:
    """The unit of a convolution; alone: it is of ones, which have 8 bits and do not learn. act: the type of
    what it gives, where that is known."""
    node, spec, source = chain[0], context.spec, context.act(chain[0])
    relu = context.relu(chain[-1])
    bits, act_bits = spec.of(str(node.target), context.is_stem(node))
    bits = 8 if alone else bits
    act = context.output(chain[-1], relu, act_bits) if act is None else act
    if alone and context.is_stem(node):
        context.of_input.append(act)
    unit = qat.QConv(conv, batch_norm, bits, source, act, context.extra(node), alone, spec.per_layer)
    return unit_patch(str(node.target), unit, chain if relu is None else (*chain, relu))


def _ones(channels: int) -> nn.Conv2d:
    """A depthwise 1x1 convolution that changes nothing, and does not learn to."""
    conv = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
    nn.init.ones_(conv.weight).requires_grad_(False)
    return conv


def _for_images(module: nn.BatchNorm2d | nn.BatchNorm1d) -> nn.BatchNorm2d:
    """The same batch-norm for images."""
    if isinstance(module, nn.BatchNorm2d):
        return module
    result = nn.BatchNorm2d(module.num_features, module.eps, module.momentum)
    result.load_state_dict(module.state_dict())
    return result
