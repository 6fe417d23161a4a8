"""Rules for pooling, and for a ReLU on its own, which pools single pixels."""

from torch import fx, nn

from coc_runtime.ops.windows import stride_of

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
    kernel, stride = pair(pool.kernel_size), pair(pool.stride)
    pads = _reaching(context, node, kernel, stride, _pads(context, node, pair(pool.padding)))
    return unit_patch(
        str(node.target), qat.QMaxPool(context.act(node), kernel, stride_of(*stride), pads), (node,)
    )


def average_pool(context: Context, node: fx.Node, pool: nn.Module) -> Patch:
    """Windows of one size, or of pixels without padding, which are smaller at the border."""
    assert isinstance(pool, nn.AvgPool2d)
    kernel, stride = pair(pool.kernel_size), pair(pool.stride)
    pads = _pads(context, node, pair(pool.padding))
    if pool.divisor_override:
        raise unquantized(node, pool, "average pooling with divisor_override", "leave it out")
    whole = _reaching(context, node, kernel, stride, pads)
    if whole == pads and (pool.count_include_pad or not any(pads)):
        return _average(context, node, qat.QAvgPool(_type(context, node), kernel, stride_of(*stride), pads))
    if pool.count_include_pad and any(pads):
        raise unquantized(node, pool, "ceil_mode with padding that counts", "set count_include_pad to False")
    unit = qat.QPixelAvgPool(_type(context, node), kernel, stride_of(*stride), whole, pool)
    return _average(context, node, unit)


def adaptive_pool(context: Context, node: fx.Node, pool: nn.Module) -> Patch:
    """Pooling to one pixel, with the flattening behind it where logits follow; or to a grid of windows."""
    assert isinstance(pool, nn.AdaptiveAvgPool2d)
    _, height, width = context.image(node)
    if pair(pool.output_size) != (1, 1):
        grid = qat.QAdaptiveAvgPool(_type(context, node), pair(pool.output_size), pool)
        return _average(context, node, grid)
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
    return _average(context, node, qat.QAvgPool(_type(context, node), (height, width), 1, NO_PADS))


def _is_logits(context: Context, node: fx.Node, user: fx.Node) -> bool:
    return user.op == "output" and len(context.shapes[node.name]) == 1


def _average(context: Context, node: fx.Node, unit: nn.Module) -> Patch:
    """Average pooling with the ReLU behind it."""
    relu = context.relu(node)
    return unit_patch(str(node.target), unit, (node, relu) if relu else (node,))


def _type(context: Context, node: fx.Node) -> ActQuant:
    """Of a mean and the ReLU behind it; signed if the image is."""
    relu = context.relu(node)
    return context.output(node, relu) if relu or context.act(node).signed else context.unsigned()


def _pads(context: Context, node: fx.Node, own: tuple[int, int]) -> Pads:
    """The padding of a pool and what it does for padding in front of it."""
    top, left, bottom, right = context.extra(node)
    return own[0] + top, own[1] + left, own[0] + bottom, own[1] + right


def _reaching(
    context: Context, node: fx.Node, kernel: tuple[int, int], stride: tuple[int, int], pads: Pads
) -> Pads:
    """The padding with what windows of ceil_mode need below and on the right."""
    _, height, width = context.image(node)
    _, out_height, out_width = context.shapes[node.name]
    top, left, bottom, right = pads
    bottom = max(bottom, (out_height - 1) * stride[0] + kernel[0] - height - top)
    right = max(right, (out_width - 1) * stride[1] + kernel[1] - width - left)
    return top, left, bottom, right
