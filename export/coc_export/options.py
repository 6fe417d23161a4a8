"""The command line of coc-export: what was asked for, with everything that can be checked without a model."""

import argparse
import enum
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coc_runtime import command
from coc_runtime.errors import CocError
from coc_runtime.onnxfile import IR_VERSIONS

CONFIDENCE = 0.9
"""The confidence in a bound on the loss, unless told otherwise."""
MICROSECONDS = {"us": 1, "ms": 1_000, "s": 1_000_000}


class BudgetKind(enum.Enum):
    """What may be spent; the option's name."""

    MAX_DROP = "--max-drop"
    """Points of accuracy below the last exit; of a regression percent of its error above it."""
    MAX_LATENCY = "--max-latency"
    """Mean microseconds an image, one at a time on one thread."""
    BITOPS = "--bitops"
    """Mean BitOps an image."""


@dataclass(frozen=True)
class Budget:
    """One of the three."""

    kind: BudgetKind
    value: float
    """in the units of its kind"""
    text: str
    """as given"""

    def __str__(self) -> str:
        return f"{self.kind.value} {self.text}"


@dataclass(frozen=True)
class Choosing:
    """Thresholds to be chosen on the held-out images of some data."""

    data: str
    budget: Budget
    confidence: float
    """in the loss that is promised, or reported"""


@dataclass(frozen=True)
class Export:
    """Write artifacts."""

    model: Path
    outs: tuple[Path, ...]
    split: Path | None
    data: str | None
    images: int | None
    allow_mismatch: bool
    opset: int | None
    sizes: bool
    layers: bool
    choosing: Choosing | None
    thresholds: tuple[float, ...] | None


@dataclass(frozen=True)
class FloatExport:
    """Write an unquantized model for comparison."""

    model: Path
    out: Path


@dataclass(frozen=True)
class Verify:
    """Repeat the parity check of artifacts."""

    artifacts: tuple[Path, ...]
    data: str | None
    images: int | None


def parser() -> argparse.ArgumentParser:
    result = command.Parser(
        prog="coc-export",
        description="Write a compressed model as an .onnx file, a .coc file or both: the same integers. "
        "docs/export.md explains parity, budgets and reports.",
    )
    result.add_argument(
        "model", type=Path, nargs="?", metavar="IN", help="model.pt of coc-compress, or an .onnx or .coc file"
    )
    result.add_argument(
        "--out",
        type=Path,
        action="append",
        default=[],
        metavar="MODEL.onnx|MODEL.coc",
        help="file to write, ONNX or packed for the native runtime; give it twice for both. Reports go "
        "beside them, MODEL.report.json and MODEL.coc.report.json, and a model card, MODEL.md",
    )
    result.add_argument("--split", type=Path, metavar="DIR", help="also write one ONNX file per segment")
    result.add_argument(
        "--opset",
        metavar="N",
        help=f"of the ONNX files, {min(IR_VERSIONS)} to {max(IR_VERSIONS)} (default: 21, or that of IN)",
    )
    result.add_argument(
        "--float", action="store_true", help="export an unquantized model as float ONNX (for comparison)"
    )
    result.add_argument("--sizes", action="store_true", help="print the bytes of every layer")
    result.add_argument(
        "--layers", action="store_true", help="measure and show where time goes layer by layer"
    )
    _add_checks(result)
    _add_thresholds(result)
    return result


