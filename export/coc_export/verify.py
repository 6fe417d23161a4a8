"""coc-export --verify: repeats the parity check of artifacts wherever they went, without the model.pt.

Three things are compared: every back end of every artifact with every other; each artifact's bytes with
the SHA-256 in the report beside it; and, where the images are those of the report, the reference's logits
and exits with the ones that the exporting machine computed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coc_runtime.cocfile import CocFile
from coc_runtime.errors import CocError
from coc_runtime.onnxfile import OnnxFile
from coc_runtime.text import one_line

from . import imagesets, parity, tables
from .export_report import load_data, report_path
from .imagesets import ImageSet, Kind
from .options import Verify
from .source import read_artifact


class Differs(CocError):
    """What --verify is there to find."""

    exit_code = 1


Report = dict[str, Any]


@dataclass(frozen=True)
class Artifact:
    """A file to verify, and the report beside it."""

    path: Path
    file: OnnxFile | CocFile
    report: Report | None

    def section(self, kind: Kind) -> dict[str, Any] | None:
        """What the report says of images of a kind; None if it says nothing, as one of earlier versions does
        of generated ones."""
        found = parity.sections(self.report["parity"]) if self.report else []
        return next((part for part in found if part.get("set", Kind.TEST.value) == kind.value), None)


def verify(options: Verify) -> None:
    """Check artifacts and print how that went; Differs for what does not hold, CocError where it cannot be
    asked."""
    files = [(path, read_artifact(path)) for path in options.artifacts]
    artifacts = [Artifact(path, file, _report_beside(path, file)) for path, file in files]
    wrong = _check_alike(artifacts)
    sets = _image_sets(artifacts, options)
    for artifact in artifacts:
        missing = parity.why_missing(artifact.file)
        if missing:
            print(one_line(f"{artifact.path.name}: not compared: {missing}"))
    if len(artifacts) == 1 and parity.why_missing(artifacts[0].file):
        raise CocError(f"{artifacts[0].path}: nothing here to compare it with but the reference alone")
    pairs = [_compare(artifacts, given, wrong) for given in sets]
    print(tables.pairs(pairs[0]))
    _say_what_else(artifacts, sets[0])
    if wrong:
        raise Differs("; ".join(wrong))
    first, *others = (f"{len(given.images)} {_named(given)}" for given in sets)
    likewise = "".join(f"; {other} likewise" for other in others)
    print(one_line(f"verified: {first}, {len(pairs[0])} pairs of back ends, no difference{likewise}"))


def _image_sets(artifacts: Sequence[Artifact], options: Verify) -> list[ImageSet]:
    """The test images of --data, and generated ones: as many as the report covers, or as --images says."""
    graph, sets = artifacts[0].file.graph, []

    def count(kind: Kind) -> int | None:
        stated = (part["images"] for part in (artifact.section(kind) for artifact in artifacts) if part)
        return next(stated, None) if options.images is None else options.images

    if options.data is not None:
        data = load_data(graph, "--data", options.data, "test")
        sets.append(ImageSet.of(Kind.TEST, data, count(Kind.TEST)))
    shape = graph.tensors[graph.input].shape
    return [*sets, imagesets.generate(shape, count(Kind.GENERATED))]


def _compare(artifacts: Sequence[Artifact], given: ImageSet, wrong: list[str]) -> list[dict[str, Any]]:
    """All pairs of back ends of all artifacts on the same images; what differs is added to `wrong`."""
    answers, forced = [], []
    for artifact in artifacts:
        found = parity.ask_all(None, artifact.file, given.images)
        reference = parity.reference_of(found)
        lines, differs = _against(artifact, given, reference)
        for line in lines:
            print(one_line(line))
        wrong += differs
        answers += _called(found, artifact)
        if given.kind is Kind.GENERATED:
            at_every_exit, _ = parity.ask_at_every_exit(artifact.file, given.images, reference)
            forced += _called(at_every_exit, artifact)
    pairs = parity.compare(answers)
    every = [*pairs, *parity.compare(forced)]
    bad = [pair for pair in every if pair["differing_logits"] or pair["flipped_exits"]]
    if bad:
        first = bad[0]
        wrong.append(
            f"{len(bad)} of {len(every)} pairs of back ends differ, first {' and '.join(first['pair'])}: "
            f"{first['differing_logits']} logits, {first['flipped_exits']} exits"
        )
    return pairs


def _called(answers: Sequence[parity.Answer], artifact: Artifact) -> list[parity.Answer]:
    """The answers, named after their artifact as well."""
    return [replace(answer, name=one_line(f"{artifact.path.name} {answer.name}")) for answer in answers]


def _named(given: ImageSet) -> str:
    return "generated images" if given.kind is Kind.GENERATED else f"images of {given.data}"


def _say_what_else(artifacts: Sequence[Artifact], first: ImageSet) -> None:
    """Without --data, which images a report covers that could be compared, too."""
    for artifact in artifacts if first.kind is Kind.GENERATED else ():
        part = artifact.section(Kind.TEST)
        if part is not None:
            name, beside = part.get("data"), report_path(artifact.path).name
            print(
                one_line(
                    f"{artifact.path.name}: {beside} covers {part['images']} test images of {name}: "
                    f"--data {_spec(str(name))} compares these, too"
                )
            )


def _spec(name: str) -> str:
    """What --data takes for a data set's name."""
    kind = name.partition(":")[0]
    return f"{kind}:PATH" if kind in ("imagefolder", "cinic10") else name


