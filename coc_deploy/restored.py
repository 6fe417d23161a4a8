"""What running a module changes in it, afterwards as before."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn


@contextlib.contextmanager
def modes_restored(module: nn.Module) -> Iterator[None]:
    """Training mode of every submodule afterwards as before."""
    before = [(inside, inside.training) for inside in module.modules()]
    try:
        yield
    finally:
        for inside, was in before:
            inside.training = was


def remembered(module: nn.Module) -> Callable[[], None]:
    """What sets running statistics and all other buffers to what they are now."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]

    def restore() -> None:
        with torch.no_grad():
            for buffer, was in before:
                buffer.copy_(was)

    return restore