def _add_checks(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("parity")
    group.add_argument(
        "--data",
        metavar="SPEC",
        help="also compare on the test images of a data set, and measure quality, exits and BitOps on them; "
        "without, images are those that model.pt carries and generated ones",
    )
    group.add_argument("--images", metavar="N", help="use the first N images of each kind only")
    group.add_argument(
        "--allow-mismatch", action="store_true", help="keep the file although back ends differ, and say so"
    )
    group.add_argument(
        "--verify",
        type=Path,
        nargs="+",
        default=[],
        metavar="ARTIFACT",
        help="write nothing; repeat the check of these .onnx and .coc files here, against each other and "
        "against the reports beside them. Exit code 1: they differ",
    )


def _add_thresholds(result: argparse.ArgumentParser) -> None:
    group = result.add_argument_group("where images leave (one budget goes with --choose-on)")
    group.add_argument(
        "--choose-on",
        "--calibrate",
        metavar="DATA",
        help="choose thresholds on the held-out images of DATA (--calibrate is the older name)",
    )
    group.add_argument(
        "--max-drop",
        metavar="POINTS",
        help="of accuracy below the last exit on new images, as few BitOps as that allows; of a regression "
        "percent of mean absolute error",
    )
    group.add_argument(
        "--confidence",
        metavar="C",
        help=f"that the loss on new images is within --max-drop, or the bound that is reported "
        f"(default: {CONFIDENCE})",
    )
    group.add_argument(
        "--max-latency",
        metavar="TIME",
        help="mean time of an image, e.g. 1.5ms or 800us, measured here: as accurate as that allows",
    )
    group.add_argument("--bitops", metavar="N", help="mean BitOps of an image, e.g. 2e7: likewise")
    group.add_argument("--thresholds", metavar="A,B", help="one per early exit, set by hand")


def parse(arguments: Sequence[str] | None = None) -> Export | FloatExport | Verify:
    """What a command line asks for; CocError where it contradicts itself."""
    options = parser().parse_args(arguments)
    if options.verify:
        return _verify(options)
    if options.model is None:
        raise CocError("give IN, a model.pt, an .onnx or a .coc file, or --verify")
    if not options.out:
        raise CocError("give --out MODEL.onnx, --out MODEL.coc or both")
    for out in options.out:
        _check_out(out, options)
    if len({out.suffix for out in options.out}) < len(options.out):
        raise CocError("--out can be given twice only for one .onnx and one .coc file")
    if options.float:
        _refuse(options, "--float", ("choose_on", "thresholds", "opset", "sizes", "layers", "split"))
        return FloatExport(options.model, options.out[0])
    return Export(
        model=options.model,
        outs=tuple(options.out),
        split=options.split,
        data=options.data,
        images=_count(options.images),
        allow_mismatch=options.allow_mismatch,
        opset=_opset(options),
        sizes=options.sizes,
        layers=options.layers,
        choosing=_choosing(options),
        thresholds=_thresholds(options.thresholds),
    )


def _verify(options: argparse.Namespace) -> Verify:
    if options.model is not None:
        raise CocError(f"{options.model}: --verify takes the files to check itself and no IN")
    others = (
        "out",
        "split",
        "float",
        "opset",
        "sizes",
        "layers",
        "allow_mismatch",
        "choose_on",
        "confidence",
        "thresholds",
    )
    _refuse(options, "--verify", (*others, *(_attribute(kind) for kind in BudgetKind)))
    return Verify(tuple(options.verify), options.data, _count(options.images))


def _refuse(options: argparse.Namespace, name: str, others: Sequence[str]) -> None:
    """Raise CocError if an option is given that has no meaning beside option `name`."""
    for other in others:
        if getattr(options, other):
            raise CocError(f"--{other.replace('_', '-')} does not go with {name}: leave one of them out")


def _check_out(out: Path, options: argparse.Namespace) -> None:
    """Raise CocError unless a file can be written there, of a kind that the other options allow."""
    if not out.parent.is_dir():
        raise CocError(f"{out.parent}: no such folder; create it first")
    artifact = out.suffix in (".onnx", ".coc")  # may be written anew in place
    if not artifact and out.exists() and options.model.exists() and out.samefile(options.model):
        raise CocError(f"--out {out} is the model itself; choose another file")
    if out.is_dir():
        raise CocError(f"{out}: cannot be written (it is a folder): choose another place")
    if not artifact:
        raise CocError(f"--out {out}: the name must end in .onnx or .coc")
    onnx_too = any(other.suffix == ".onnx" for other in options.out)
    if out.suffix == ".coc" and (options.float or (options.split and not onnx_too)):
        option = "--float" if options.float else "--split"
        raise CocError(f"{option} writes ONNX only: give --out {out.with_suffix('.onnx')}")


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,12}", text) or int(text) < 1:
        raise CocError(f"--images {text}: must be at least 1")
    return int(text)


def _opset(options: argparse.Namespace) -> int | None:
    text: str | None = options.opset
    if text is None:
        return None
    if all(out.suffix == ".coc" for out in options.out):
        raise CocError("--opset is a matter of ONNX files: give --out MODEL.onnx too, or leave it out")
    if not re.fullmatch(r"\d{1,4}", text) or int(text) not in IR_VERSIONS:
        raise CocError(f"--opset {text}: choose one of {min(IR_VERSIONS)} to {max(IR_VERSIONS)}")
    return int(text)


def _choosing(options: argparse.Namespace) -> Choosing | None:
    given = [kind for kind in BudgetKind if getattr(options, _attribute(kind)) is not None]
    names = ", ".join(kind.value for kind in given)
    if options.choose_on is None:
        if given or options.confidence is not None:
            names = names or "--confidence"
            raise CocError(f"{names} needs --choose-on DATA, on whose held-out images thresholds are chosen")
        return None
    if options.thresholds is not None:
        raise CocError("--choose-on chooses thresholds and --thresholds sets them: leave one of them out")
    if len(given) != 1:
        found = f"{names} given" if given else "none given"
        kinds = ", ".join(kind.value for kind in BudgetKind)
        raise CocError(f"--choose-on needs exactly one budget of {kinds}: {found}")
    budget = _budget(given[0], getattr(options, _attribute(given[0])))
    return Choosing(options.choose_on, budget, _confidence(options.confidence))


def _confidence(text: str | None) -> float:
    if text is None:
        return CONFIDENCE
    if not re.fullmatch(r"0?\.\d{1,9}", text) or float(text) < 0.5:
        raise CocError(f"--confidence {text}: must be a number from 0.5 to below 1, e.g. 0.9")
    return float(text)


def _attribute(kind: BudgetKind) -> str:
    return kind.value[2:].replace("-", "_")


def _budget(kind: BudgetKind, text: str) -> Budget:
    number, unit = text, ""
    if kind is BudgetKind.MAX_LATENCY:
        found = re.fullmatch(r"(.*?)(us|ms|s)", text)
        if found is None:
            raise CocError(f"{kind.value} {text}: give a time with its unit, e.g. 1.5ms or 800us")
        number, unit = found.groups()
    try:
        value = float(number) * MICROSECONDS.get(unit, 1)
    except ValueError:
        value = math.nan
    least = "0 or more" if kind is BudgetKind.MAX_DROP else "above 0"
    if not (math.isfinite(value) and (value > 0 or (value == 0 and kind is BudgetKind.MAX_DROP))):
        raise CocError(f"{kind.value} {text}: must be a number {least}")
    return Budget(kind, value, text)


def _thresholds(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise CocError(f"--thresholds {text}: give one number per early exit, e.g. 0.8,0.9") from None
