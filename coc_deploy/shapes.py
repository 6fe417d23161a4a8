"""Shapes of the tensors in a canonical body."""

from typing import Any

import torch
from torch import fx

from coc_runtime.errors import CocError

from .restored import modes_restored


class _Recorder(fx.Interpreter):
    """Keeps the shape of every tensor."""

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__(body)
        self.extra_traceback = False
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        try:
            result = super().run_node(n)
        except Exception as error:
            detail = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            name = n.target if n.op == "call_module" else n.name
            raise CocError(f"{name}: fails on images of this size: {detail}") from error
        if isinstance(result, torch.Tensor):
            self.shapes[n.name] = tuple(result.shape[1:])
        return result


def shapes(body: fx.GraphModule, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shape without batch of every tensor of a canonical body, by node name, for images of `shape`.

    Raises CocError, naming the module, where the body does not accept them.
    """
    with torch.no_grad(), modes_restored(body):
        body.eval()
        recorder = _Recorder(body)
        recorder.run(torch.zeros(1, *shape))
    return recorder.shapes


def pair(value: Any) -> tuple[int, int]:
    """(height, width) of an int or a sequence of two."""
    return (int(value[0]), int(value[1])) if isinstance(value, tuple | list) else (int(value), int(value))
