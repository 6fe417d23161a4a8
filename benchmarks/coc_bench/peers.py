"""Peers: the float models that the artifacts are measured against, and why one of them is missing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from coc_runtime.errors import CocError
from coc_runtime.text import encodable

from .convert import convert
from .data import Images
from .engines import CANNOT, ENGINES
from .engines.base import Job
from .engines.ort_int8 import quantize_int8
from .footprint import try_out
from .opening import open_runner
from .subjects import Kind, Precision, Subject

ALL = "all"
CALIBRATION_IMAGES = 128
"""Engines other than ONNX Runtime are calibrated on so many images: a minute of their quantizers."""
SEED = 3


@dataclass(frozen=True)
class Wanted:
    """What was asked for."""

    engines: tuple[str, ...]
    """names of ENGINES and CANNOT"""
    original: Path | None
    """the float model"""
    int8_of: Path | None
    """the float model to quantize"""
    threads: int


@dataclass
class Peers:
    subjects: list[Subject] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)
    """{"peer": engine and precision, "reason": one line}"""

    def attempt(self, name: str, make: Callable[[], Subject]) -> None:
        """Add a peer, or why there is none."""
        try:
            self.subjects.append(make())
        except CocError as error:
            self.missing.append({"peer": name, "reason": str(error)})


def parse_engines(text: str | None) -> tuple[str, ...]:
    """Names of ENGINES and CANNOT from "all" or a list like "openvino,mnn"; CocError for others."""
    if text is None:
        return ()
    known = [*ENGINES, *CANNOT]
    names = known if text == ALL else [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise CocError(f"--peers: there is no {name!r}: choose {ALL} or some of {', '.join(known)}")
    return tuple(dict.fromkeys(names))


@dataclass(frozen=True, eq=False)
class Workshop:
    """What peers are made of."""

    wanted: Wanted
    names: dict[Path, str]
    """what the report calls the float models"""
    folder: Path
    """for what is made"""
    test: Images
    calibration: Images
    """to quantize with"""

    def original(self, path: Path) -> Subject:
        """A float model in ONNX Runtime."""
        return Subject(
            self.names[path],
            path,
            Kind.ORIGINAL,
            "onnxruntime",
            self.wanted.threads,
            settings={"graph_optimizations": "all"},
            task=self.test.task,
            precision=Precision.FLOAT,
        )

    def int8(self, path: Path) -> Subject:
        """A float model quantized by ONNX Runtime."""
        return quantize_int8(self.original(path), self.folder / "onnxruntime-int8", self.calibration)

    def converted(self, engine: str, precision: Precision, path: Path) -> Subject:
        """A float model as another engine runs it, tried out in a process of its own: engines crash."""
        order = np.random.default_rng(SEED).permutation(len(self.calibration.images))
        images = self.calibration.images[order[:CALIBRATION_IMAGES]]
        made = convert(engine, Job(path, precision, self.folder / f"{engine}-{precision.value}", images))
        subject = Subject(
            self.names[path] + (" (int8)" if precision is Precision.INT8 else ""),
            made.path,
            Kind.PEER,
            engine,
            self.wanted.threads,
            settings=made.settings,
            task=self.test.task,
            precision=precision,
            image_shape=tuple(self.test.images.shape[1:]),
        )
        try_out(subject, self.test.images[:1])
        return subject


def with_plain_names(wanted: Wanted, folder: Path) -> Wanted:
    """The same with links to float models whose paths are not UTF-8, which engines cannot open."""

    def plain(path: Path | None, name: str) -> Path | None:
        if path is None or encodable(str(path)) == str(path):
            return path
        link = folder / name
        link.symlink_to(path.resolve())
        return link

    original, int8_of = plain(wanted.original, "original.onnx"), plain(wanted.int8_of, "int8-of.onnx")
    return replace(wanted, original=original, int8_of=int8_of)


def check(wanted: Wanted) -> None:
    """CocError where a float model that was named cannot be loaded."""
    for path in sources(wanted):
        open_runner(Subject(path.name, path, Kind.ORIGINAL, "onnxruntime", wanted.threads))


def prepare(shop: Workshop) -> Peers:
    """Convert, quantize and try out the peers.

    Raises CocError where --original or --int8-of itself cannot be run; what an engine cannot run is listed
    with the reason.
    """
    wanted = shop.wanted
    floating, quantized = wanted.original or wanted.int8_of, wanted.int8_of or wanted.original
    if floating is None or quantized is None:
        return Peers()
    peers = Peers()
    if wanted.original is not None:
        peers.subjects.append(shop.original(wanted.original))
    if wanted.int8_of is not None:
        peers.subjects.append(shop.int8(wanted.int8_of))
    elif "onnxruntime" in wanted.engines:
        peers.attempt("onnxruntime int8", partial(shop.int8, quantized))
    for name in wanted.engines:
        if name == "onnxruntime":
            continue
        reason = CANNOT.get(name) or ENGINES[name].why_missing()
        if reason is not None:
            peers.missing.append({"peer": name, "reason": reason})
            continue
        for precision, path in ((Precision.FLOAT, floating), (Precision.INT8, quantized)):
            peers.attempt(f"{name} {precision.value}", partial(shop.converted, name, precision, path))
    return peers


def sources(wanted: Wanted) -> Sequence[Path]:
    """The float models that were named."""
    return [path for path in (wanted.original, wanted.int8_of) if path is not None]
