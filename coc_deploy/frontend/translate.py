"""An exported program as canonical nodes: constants folded, views as arrangements, the rest by the table."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from . import noise
from .builder import Builder
from .program import Constant, Program, needed_for
from .refusal import place_of
from .table import CHECKS, RULES, SHAPED, VIEWS
from .value import Call, Noise, Value


def translate(program: Program, module: nn.Module, training: bool) -> tuple[Builder, dict[fx.Node, Any]]:
    """The canonical nodes of a program, and what each of its own nodes became, as far as its first output and
    ends of modules need them.

    Raises CocError, naming module, operator and line, for what has no canonical form.
    """
    shape = tuple(program.image.meta["val"].shape)
    builder = Builder(module, program.image.name, shape[1:], training)
    found: dict[fx.Node, Any] = {**program.constants, program.image: builder.image}
    needed = needed_for([*program.outputs[:1], *program.ends.values()])
    for node in program.graph.nodes:
        if node.op == "call_function" and node in needed:
            found[node] = _translate(node, found, builder)
    return builder, found


def _translate(node: fx.Node, found: dict[fx.Node, Any], builder: Builder) -> Any:
    if node.target is operator.getitem:
        source, position = node.args
        return found[source][position]  # type: ignore[index]
    call = _call(node, found, builder.module)
    if call.op in CHECKS:
        return None
    tensors = list(_leaves(call.given.values()))
    if call.op in noise.SOURCES or any(isinstance(tensor, Noise) for tensor in tensors):
        return noise.rule(builder, call)
    if call.op in SHAPED or not _values(tensors):
        return _folded(node, call, tensors)
    _check_type(node, call)
    if call.op in VIEWS:
        return _arranged(call, builder)
    rule = RULES.get(call.op)
    if rule is None:
        raise call.refuse(call.kind)
    return rule(builder, call)


def _call(node: fx.Node, found: dict[fx.Node, Any], module: nn.Module) -> Call:
    place = place_of(node, module)
    if not isinstance(node.target, torch._ops.OpOverload):
        name = getattr(node.target, "__name__", str(node.target))
        raise Call(name, {}, place, (), node.target).refuse(name)  # type: ignore[arg-type]
    names = [argument.name for argument in node.target._schema.arguments]
    given = {a.name: a.default_value for a in node.target._schema.arguments if a.has_default_value()}
    given |= dict(zip(names, node.args, strict=False)) | node.kwargs
    given = {name: fx.map_arg(value, found.__getitem__) for name, value in given.items()}
    results = node.meta.get("val")
    first = results[0] if isinstance(results, tuple | list) and results else results
    shape = tuple(first.shape) if isinstance(first, Tensor) else ()
    name = node.target._overloadpacket.__name__
    inside = name.startswith("_") or not name.endswith("_")
    return Call(name if inside else name.rstrip("_"), given, place, shape, node.target)


def _leaves(given: Any) -> Iterator[Any]:
    for value in given:
        if isinstance(value, tuple | list):
            yield from _leaves(value)
        else:
            yield value


def _values(tensors: list[Any]) -> bool:
    return any(isinstance(tensor, Value) for tensor in tensors)


def _mapped(given: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(given, dict):
        return {name: _mapped(value, change) for name, value in given.items()}
    if isinstance(given, tuple | list):
        return [_mapped(value, change) for value in given]
    return change(given)


def _folded(node: fx.Node, call: Call, tensors: list[Any]) -> Any:
    """The result of an operation on constants, or on nothing but the shape of a tensor."""

    def change(value: Any) -> Any:
        if isinstance(value, Value):
            return torch.zeros(()).expand(value.shape)
        return value.tensor.detach().clone() if isinstance(value, Constant) else value

    with torch.no_grad():
        result = call.run(**_mapped(call.given, change))
    constants = [tensor for tensor in tensors if isinstance(tensor, Constant)]
    sources = tuple(dict.fromkeys(source for constant in constants for source in constant.sources))
    learned = any(constant.learned for constant in constants)
    return _mapped(result, lambda v: Constant(v, sources, learned) if isinstance(v, Tensor) else v)


def _check_type(node: fx.Node, call: Call) -> None:
    """What depends on the images is computed in float32."""
    results = node.meta.get("val")
    first = results[0] if isinstance(results, tuple | list) else results
    if isinstance(first, Tensor) and first.dtype != torch.float32:
        raise call.refuse(f"{call.op} in {str(first.dtype).removeprefix('torch.')}")


def _arranged(call: Call, builder: Builder) -> Any:
    """A view, slice or copy: the operation is run on the positions that its input's values have."""
    sources: list[Value] = []

    def change(value: Any) -> Any:
        if not isinstance(value, Value):
            return value.tensor if isinstance(value, Constant) else value
        first = not sources
        sources.append(builder.shuffled(value, call) if first else value)
        return sources[0].indices if first else torch.zeros((), dtype=torch.int64).expand(value.shape)

    given = _mapped(call.given, change)
    source = sources[0]
    run = _reshape if call.op in ("view", "_unsafe_view") else call.run
    result = run(**given)
    return _mapped(result, lambda v: source.arranged(v, call) if isinstance(v, Tensor) else v)


def _reshape(self: Tensor, size: list[int]) -> Tensor:
    """`view` of positions, which may lie in memory in another order than the values do."""
    return self.reshape(size)