def _report_beside(path: Path, file: OnnxFile | CocFile) -> Report | None:
    """The report lying beside an artifact; Differs if it is that of another file."""
    beside = report_path(path)
    if not beside.is_file():
        print(one_line(f"{path.name}: no {beside.name} beside it: its checksum and data are not compared"))
        return None
    try:
        report = json.loads(beside.read_bytes())
        for part in parity.sections(report["parity"]):
            if type(part["images"]) is not int or part["images"] < 1:
                raise ValueError
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        raise CocError(f"{beside}: not a report of coc-export: remove it or export the model again") from None
    digest, stated = hashlib.sha256(file.data).hexdigest(), report.get("artifact_sha256")
    if stated is None:
        print(one_line(f"{path.name}: {beside.name} is of an older coc-deploy and states no checksum"))
    elif stated != digest:
        raise Differs(
            f"{path}: SHA-256 is {digest[:16]}..., {beside.name} says {str(stated)[:16]}...: another file"
        )
    else:
        print(one_line(f"{path.name}: SHA-256 {digest[:16]}... as in {beside.name}"))
    return dict(report)


def _check_alike(artifacts: Sequence[Artifact]) -> list[str]:
    """Raise CocError unless all take the same images and give the same outputs; what differs in thresholds,
    which images need not show."""
    first, *others = artifacts
    wrong = []
    for other in others:
        for (what, a), b in zip(_traits(first.file).items(), _traits(other.file).values(), strict=True):
            if a != b:
                raise CocError(f"{first.path} and {other.path} are not the same model: {what} {a} and {b}")
        if first.file.graph.thresholds != other.file.graph.thresholds:
            wrong.append(f"{first.path.name} and {other.path.name} have other thresholds")
    return wrong


def _traits(file: OnnxFile | CocFile) -> dict[str, Any]:
    graph = file.graph
    return {
        "images": list(graph.tensors[graph.input].shape),
        "outputs": graph.classes,
        "exits": len(graph.segments),
        "task": graph.task.value,
    }


def _against(artifact: Artifact, given: ImageSet, reference: parity.Answer) -> tuple[list[str], list[str]]:
    """(lines to print, what differs) of the reference's answer here and on the machine of the report."""
    stated = artifact.section(given.kind)
    if stated is None or "logits_sha256" not in stated:
        return [], []
    beside, name = report_path(artifact.path).name, artifact.path.name
    name += ", generated images" if given.kind is Kind.GENERATED else ""
    here = parity.image_digests(given.images, given.labels)
    if stated["images"] != len(given.images):
        count = f"{len(given.images)} here, {stated['images']} in {beside}"
        return [f"{name}: number of images differs, {count}: logits not compared with it"], []
    lines = []
    if stated.get("labels_sha256") != here.get("labels_sha256"):
        lines.append(f"{name}: the labels are not those of {beside}")
    if stated.get("images_sha256") != here["images_sha256"]:
        lines.append(
            f"{name}: the pixels are not those of {beside} (other images, another order, or another "
            "JPEG decoder): logits not compared with it"
        )
        return lines, []
    digests = parity.digests(reference)
    wrong = [key.removesuffix("_sha256") for key in digests if digests[key] != stated.get(key)]
    if wrong:
        return lines, [f"{name}: {' and '.join(wrong)} are not those of {beside} on the same images"]
    lines.append(f"{name}: logits and exits are those of {beside}, bit for bit")
    return lines, []
