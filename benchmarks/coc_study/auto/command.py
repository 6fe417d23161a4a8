"""coc-compress --auto: its options checked, the search run, what it found told."""

import argparse
import os
from pathlib import Path

from coc_deploy import chain, locking
from coc_deploy.store import Store
from coc_runtime.errors import CocError
from coc_runtime.text import one_line

from . import result, search
from .goal import Kind
from .search import Found, Wanted
from .space import Space, load


def run(options: argparse.Namespace) -> int:
    """0 where the goal was met, 1 with the nearest result where nothing met it."""
    kind, amount = _goal(options)
    chosen, space = load(options.recipe, options.set)
    budget = options.budget_epochs
    if budget is None:
        budget = search.default_budget(chosen)
    elif budget < 1:
        raise CocError(f"--budget-epochs {budget}: must be at least 1")
    if space.size == 1:
        raise CocError(
            f"{options.recipe}: nothing to search: give an [auto] table, e.g. p.ratio = [0.25, 0.5]"
        )
    if options.check:
        chain.rehearse(chosen, chain.start(chosen, chain.Data.load(chosen.data)))
        print("\n".join([*space.lines(), f"budget: {budget:,} epochs"]))
        return 0
    search.load_optuna()
    seed = chosen.seed if options.seed is None else options.seed
    wanted = Wanted(kind, amount, budget, seed, options.threads)
    with locking.hold(options.out):
        store = Store.of(options.out, options.store)
        store.make()
        return _search(space, wanted, options.out, store)


def _goal(options: argparse.Namespace) -> tuple[Kind, float]:
    drop, ratio = options.max_drop, options.target_bitopscr
    if (drop is None) == (ratio is None):
        which = "both are given" if drop is not None else "neither is given"
        raise CocError(f"--auto: {which}: choose --max-drop POINTS or --target-bitopscr RATIO")
    if drop is not None and not 0 <= drop <= 100:
        raise CocError(f"--max-drop {drop:g}: points of accuracy, 0 to 100")
    if ratio is not None and not 0 < ratio < float("inf"):
        raise CocError(f"--target-bitopscr {ratio:g}: a number above 0")
    if options.seed is not None and not 0 <= options.seed < 2**31:
        raise CocError(f"--seed {options.seed}: 0 to 2147483647")
    if options.same_code:
        raise CocError("--same-code is not for --auto")
    if options.out is not None and (options.out / "auto").is_dir():
        raise CocError(
            f"{options.out}: a search of an older coc-deploy, whose stages lie in auto: choose another --out"
        )
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise CocError("--auto under torchrun: every process would search; start it once, without torchrun")
    return (Kind.MAX_DROP, drop) if drop is not None else (Kind.TARGET, ratio)


def _search(space: Space, wanted: Wanted, out: Path, store: Store) -> int:
    searching = search.Search(
        space, wanted, out, store, lambda line: print(line, flush=True), lambda found: result.draw(out, found)
    )
    found = searching.go()
    compared = result.write(out, space, found, store, searching.data)
    searching.finish(compared)
    print(f"the search ended: {found.why}; {len(found.trials)} settings, {found.epochs} epochs")
    for name, row in compared["compared"].items():
        print(
            f"{name + ':':<9}held-out {row['held_out_accuracy']:.2f} % at {row['held_out_bitops_cr']:.1f}x, "
            f"test {row['test_accuracy']:.2f} % (original {row['test_original_accuracy']:.2f} %) at "
            f"{row['test_bitops_cr']:.1f}x"
        )
    model = one_line(str(out / result.MODEL))
    print(f"wrote {model}, {result.RECIPE}, auto.json, {result.PICTURE}, {result.REPORT}")
    if not compared["met"]:
        print(_missed(found))
        return 1
    return 0


def _missed(found: Found) -> str:
    assert found.best.chosen is not None
    point = found.best.chosen.point
    return (
        f"nothing met the goal ({result.goal_text(found)}): the nearest has {point.accuracy:.2f} % at "
        f"{point.bitops_cr:.1f}x, its loss with a standard error of {point.error:.2f} points; "
        "try more epochs, other settings in [auto], a milder goal, or more data"
    )
