"""Rules for pooling, and for a ReLU on its own, which pools single pixels."""

from torch import fx, nn

from coc_runtime.ops.windows import Stride, stride_of

from .. import qat
from ..frontend.refusal import unquantized
from ..qat import Pads
from ..quantizers import ActQuant
from ..shapes import pair
from .context import NO_PADS, Context, is_final
from .patch import Patch, unit_patch


def clip(context: Context, node: fx.Node, relu: nn.Module) -> Patch:
    """A ReLU on its own."""
    return unit_patch(str(node.target), qat.QAvgPool(context.output(node, node), (1, 1), 1, NO_PADS), (node,))


def max_pool(context: Context, node: fx.Node, pool: nn.Module) -> Patch:
    assert isinstance(pool, nn.MaxPool2d)
    if pair(pool.dilation) != (1, 1):
        raise unquantized(node, pool, "dilated pooling", "use dilation 1")
    kernel, (down, across) = pair(pool.kernel_size), pair(pool.stride)
    top, left, bottom, right = _pads(context, node, pair(pool.padding))
    _, height, width = context.image(node)
    _, out_height, out_width = context.shapes[node.name]  # of ceil_mode, where windows reach over the border
    bottom = max(bottom, (out_height - 1) * down + kernel[0] - height - top)
    right = max(right, (out_width - 1) * across + kernel[1] - width - left)
    unit = qat.QMaxPool(context.act(node), kernel, stride_of(down, across), (top, left, bottom, right))
    return unit_patch(str(node.target), unit, (node,))


def average_pool(context: Context, node: fx.Node, pool: nn.Module) -> Patch:
    assert isinstance(pool, nn.AvgPool2d)
    if not pool.count_include_pad:
        raise unquantized(node, pool, "average pooling without count_include_pad", "set it to True")
    if pool.ceil_mode:
        raise unquantized(node, pool, "average pooling with ceil_mode", "its border windows differ")
    if pool.divisor_override:
        raise unquantized(node, pool, "average pooling with divisor_override", "leave it out")
    pads = _pads(context, node, pair(pool.padding))
    return _average(context, node, pair(pool.kernel_size), stride_of(*pair(pool.stride)), pads)


def global_pool(context: Context, node: fx.Node, pool: nn.Module) -> Patch:
    """Pooling to one pixel, with the flattening behind it where logits follow."""
    assert isinstance(pool, nn.AdaptiveAvgPool2d)
    _, height, width = context.image(node)
    if pair(pool.output_size) != (1, 1):
        to = "x".join(map(str, pair(pool.output_size)))
        what = f"adaptive pooling of {height}x{width} to {to}"
        raise unquantized(node, pool, what, "windows differ in size, choose a size that divides")
    chain = [node]
    while len(chain[-1].users) == 1:
        user = next(iter(chain[-1].users))
        module = context.module(user)
        if _is_logits(context, chain[-1], user) or (isinstance(module, nn.Linear) and is_final(user)):
            unit = qat.QPool(ActQuant(8, context.act(node).signed, percentile=100.0))
            return unit_patch(str(node.target), unit, tuple(chain))
        if not isinstance(module, nn.Dropout | nn.Dropout2d | nn.Flatten):
            break
        chain.append(user)
    return _average(context, node, (height, width), 1, NO_PADS)


def _is_logits(context: Context, node: fx.Node, user: fx.Node) -> bool:
    return user.op == "output" and len(context.shapes[node.name]) == 1


def _average(context: Context, node: fx.Node, kernel: tuple[int, int], stride: Stride, pads: Pads) -> Patch:
    """Average pooling with the ReLU behind it."""
    relu = context.relu(node)
    act = context.output(node, relu) if relu or context.act(node).signed else context.unsigned()
    unit = qat.QAvgPool(act, kernel, stride, pads)
    return unit_patch(str(node.target), unit, (node, relu) if relu else (node,))


def _pads(context: Context, node: fx.Node, own: tuple[int, int]) -> Pads:
    """The padding of a pool and what it does for padding in front of it."""
    top, left, bottom, right = context.extra(node)
    return own[0] + top, own[1] + left, own[0] + bottom, own[1] + right
