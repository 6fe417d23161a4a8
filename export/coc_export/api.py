"""What `coc-export` does, for programs: `export(model, out) -> Report`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Report:
    """What was written, and the evidence for it."""

    path: Path
    """the artifact"""
    values: dict[str, Any]
    """all of MODEL.report.json (docs/artifacts.md)"""

    @property
    def parity(self) -> dict[str, Any]:
        """How the back ends agreed: `images`, `differing_logits`, `flipped_exits`, `pairs`, `accuracy`
        (None without test images) on the first set of images; `also` on the others."""
        return dict(self.values["parity"])

    @property
    def size(self) -> dict[str, Any]:
        """The bytes of the file, by what they hold."""
        return dict(self.values["size"])

    @property
    def cost(self) -> dict[str, Any]:
        """MACs, BitOps and stored bits per layer and per exit, and what they are relative to the original."""
        return dict(self.values["cost"])


def export(
    model: str | Path,
    out: str | Path,
    *,
    data: str | None = None,
    images: int | None = None,
    thresholds: Sequence[float] | None = None,
    opset: int | None = None,
    allow_mismatch: bool = False,
) -> Report:
    """Write a compressed model as an artifact, with its report and model card beside it.

    model: a model.pt of coc-compress, or an .onnx or .coc file. out: the file to write; its name ends in
    .onnx or .coc. data: a data set on whose test images back ends are compared, too, and quality is
    measured; without it images are those that model.pt carries and generated ones. images: the first so many
    of each kind. thresholds: one per early exit in place of the model's. opset: of an ONNX file.
    allow_mismatch: write the file even where back ends differ.
    Raises CocError, and writes nothing, where back ends differ or the model cannot be exported.
    """
    from . import exporting, options

    limits = None if thresholds is None else ",".join(repr(float(value)) for value in thresholds)
    named = {"out": out, "data": data, "images": images, "opset": opset, "thresholds": limits}
    words = [f"--{name}={value}" for name, value in named.items() if value is not None]
    if allow_mismatch:
        words.append("--allow-mismatch")
    wanted = options.parse([*words, "--", str(model)])  # names may begin with a hyphen
    assert isinstance(wanted, options.Export)
    (done,) = exporting.export(wanted, say=lambda text: None)
    return Report(done.out, done.report)
