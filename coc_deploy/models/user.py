"""A user's own network: `model = "path/to/file.py:factory"`."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from coc_runtime import files
from coc_runtime.errors import CocError
from coc_runtime.text import one_line


def is_user(name: str) -> bool:
    """Whether a model's name has the form "file.py:factory"."""
    path, separator, factory = name.rpartition(":")
    return bool(separator) and path.endswith(".py") and factory.isidentifier()


def display(name: str) -> str:
    """A model's name without folders, as records and files hold it."""
    if not is_user(name):
        return name
    path, _, factory = name.rpartition(":")
    return f"{one_line(Path(path).name)}:{factory}"


def build(name: str, channels: int, classes: int) -> nn.Module:
    """Call `factory(classes, channels)` or `factory()` of the file, whose folder it may import from.

    Raises CocError when the file or the factory is missing, fails, or gives something else.
    """
    path, _, attribute = name.rpartition(":")
    module = _load(Path(path))
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise CocError(f"{path}: has no function or class '{attribute}'")
    try:
        model = _call(factory, channels, classes)
    except CocError:
        raise
    except Exception as error:
        raise CocError(f"{name}: fails with {_brief(error)}") from error
    if not isinstance(model, nn.Module):
        raise CocError(f"{name}: gives a {type(model).__name__}, it must give a torch.nn.Module")
    return model


def _load(path: Path) -> Any:
    files.require_regular(path, "'model' names a Python file")
    if not path.is_file():
        raise CocError(f"{path}: no such file; 'model' names it relative to the recipe")
    spec = importlib.util.spec_from_file_location(f"coc_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise CocError(f"{path}: cannot be imported: {_brief(error)}") from error
    finally:
        sys.path.remove(folder)
    return module


def _call(factory: Callable[..., Any], channels: int, classes: int) -> Any:
    """By keyword where the signature names classes or channels, else by position, else without."""
    given = {"classes": classes, "channels": channels}
    parameters = inspect.signature(factory).parameters.values()
    named = {p.name: given[p.name] for p in parameters if p.name in given}
    if named:
        return factory(**named)
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    return factory(*(classes, channels)[: len(required)])


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
