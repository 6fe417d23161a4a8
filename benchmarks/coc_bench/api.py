"""What `coc-bench` does, for programs: `measure(artifact, data=...)` gives the report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal


def measure(
    *artifacts: str | Path,
    data: str | None = None,
    backends: Sequence[str] = ("auto",),
    thresholds: Sequence[float] | None = None,
    original: str | Path | None = None,
    int8_of: str | Path | None = None,
    peers: str | None = None,
    limit: int | None = None,
    rounds: int = 300,
    batch: int = 64,
    threads: int = 1,
    cpus: Sequence[int] | Literal["any"] | None = None,
) -> dict[str, Any]:
    """Measure artifacts side by side on this machine; the report that `coc-bench --json` writes.

    artifacts: .onnx and .coc files. data: a data set whose test images are run; without one images are
    random, and latency alone is measured. backends: of the artifacts, each of those that run it. thresholds:
    one per early exit instead of the files'. original, int8_of: float ONNX files, timed as they are and as
    int8 of ONNX Runtime; peers: other engines that run them, separated by commas, or "all". limit: of test
    images. rounds: timed runs at batch 1. batch: images a call for images/s. cpus: to run on; by default the
    last ones, one a thread; "any" leaves the choice to the system.
    `report["runs"]` has an entry per model and back end with `accuracy`, `latency_us`, `images_per_s`,
    `exit_share`, `expected_bitops`, `bitops_cr`, `cr`, `file_bytes` and more (docs/benchmark.md).
    Raises CocError for a file, a back end or data that cannot be measured.
    """
    from . import bench
    from .data import RANDOM
    from .peers import Wanted, parse_engines
    from .rounds import choose_cpus

    given = [None if path is None else Path(path) for path in (original, int8_of)]
    chosen = None if cpus == "any" else tuple(cpus) if cpus else choose_cpus(threads)
    return bench.run(
        bench.Plan(
            artifacts=tuple(Path(path) for path in artifacts),
            data=data or RANDOM,
            backends=tuple(backends),
            thresholds=None if thresholds is None else tuple(thresholds),
            peers=Wanted(parse_engines(peers), given[0], given[1], threads),
            limit=limit,
            rounds=rounds,
            batch=batch,
            threads=threads,
            cpus=chosen,
        )
    )
