"""torch.export of a module in one mode, as a functional graph of ATen operators with what belongs to it."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree as pytree

from coc_runtime.errors import CocError

from ..restored import modes_restored, remembered
from . import inplace
from .refusal import brief, failure, is_leaf

BATCH = 2
"""Images in an exported program; what it computes for each must not depend on the other."""

_SKIPPED = ("parametrizations",)


@dataclass(frozen=True)
class Constant:
    """A tensor that does not depend on the images.

    sources: names of the parameters and buffers that it comes from. learned: whether a parameter is among
    them. whole: it is the only source as it is.
    """

    tensor: Tensor
    sources: tuple[str, ...] = ()
    learned: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Program:
    """A graph of ATen operators without side effects on tensors.

    constants: values of placeholders but `image`. outputs: the nodes of all tensors that the module returns.
    ends: module -> node of the tensor that it returned last, for modules that have no operator of their own.
    """

    graph: fx.Graph
    constants: dict[fx.Node, Constant]
    image: fx.Node
    outputs: tuple[fx.Node, ...]
    ends: dict[str, fx.Node]


def export(module: nn.Module, shape: tuple[int, int, int], training: bool, whole: bool = True) -> Program:
    """The program of a module for float images of `shape`, in training or evaluation mode.

    whole: whether the mode is also that of the module itself, not of its submodules alone.
    Raises CocError, naming module and line, where the module cannot be exported.
    """
    images = torch.zeros(BATCH, *shape)
    ends: dict[str, Tensor] = {}
    with _quiet(), torch.random.fork_rng(devices=[]), modes_restored(module), _noting(module, ends):
        module.train(training)
        module.training = training and whole
        try:
            exported = torch.export.export(module, (images,), strict=False)
        except Exception as error:
            raise _refusal(error, module, images) from error
        if not inplace.rename(exported.graph):
            exported = exported.run_decompositions({})
    return _program(exported, module)


def _program(exported: torch.export.ExportedProgram, module: nn.Module) -> Program:
    graph, signature = exported.graph, exported.graph_signature
    nodes = {node.name: node for node in graph.nodes}
    first = _first_names(module)
    constants: dict[fx.Node, Constant] = {}
    for name, target in {**signature.inputs_to_parameters, **signature.inputs_to_buffers}.items():
        tensor = first[1][target]
        source = first[0][id(tensor)]
        constants[nodes[name]] = Constant(tensor, (source,), isinstance(tensor, nn.Parameter), True)
    for name, target in signature.inputs_to_lifted_tensor_constants.items():
        constants[nodes[name]] = Constant(exported.constants[target])
    (image,) = [nodes[name] for name in signature.user_inputs if isinstance(name, str) and name in nodes]
    given = zip(graph.output_node().args[0], signature.output_specs, strict=True)
    returned = [node for node, spec in given if spec.kind is OutputKind.USER_OUTPUT]
    result, ends = pytree.tree_unflatten(returned, exported.call_spec.out_spec)
    outputs = [node for node in pytree.tree_leaves(result) if isinstance(node, fx.Node)]
    tensors = tuple(node for node in outputs if isinstance(node.meta.get("val"), Tensor))
    return Program(graph, constants, image, tensors, ends)


def _first_names(module: nn.Module) -> tuple[dict[int, str], dict[str, Tensor]]:
    """id of a parameter or buffer -> the first of its names, and all names -> it."""
    named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    named |= dict(module.named_buffers(remove_duplicate=False))
    first: dict[int, str] = {}
    for name, tensor in named.items():
        first.setdefault(id(tensor), name)
    return first, named


@contextlib.contextmanager
def _noting(module: nn.Module, ends: dict[str, Tensor]) -> Iterator[None]:
    """Let the module also return what its submodules gave, a copy as it was at that time.

    Modules that are one operator of torch.nn need no note.
    """

    def note(name: str) -> Any:
        def hook(inside: nn.Module, given: Any, result: Any) -> None:
            if isinstance(result, Tensor):
                ends[name] = result.clone()

        return hook

    handles = [
        inside.register_forward_hook(note(name))
        for name, inside in module.named_modules()
        if name and not any(part in name.split(".") for part in _SKIPPED)
        if not is_leaf(inside) or isinstance(inside, nn.Identity)
    ]
    handles.append(module.register_forward_hook(lambda inside, given, result: (result, ends)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Warnings of torch.export are about its own working."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _refusal(error: Exception, module: nn.Module, images: Tensor) -> CocError:
    """What a failed export means: the network fails on such images, or does what cannot be exported."""
    restore = remembered(module)
    try:
        with torch.no_grad():
            module(images)
    except Exception as own:
        place = failure(own, module)
        return CocError(f"{place}: fails on images of this size: {brief(own)}{place.at}")
    finally:
        restore()
    place = failure(error, module)
    return CocError(
        f"{place}: {place.kind} cannot be traced (no branches or loops that depend on values, no operations "
        f"outside torch): {brief(error)}{place.at}"
    )


def needed_for(last: list[fx.Node]) -> set[fx.Node]:
    """The nodes and all that they are computed from."""
    found, pending = set(last), list(last)
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                pending.append(source)
    return found
