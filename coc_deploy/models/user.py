"""A user's own network: `model = "path/to/file.py:factory"` or `model = "path/to/net.onnx"`."""

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from coc_runtime import files
from coc_runtime.errors import CocError
from coc_runtime.text import one_line


def is_user(name: str) -> bool:
    """Whether a model's name has the form "file.py:factory" or "net.onnx"."""
    path, _, factory = parts(name)
    return is_onnx(name) or (path.endswith(".py") and factory.isidentifier())


def is_onnx(name: str) -> bool:
    """Whether a model's name is that of an ONNX file, which holds its weights."""
    return name.endswith(".onnx")


def parts(name: str) -> tuple[str, str, str]:
    """The file of a user's model, and ":" and the factory in it, both "" where the file is the model."""
    return (name, "", "") if is_onnx(name) else name.rpartition(":")


def display(name: str) -> str:
    """A model's name without folders, as records and files hold it."""
    if not is_user(name):
        return name
    path, separator, factory = parts(name)
    return f"{one_line(Path(path).name)}{separator}{factory}"


def build(name: str, channels: int, classes: int) -> nn.Module:
    """What an ONNX file holds, or what `factory(classes, channels)` or `factory()` of a file gives, whose
    folder it may import from.

    Raises CocError when the file or the factory is missing, fails, or gives something else.
    """
    path, _, attribute = parts(name)
    if is_onnx(name):
        from . import onnx_file  # takes half a second

        return onnx_file.load(Path(path))
    module = load(Path(path))
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


def imported(path: Path) -> dict[str, Path]:
    """The modules, by name, that a user's file imports from its own folder, and those that these import; of
    an ONNX file the files that hold its weights.

    Import statements are read, wherever they stand; what is imported by other means is not known.
    """
    if is_onnx(path.name):
        from . import onnx_file

        return {file.name: file for file in onnx_file.external(path)}
    folder, found = path.resolve().parent, dict[str, Path]()
    todo = [("", path)]
    while todo:
        name, file = todo.pop()
        for wanted in _named(name, file):
            for module, source in _sources(folder, wanted):
                if module not in found and source != path.resolve():
                    found[module] = source
                    todo.append((module, source))
    return dict(sorted(found.items()))


def _named(name: str, file: Path) -> Iterator[str]:
    """Full names that the import statements of a module may mean; none where the file is no Python."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*stem, alias.name]) for alias in node.names)


def _sources(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """The files below the folder that importing this name runs: packages above it, and itself."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        at = folder.joinpath(*parts[:count])
        for source in (at / "__init__.py", at.with_name(f"{at.name}.py")):
            if source.is_file():
                yield ".".join(parts[:count]), source
                break


def load(path: Path) -> Any:
    """The file as a module, which may import from its folder; CocError when it is missing or fails."""
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
    """Call a factory with classes and channels by keyword where it names them, else by position."""
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
