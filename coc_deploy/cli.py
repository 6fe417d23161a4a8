"""coc-compress: run a recipe's chain and leave the compressed model in a folder."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coc_runtime import command
from coc_runtime.errors import CocError
from coc_runtime.text import one_line

COLUMNS = "stage     model        bits  accuracy  BitOpsCR  uniform      CR     time  exits"
NUMBER_COLUMNS = COLUMNS.replace("  accuracy", "       MAE       R2")
"""The columns of a regression."""
SEARCH = "coc_study.auto.command"


def parser() -> argparse.ArgumentParser:
    result = command.Parser(prog="coc-compress", description=__doc__)
    result.add_argument(
        "recipe", type=Path, nargs="?", help="recipe.toml: chain, data, and a section per stage"
    )
    result.add_argument("--out", type=Path, metavar="RUN", help="folder of the run; continued if it exists")
    result.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, e.g. --set q.bits=4x8",
    )
    result.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="folder of stages that runs, studies and searches share (default: RUN/stages)",
    )
    result.add_argument(
        "--same-code",
        action="store_true",
        help="go on with stages in RUN that an older version of the code computed",
    )
    # Its place was taken by --store; who types it is told.
    result.add_argument("--reuse", type=Path, help=argparse.SUPPRESS)
    result.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    result.add_argument(
        "--check", action="store_true", help="rehearse: say what would run and what it costs, train nothing"
    )
    result.add_argument(
        "--list", action="store_true", help="list models, data sets, and stages with their keys"
    )
    auto = result.add_argument_group("search the settings (docs/auto.md)")
    auto.add_argument(
        "--auto",
        action="store_true",
        help="search the chain's settings instead of running those of the recipe",
    )
    auto.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="fewest BitOps with at most so many points of held-out accuracy below the original",
    )
    auto.add_argument(
        "--target-bitopscr",
        type=float,
        metavar="RATIO",
        help="best held-out accuracy at this BitOpsCR or above",
    )
    auto.add_argument(
        "--budget-epochs",
        type=int,
        metavar="N",
        help="epochs to train in all (default: 20 times the recipe's)",
    )
    auto.add_argument("--seed", type=int, metavar="N", help="of the search (default: the recipe's)")
    return result


def row(record: dict[str, Any]) -> str:
    """One stage as a line of the table on screen."""
    quality = f"{record['accuracy']:>9.2f}%" if record["accuracy"] is not None else _errors(record)
    shares = " ".join(f"{share:.0%}" for share in record["exit_share"]) if record["thresholds"] else "-"
    return (
        f"{record['stage']:<10}{record['model']:<10}{record['bits']:>7}{quality}"
        f"{record['bitops_cr']:>9.1f}x{record['bitops_cr_uniform']:>8.1f}x{record['cr']:>7.1f}x"
        f"{record['seconds']:>8.0f}s  {shares}"
    )


def _errors(record: dict[str, Any]) -> str:
    return f"{record['mae']:>10.4f}{record['r2']:>9.4f}"


def show(record: dict[str, Any]) -> None:
    """Print a stage's line, the first one under the table's head."""
    if record["stage"] == "original":
        print(NUMBER_COLUMNS if record["accuracy"] is None else COLUMNS)
    print(row(record), flush=True)


def list_all() -> None:
    """Print what a recipe can name: models, data sets, and the stages with their keys and defaults."""
    from coc_runtime import datasets

    from . import models
    from .listing import stages

    print("models:")
    for names, description in models.listing():
        print(f"  {names}\n       {description}")
    print(f"data:   {datasets.SPECS}\nstages:")
    for stage in stages():
        print(f"  {stage.letter}  [{stage.section}]  {stage.summary}")
        for key, default in stage.keys:
            print(f"       {key} = {default}")


def show_plan(records: list[dict[str, Any]]) -> None:
    """Print what would run, a line per stage."""
    print(
        f"{'stage':<10}{'section':<12}{'model':<12}{'bits':>7}{'exits':>6}{'MACs':>16}{'BitOps':>20}", end=""
    )
    print(f"{'BitOpsCR':>10}{'CR':>8}{'epochs':>8}{'steps':>9}")
    for record in records:
        print(
            f"{record['stage']:<10}{'[' + record['section'] + ']':<12}{record['model']:<12}"
            f"{record['bits']:>7}{record['exits']:>6}{record['macs']:>16,}{record['bitops']:>20,}"
            f"{record['bitops_cr']:>9.1f}x{record['cr']:>7.1f}x{record['epochs']:>8}{record['steps']:>9,}"
        )
    epochs, steps = (sum(record[key] for record in records) for key in ("epochs", "steps"))
    print(f"{epochs:,} epochs, {steps:,} steps in all; costs are those of images that pass every exit")


def _refuse_without_auto(options: argparse.Namespace) -> None:
    for name in ("max_drop", "target_bitopscr", "budget_epochs", "seed"):
        if not options.auto and getattr(options, name) is not None:
            raise CocError(f"--{name.replace('_', '-')} is for --auto")


def _search() -> Any:
    """The command of --auto, which belongs to a package above this one: a plain run imports nothing of it."""
    try:
        return importlib.import_module(SEARCH)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != SEARCH.partition(".")[0]:
            raise
        raise CocError(
            "--auto needs coc_study, which is not installed: pip install 'coc-deploy[auto]'"
        ) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 on success, 2 with one line on stderr when the input is wrong, 130 when interrupted."""
    stopped = "the same command continues from the last finished epoch"
    return command.run("coc-compress", _main, arguments, extra="compile", stopped=stopped)


def _main(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    if not options.list and options.recipe is None:
        raise CocError("which recipe? coc-compress recipe.toml --out RUN (or --list)")
    if not options.list and not options.check and options.out is None:
        raise CocError("--out RUN is missing: the folder of the run (or --check)")
    if options.reuse is not None:
        raise CocError(f"--reuse is now --store: --store {options.reuse / 'stages'}")
    _refuse_without_auto(options)
    import torch

    from . import chain, recipe

    if options.list:
        list_all()
        return 0
    if options.threads is not None:
        if options.threads < 1:
            raise CocError(f"--threads {options.threads}: must be at least 1")
        torch.set_num_threads(options.threads)
    if options.auto:
        return int(_search().run(options))
    chosen = recipe.load(options.recipe, options.set)
    if options.check:
        show_plan(chain.plan(chosen, chain.Data.load(chosen.data)))
        return 0
    chain.run(chosen, options.out, show, options.store, options.same_code)
    print(one_line(f"wrote {options.out / 'model.pt'}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
