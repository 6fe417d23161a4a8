"""What running a module changes in it, afterwards as before."""

import contextlib
from collections.abc import Iterator

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


@contextlib.contextmanager
def buffers_restored(module: nn.Module) -> Iterator[None]:
    """Running statistics and all other buffers afterwards as before."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, was in before:
                buffer.copy_(was)
