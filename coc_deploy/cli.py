"""coc-compress: run a recipe's chain and leave the compressed model in a folder."""

import argparse
import sys
from pathlib import Path
from typing import Any

from coc_runtime.errors import CocError

COLUMNS = "stage     model        bits  accuracy  BitOpsCR  uniform      CR     time  exits"


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="coc-compress", description=__doc__)
    result.add_argument("recipe", type=Path, help="recipe.toml: chain, data, and a section per stage")
    result.add_argument(
        "--out", type=Path, required=True, metavar="RUN", help="folder of the run; continued if it exists"
    )
    result.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, e.g. --set q.bits=4x8",
    )
    result.add_argument(
        "--reuse", type=Path, metavar="RUN", help="take finished stages of equal recipe from another run"
    )
    result.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    return result


def row(record: dict[str, Any]) -> str:
    """One stage as a line of the table on screen."""
    shares = " ".join(f"{share:.0%}" for share in record["exit_share"]) if record["thresholds"] else "-"
    return (
        f"{record['stage']:<10}{record['model']:<10}{record['bits']:>7}{record['accuracy']:>9.2f}%"
        f"{record['bitops_cr']:>9.1f}x{record['bitops_cr_uniform']:>8.1f}x{record['cr']:>7.1f}x"
        f"{record['seconds']:>8.0f}s  {shares}"
    )


def show(record: dict[str, Any]) -> None:
    """Print a stage's line, the first one under the table's head."""
    if record["stage"] == "original":
        print(COLUMNS)
    print(row(record), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 on success, 2 with one line on stderr when the input is wrong, 130 when interrupted."""
    options = parser().parse_args(arguments)
    try:
        import torch

        from . import chain, recipe

        if options.threads is not None:
            if options.threads < 1:
                raise CocError(f"--threads {options.threads}: must be at least 1")
            torch.set_num_threads(options.threads)
        chosen = recipe.load(options.recipe, options.set)
        chain.run(chosen, options.out, options.reuse, show)
        print(f"wrote {options.out / 'model.pt'}")
    except CocError as error:
        print(f"coc-compress: error: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        print(
            f"coc-compress: error: {error.name} is missing: pip install 'coc-deploy[compile]'",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(
            "coc-compress: stopped; the same command continues from the last finished epoch", file=sys.stderr
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
