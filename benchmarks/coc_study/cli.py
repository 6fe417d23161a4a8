"""coc-study: measure which order of the compression techniques is best."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from coc_runtime import command
from coc_runtime.errors import CocError
from coc_runtime.text import one_line

from . import KINDS


def parser() -> argparse.ArgumentParser:
    result = command.Parser(prog="coc-study", description=__doc__)
    result.add_argument(
        "kind",
        choices=(*KINDS, "all"),
        help="pairs: both orders of two; insert: a third between them; sequences: orders of all; "
        "repeat: a technique again",
    )
    result.add_argument("study", type=Path, help="STUDY.toml: a recipe with a [study] section")
    result.add_argument("--out", type=Path, metavar="DIR", help="folder of the study; continued if it exists")
    result.add_argument(
        "--plan", action="store_true", help="say what would run and what it costs, run nothing"
    )
    result.add_argument(
        "--images-per-second",
        action="append",
        default=[],
        metavar="MODEL=RATE",
        help="pace of training that --plan counts hours with; again for other models",
    )
    result.add_argument(
        "--workers", type=int, default=0, metavar="N", help="run on N processes of this machine"
    )
    result.add_argument(
        "--scheduler", default="", metavar="ADDRESS", help="run on a dask cluster, e.g. tcp://10.0.0.1:8786"
    )
    result.add_argument("--threads", type=int, metavar="N", help="CPU threads of each process (default: all)")
    result.add_argument(
        "--same-code",
        action="store_true",
        help="take stages over that an older version of the code computed, instead of computing them again",
    )
    result.add_argument(
        "--store",
        type=Path,
        metavar="STAGES",
        help="folder of stages that runs, studies and searches share (default: DIR/stages)",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 on success, 1 if cases failed, 2 with one line on stderr when the input is wrong, 130
    when interrupted."""
    stopped = "the same command continues from the last finished epoch"
    return command.run("coc-study", _main, arguments, extra="compile", stopped=stopped)


def _main(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    _check(options)
    import torch

    from . import conclude, executor, plan, run, settings

    study = settings.load(options.study)
    kinds = KINDS if options.kind == "all" else (options.kind,)
    if options.plan:
        pace = {**study.images_per_s, **_pace(options.images_per_second)}
        made = plan.make(study, kinds, options.out, pace, options.same_code, options.store)
        print("\n".join(plan.lines(made, pace, options.workers)))
        return 0
    threads = options.threads or (_share(options.workers) if options.workers else None)
    if threads is not None:
        torch.set_num_threads(threads)
    where = executor.Where(options.workers, options.scheduler, study.resources)
    chosen = run.Options(where, threads, options.same_code, options.store)
    summary = run.run(study, kinds, options.out, chosen, lambda line: print(line, flush=True))
    print(summary.text)
    for chain, setting, error in summary.failures:
        print(f"failed: {chain} {setting}: {error}")
    print(one_line(f"wrote {options.out / 'study.sqlite'}"))
    print(conclude.write(options.out, options.store))
    return 1 if summary.failures else 0


def _check(options: argparse.Namespace) -> None:
    if not options.plan and options.out is None:
        raise CocError("--out DIR is missing: the folder of the study (or --plan)")
    if options.workers < 0:
        raise CocError(f"--workers {options.workers}: must be at least 1")
    if options.workers and options.scheduler:
        raise CocError("--workers and --scheduler: choose one, processes of this machine or another cluster")
    if options.threads is not None and options.threads < 1:
        raise CocError(f"--threads {options.threads}: must be at least 1")
    if options.images_per_second and not options.plan:
        raise CocError("--images-per-second is for --plan")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise CocError("under torchrun every process would run the study: use --workers or --scheduler")


def _share(workers: int) -> int:
    """Threads for each of several processes."""
    return max(1, (os.cpu_count() or 1) // workers)


def _pace(rates: list[str]) -> dict[str, float]:
    result = {}
    for text in rates:
        model, _, rate = text.partition("=")
        try:
            result[model] = float(rate)
        except ValueError:
            result[model] = 0.0
        if not 0 < result[model] < float("inf"):
            raise CocError(f"--images-per-second {text}: expected MODEL=RATE, e.g. resnet20=600")
    return result


if __name__ == "__main__":
    sys.exit(main())
