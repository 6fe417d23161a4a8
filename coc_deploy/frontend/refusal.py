"""Where an operation is in the user's network, and how a refusal says so: in one line."""

import re
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import fx, nn

from coc_runtime.errors import CocError

SUPPORTED = (
    "Conv2d, BatchNorm2d, ReLU and other functions of single values, addition, products, concatenation and "
    "choice of channels, max, average, adaptive and global pooling, zero padding, Flatten, Dropout, Linear"
)
"""What has an integer form."""

_TORCH = Path(torch.__file__).parent
_OURS = Path(__file__).parents[1]
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


@dataclass(frozen=True)
class Place:
    """A module of the user's network by its name ("" for the whole) and class, and a line of code in it.

    leaf: whether the module computes what a class of torch.nn does. holds: whether it has weights or
    statistics, so that one of its operations is the layer and others are beside it. again: called once more.
    """

    name: str
    kind: str
    leaf: bool = False
    holds: bool = False
    again: bool = False
    line: str = ""

    def __str__(self) -> str:
        return self.name or self.kind

    @property
    def at(self) -> str:
        return f" ({self.line})" if self.line else ""


_ONE_NODE = ("ShortcutA", "StochasticDepth", "DropPath")
"""Classes beside torch.nn's that become one canonical module: of CIFAR ResNets, torchvision and timm."""


def is_leaf(module: nn.Module) -> bool:
    """Whether the module computes what a class of torch.nn does, or else one canonical module."""
    if isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict):
        return False
    alone = type(module).__name__ in _ONE_NODE and next(module.children(), None) is None
    return alone or type(module).forward.__module__.startswith("torch.nn.")


def place_of(node: fx.Node, module: nn.Module) -> Place:
    """Where an operation of an exported program was called in the module."""
    stack = node.meta.get("nn_module_stack") or {}
    name, kind = next(reversed(stack.values())) if stack else ("", type(module).__name__)
    name, _, call = name.partition("@")
    inside = module.get_submodule(name)
    kind = getattr(kind, "__name__", str(kind)).rpartition(".")[2]
    tensors = (*inside.parameters(recurse=False), *inside.buffers(recurse=False))
    holds = bool(tensors) or hasattr(inside, "parametrizations")
    line = line_of(node.meta.get("stack_trace") or "")
    return Place(name, kind, is_leaf(inside), holds, bool(call), line)


def line_of(stack_trace: str) -> str:
    """ "file.py:12", the innermost line of the user's code in a printed stack."""
    frames = [(Path(frame["file"]), frame["line"]) for frame in _FRAME.finditer(stack_trace)]
    users = [(file, line) for file, line in frames if _is_users(file)]
    return f"{users[-1][0].name}:{users[-1][1]}" if users else ""


def _is_users(file: Path) -> bool:
    return file.is_absolute() and not file.is_relative_to(_TORCH) and not file.is_relative_to(_OURS)


def refuse(place: Place, what: str, why: str = "", operator: str = "") -> CocError:
    """operator: its name, for one that the network calls outside of any of its modules."""
    name = place.name or operator or place.kind
    return CocError(f"{name}: {what} is not supported{why or f'; supported: {SUPPORTED}'}{place.at}")


def unquantized(node: fx.Node, module: nn.Module | None, what: str = "", advice: str = "") -> CocError:
    """A refusal of what a canonical body may hold and no quantized unit computes.

    what, advice: of its arguments, where it is they that have no integer form.
    """
    place: Place = node.meta.get("place") or Place("", "")
    function = getattr(module, "function", "")
    kind = place.kind if place.leaf and node.target == place.name else ""
    kind = what or kind or function or (type(module).__name__ if module else _name(node))
    own = node.op == "call_module" and str(node.target).startswith(place.name)
    name = str(node.target) if own else place.name or node.name
    rest = f": {advice}" if advice else f"; supported: {SUPPORTED}"
    return CocError(f"{name}: {kind} cannot be quantized{rest}{place.at}")


def _name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", str(node.target)).capitalize()


def failure(error: Exception, module: nn.Module) -> Place:
    """The innermost module whose forward raised the error, and the innermost line of the user's code."""
    names = {id(inside): name for name, inside in module.named_modules()}
    place = Place("", type(module).__name__)
    line = ""
    for frame, number in traceback.walk_tb(_inside(error)):
        inside = frame.f_locals.get("self")
        if isinstance(inside, nn.Module) and id(inside) in names:
            place = Place(names[id(inside)], type(inside).__name__)
        file = Path(frame.f_code.co_filename)
        if _is_users(file):
            line = f"{file.name}:{number}"
    return Place(place.name, place.kind, line=line)


def _inside(error: BaseException) -> TracebackType | None:
    """The traceback that goes deepest among an error and those that it was raised from."""
    deepest, depth = error.__traceback__, 0
    seen: BaseException | None = error
    while seen is not None:
        frames = sum(1 for _ in traceback.walk_tb(seen.__traceback__))
        if frames > depth:
            deepest, depth = seen.__traceback__, frames
        seen = seen.__cause__ or seen.__context__
    return deepest


def brief(error: Any) -> str:
    """An error's text as a part of one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
