"""Any module as a graph of few kinds of nodes, by torch.export.

After `trace_network` every node is the image, a call of a module of `body.KINDS`, an addition, a product, a
concatenation of channels, or the output. What cannot be brought to that form is refused by name and line.
"""

import inspect

import torch
from torch import fx, nn

from coc_runtime.errors import CocError

from ..body import Traced, add_module
from . import simplify
from .builder import Builder
from .draft import Draft
from .places import places
from .program import BATCH, Program, export
from .refusal import Place
from .training import insert_drops
from .translate import translate
from .value import Call, Value


def trace_network(module: nn.Module, shape: tuple[int, int, int], classes: int | None = None) -> Traced:
    """A float module that maps images [N, *shape] to logits [N, classes], in canonical form.

    Evaluation mode is what counts; of training mode dropout and stochastic depth are taken. The body shares
    the module's parameters where they are its own layers' weights. Raises CocError, naming the module and
    the line, for what the chain does not support.
    """
    _check_signature(module)
    program = export(module, shape, training=False)
    builder, found = translate(program, module, training=False)
    if len(program.outputs) != 1:
        raise CocError(f"the network must return one tensor of logits, it returns {len(program.outputs)}")
    logits = _logits(builder, found[program.outputs[0]])
    ends = {name: _end(builder, found[end.all_input_nodes[0]]) for name, end in program.ends.items()}
    notes = _take_training(module, shape, builder, logits, ends)
    draft = Draft(builder.graph, builder.modules)
    draft.graph.output(logits)
    simplify.run(draft)
    last = draft.graph.output_node().all_input_nodes[0]
    simplify.check_classes(draft, last, classes)
    draft.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    return _traced(module, draft, {name: end for name, end in ends.items() if end is not None}, notes)


def _check_signature(module: nn.Module) -> None:
    parameters = inspect.signature(module.forward).parameters.values()
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [p for p in parameters if p.default is p.empty and p.kind not in various]
    if len(required) > 1 or not list(parameters):
        raise CocError(f"{type(module).__name__}: forward must take one tensor of images")


def _logits(builder: Builder, value: object) -> fx.Node:
    if not isinstance(value, Value):
        raise CocError("the network's result does not depend on the image")
    if value.shape == (BATCH,):
        value = Value(value.node, value.size, (BATCH, 1), value.index, value.call, value.name)
    place = Place("", type(builder.module).__name__)
    return builder.node(value, value.call or Call("output", {}, place, value.shape, torch.clone))


def _end(builder: Builder, value: object) -> fx.Node | None:
    return builder.existing(value) if isinstance(value, Value) else None


def _take_training(
    module: nn.Module, shape: tuple[int, int, int], builder: Builder, logits: fx.Node, ends: dict
) -> tuple[str, ...]:
    """Put the drops of training mode into the body; lines about what training mode does beside."""
    notes = []
    try:
        program = export(module, shape, training=True)
    except CocError as error:
        program = _children_in_training(module, shape, error)
        notes.append(f"training mode was taken from the modules alone, as a whole it fails: {error}")
    trained, found = translate(program, module, training=True)
    insert_drops(builder, logits, trained, _logits(trained, found[program.outputs[0]]), ends)
    if len(program.outputs) > 1:
        count = len(program.outputs) - 1
        notes.append(f"{count} auxiliary output{'s' * (count > 1)} of training mode left out")
    return tuple(notes)


def _children_in_training(module: nn.Module, shape: tuple[int, int, int], error: CocError) -> Program:
    """Training mode without what the whole network does in it, as heads that images are too small for."""
    try:
        return export(module, shape, training=True, whole=False)
    except CocError:
        raise error from None


def _traced(module: nn.Module, draft: Draft, ends: dict[str, fx.Node], notes: tuple[str, ...]) -> Traced:
    alive = set(draft.graph.nodes)
    positions = {name: draft.final(node) for name, node in ends.items()}
    positions |= {str(node.target): node for node in draft.graph.nodes if node.op == "call_module"}
    found = {name: node for name, node in positions.items() if node in alive}
    own = dict(module.named_modules())
    containers = {
        name
        for name, inside in own.items()
        if next(inside.children(), None) is not None and not isinstance(inside, nn.Sequential | nn.ModuleList)
    }
    chosen, cuts = places(draft, found, containers, set(own))
    root = nn.Module()
    for node in draft.graph.nodes:
        if node.op == "call_module":
            add_module(root, str(node.target), draft.modules[str(node.target)])
    body = fx.GraphModule(root, draft.graph)
    body.train(module.training)
    return Traced(body, {name: node.name for name, node in found.items()}, chosen, cuts, notes)
