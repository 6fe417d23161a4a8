"""A user's model as a traced network: refused by name where the two would not be the same."""

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from coc_runtime.errors import CocError

from . import same
from .body import Traced
from .frontend.trace import trace_network
from .models.weights import unsound

WRAPPERS = ("DataParallel", "DistributedDataParallel", "OptimizedModule")
"""Modules that run another one in their own way; the last is torch.compile's."""


def trace_given(module: nn.Module, shape: tuple[int, int, int], classes: int) -> Traced:
    """What `trace_network` makes of a copy of the module, once it is known to compute what the module does.

    The module maps images [N, *shape] to logits [N, classes] and stays as it is. Raises CocError, naming the
    submodule or tensor, for what is not supported or differs.
    """
    kind = type(module).__name__
    for name, part in module.named_modules():
        _refuse_wrapper(name, part)
        if any(is_lazy(tensor) or tensor.is_meta for tensor in part.parameters(recurse=False)):
            raise CocError(f"{name}: has no weights yet: let the function that builds it give it some")
    if fault := unsound(module.state_dict()):
        raise CocError(f"{kind}: {fault}")
    try:
        original = same.copied(module)
    except Exception as error:
        detail = " ".join(str(error).split())[:200]
        raise CocError(f"{kind}: cannot be copied: {detail}") from error
    traced = trace_network(original, shape, classes)
    same.check(module, traced.body, shape, same.common(original, traced.body))
    return traced


def _refuse_wrapper(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    scripted = isinstance(module, torch.jit.ScriptModule)
    if scripted or kind in WRAPPERS:
        what = "a scripted module" if scripted else kind
        raise CocError(f"{name or kind}: {what} is not supported: give the module that it was made of")
