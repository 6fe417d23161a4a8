"""Rules for what joins images, and for choosing channels of one."""

from torch import fx, nn

from coc_runtime.errors import CocError

from .. import qat
from ..frontend.refusal import unquantized
from .context import Context
from .patch import Patch, Placed, unit_patch


def addition(context: Context, node: fx.Node, module: nn.Module | None) -> Patch:
    inputs = _operands(node)
    if len(set(context.inputs[node])) != 1:
        given = " and ".join(str(list(size)) for size in context.inputs[node])
        raise unquantized(node, None, f"addition of shapes {given}", "they must be equal")
    if len({context.images[a] for a in inputs}) != 1:
        raise CocError(f"{node.name}: addition behind different flattenings cannot be quantized")
    relu = context.relu(node)
    unit = qat.QAdd(context.output(node, relu), tuple(context.acts[a] for a in inputs))
    return unit_patch(node.name, unit, _chain(node, relu))


def concatenation(context: Context, node: fx.Node, module: nn.Module | None) -> Patch:
    inputs = node.all_input_nodes
    if len({context.images[a][1:] for a in inputs}) != 1:
        raise CocError(f"{node.name}: concatenation behind different flattenings cannot be quantized")
    return _joined(context, node, inputs, qat.QConcat, node.args)


def product(context: Context, node: fx.Node, module: nn.Module | None) -> Patch:
    """The image comes first, a number for each of its channels second."""
    first, second = _operands(node)
    if context.images[first][1:] == (1, 1):
        first, second = second, first
    sizes = context.images[first], context.images[second]
    if sizes[1] not in (sizes[0], (sizes[0][0], 1, 1)):
        given = " and ".join(str(list(size)) for size in sizes)
        advice = "they must be equal, or one of them a number for each channel"
        raise unquantized(node, None, f"product of shapes {given}", advice)
    return _joined(context, node, [first, second], qat.QMul, (first, second))


def selection(context: Context, node: fx.Node, module: nn.Module) -> Patch:
    """Slices, shuffles and other choices of channels."""
    if context.image(node)[0] != context.inputs[node][0][0]:
        raise unquantized(
            node, module, f"{type(module).__name__} behind a flattened image", "choose channels"
        )
    return unit_patch(str(node.target), qat.QSelect(context.act(node), module), (node,))


def _joined(
    context: Context,
    node: fx.Node,
    inputs: list[fx.Node],
    kind: type[qat.QConcat] | type[qat.QMul],
    args: tuple[object, ...],
) -> Patch:
    """A unit of several images with the ReLU behind it; signed if one of them is."""
    relu = context.relu(node)
    signed = any(context.acts[a].signed for a in inputs)
    unit = kind(context.output(node, relu) if relu or signed else context.unsigned())
    chain = _chain(node, relu)
    return Patch((Placed(node.name, unit, args, chain[-1], chain),), chain)


def _operands(node: fx.Node) -> list[fx.Node]:
    return [a for a in node.args if isinstance(a, fx.Node)]


def _chain(node: fx.Node, relu: fx.Node | None) -> tuple[fx.Node, ...]:
    return (node,) if relu is None else (node, relu)
