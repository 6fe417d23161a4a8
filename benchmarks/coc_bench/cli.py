"""coc-bench: quality, latency, cost and size of artifacts and their peers, measured on this machine."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coc_runtime import command, files
from coc_runtime.errors import CocError

from .api import measure

SLOWER = 1
LEFT_ALONE = (
    "artifacts",
    "data",
    "original",
    "int8_of",
    "peers",
    "backend",
    "thresholds",
    "json",
    "limit",
    "cpu",
)
"""Options that belong to a measurement, and to neither --from nor --compare."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, 1 where --fail-if-slower fails, or 2 for a user's mistake, told in one line."""
    return command.run("coc-bench", _main, arguments, extra="peers")


def _main(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    _check(options)
    if options.compare:
        old, new = options.compare
        with _told_of(old, new):
            return _compare(old, new, options.fail_if_slower)
    if options.earlier:
        from . import bench_report

        with _told_of(options.earlier):
            _show(bench_report.read(options.earlier), options)
    else:
        _show(_measure(options), options)
    return 0


@contextmanager
def _told_of(*reports: Path) -> Iterator[None]:
    """What goes wrong for want of a part of reports that were read, as an error that names them."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        named = " or ".join(str(path) for path in reports)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise CocError(
            f"{named}: is no whole report ({text}): give a file as coc-bench --json wrote it"
        ) from error


def _show(found: dict[str, Any], options: argparse.Namespace) -> None:
    """The report in the files that were asked for, then on screen."""
    from . import tables

    if options.json is not None:
        files.write_json(options.json, found)
    summary = tables.summary(found)
    if options.html is not None:
        from . import page

        page.write(options.html, found)
    print(summary)


def _parser() -> argparse.ArgumentParser:
    parser = command.Parser(
        prog="coc-bench",
        description=__doc__,
        usage="coc-bench MODEL [MODEL ...] --data SPEC [options]\n"
        "       coc-bench --from REPORT.json [--html PAGE.html]\n"
        "       coc-bench --compare OLD.json NEW.json [--fail-if-slower 5%%]",
    )
    parser.add_argument(
        "artifacts", nargs="*", type=Path, metavar="MODEL", help="compressed models, .onnx or .coc"
    )
    parser.add_argument(
        "--data",
        metavar="SPEC",
        help="test images: digits, cifar10[:PATH], imagefolder:PATH or others of coc-compress; without, or "
        "with random, images are random: latency is measured, accuracy is not",
    )
    _add_measurement(parser.add_argument_group("what is measured, and how"))
    _add_peers(parser.add_argument_group("peers"))
    group = parser.add_argument_group("reports")
    group.add_argument("--json", type=Path, metavar="OUT.json", help="write the report here")
    group.add_argument("--html", type=Path, metavar="PAGE.html", help="write the report as one page")
    group.add_argument(
        "--from",
        dest="earlier",
        type=Path,
        metavar="REPORT.json",
        help="show an earlier report; no measuring",
    )
    group.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OLD.json", "NEW.json"), help="tell what changed"
    )
    group.add_argument(
        "--fail-if-slower",
        type=_percent,
        metavar="P%",
        help="exit with 1 if a mean latency of NEW is slower for certain, and by more than this",
    )
    return parser


def _add_measurement(group: Any) -> None:
    group.add_argument(
        "--threads", type=_positive, default=1, metavar="N", help="of each back end and engine; default: 1"
    )
    group.add_argument(
        "--cpu",
        type=_cpus,
        metavar="LIST",
        help='CPUs to run on, e.g. 3 or 0,2-3, or "any"; default: the last ones, one a thread',
    )
    group.add_argument(
        "--backend",
        action="append",
        metavar="NAME",
        help="auto (default), native (runs .coc), onnxruntime (runs .onnx) or reference; repeat to compare "
        "several, each on the artifacts that it runs",
    )
    group.add_argument("--limit", type=_positive, metavar="N", help="use N images of the test split")
    group.add_argument(
        "--rounds", type=_positive, default=300, metavar="R", help="timed runs at batch 1; default: 300"
    )
    group.add_argument(
        "--batch", type=_positive, default=64, metavar="B", help="images a call for images/s; default: 64"
    )
    group.add_argument(
        "--thresholds", type=_thresholds, metavar="A,B", help="of the early exits, instead of the files' own"
    )


def _add_peers(group: Any) -> None:
    group.add_argument(
        "--original", type=Path, metavar="FLOAT.onnx", help="the float model, timed beside the artifacts"
    )
    group.add_argument(
        "--int8-of",
        type=Path,
        metavar="FLOAT.onnx",
        help="a float model that ONNX Runtime quantizes to int8 here, timed beside the artifacts",
    )
    group.add_argument(
        "--peers",
        metavar="LIST",
        help="other engines, e.g. openvino,mnn, or all: they run --original in float and --int8-of (else "
        "--original) in int8; the report says why one is missing",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def _thresholds(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers like 0.9,0.8") from error


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage like 5%")
    return value


def _cpus(text: str) -> tuple[int, ...] | str:
    from .rounds import parse_cpus

    try:
        return parse_cpus(text) or text
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of CPUs like 0,2-3") from error


def _check(options: argparse.Namespace) -> None:
    """CocError for options that contradict each other or lack another."""
    reading = "--compare" if options.compare else "--from" if options.earlier else None
    if options.compare and options.earlier:
        raise CocError("--compare and --from are two things: give one of them")
    if reading:
        extra = [name for name in LEFT_ALONE if getattr(options, name)]
        if extra:
            name = "a MODEL" if extra[0] == "artifacts" else f"--{extra[0].replace('_', '-')}"
            raise CocError(f"{reading} measures nothing, so {name} does not go with it")
    if options.compare and options.html:
        raise CocError("--compare has no page: leave --html out")
    if options.fail_if_slower is not None and not options.compare:
        raise CocError("--fail-if-slower needs --compare OLD.json NEW.json")
    if reading:
        return
    if not options.artifacts:
        raise CocError("no model is named: give a .onnx or .coc file that coc-export wrote")
    if options.peers is not None and options.original is None and options.int8_of is None:
        raise CocError(
            "--peers needs the float model: add --original FLOAT.onnx (coc-export --float writes it)"
        )


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    for path in (options.json, options.html):
        if path is not None:
            files.make_folder(path.parent)
            if path.is_dir():
                raise CocError(f"{path}: is a folder: name a file in it")
    return measure(
        *options.artifacts,
        data=options.data,
        backends=options.backend or ["auto"],
        thresholds=options.thresholds,
        original=options.original,
        int8_of=options.int8_of,
        peers=options.peers,
        limit=options.limit,
        rounds=options.rounds,
        batch=options.batch,
        threads=options.threads,
        cpus=options.cpu,
    )


def _compare(old: Path, new: Path, limit: float | None) -> int:
    from . import bench_report, comparison

    found = comparison.compare(bench_report.read(old), bench_report.read(new))
    if not found.pairs:
        raise CocError(
            f"{old} and {new} measure nothing in common: artifact, back end and data must be alike"
        )
    print(comparison.text(found))
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    failed = [] if limit is None else comparison.failures(found, limit)
    for line in failed:
        print(f"coc-bench: {line}", file=sys.stderr)
    return SLOWER if failed else 0
