"""What `coc-compress` does, for programs: `compress(recipe, out) -> Run`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coc_runtime.errors import CocError

Show = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Run:
    """A finished chain."""

    folder: Path
    """where its files are: a folder per stage, history.json, report.md and model.pt"""
    history: tuple[dict[str, Any], ...]
    """a record per stage, the original first: `accuracy` in percent (of a regression `mae` and `r2`),
    `bitops_cr`, `cr`, `exit_share`, `thresholds`, `seconds` and more"""

    @property
    def model(self) -> Path:
        """The compressed network, which `coc_export.export` takes."""
        return self.folder / "model.pt"


def compress(
    recipe: str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    store: str | Path | None = None,
    threads: int | None = None,
    show: Show | None = None,
) -> Run:
    """Run a recipe's chain into a folder; stages that are finished are loaded, not computed again.

    recipe: a TOML file, whose paths are relative to its folder, or the same values as a dictionary, with
    paths relative to the working directory. store: a folder of stages that several runs share. threads: CPU
    threads of torch while it runs (default: as many as torch uses already). show: called with the record of
    each stage when it is done.
    Raises CocError, which names the key, the module or the file, for what cannot be done; before any training
    where that can be known.
    """
    try:
        import torch

        from . import chain
        from .recipe import load, parse, resolved
    except ImportError as error:
        raise CocError(f"{error.name} is missing: pip install 'coc-deploy[compile]'") from error
    if threads is not None and threads < 1:
        raise CocError(f"threads {threads}: must be at least 1")
    if isinstance(recipe, Mapping):
        chosen = resolved(parse(dict(recipe)), Path())
    else:
        chosen = load(Path(recipe), [])
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        shared = None if store is None else Path(store)
        result = chain.run(chosen, Path(out), show or (lambda record: None), shared)
    finally:
        torch.set_num_threads(before)
    return Run(Path(out), result.history)
