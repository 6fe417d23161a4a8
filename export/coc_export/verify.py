"""coc-export --verify: repeats the parity check of artifacts wherever they went, without the model.pt.

Three things are compared: every back end of every artifact with every other; each artifact's bytes with
the SHA-256 in the report beside it; and, where the images are those of the report, the reference's logits
and exits with the ones that the exporting machine computed.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coc_runtime.cocfile import CocFile
from coc_runtime.datasets import Dataset
from coc_runtime.errors import CocError
from coc_runtime.onnxfile import OnnxFile
from coc_runtime.text import one_line

from . import parity, tables
from .export_report import load_data, report_path
from .options import Verify
from .source import read_artifact


class Differs(CocError):
    """What --verify is there to find."""

    exit_code = 1


Report = dict[str, Any]


def verify(options: Verify) -> None:
    """Check artifacts and print how that went; Differs for what does not hold, CocError where it cannot be
    asked."""
    artifacts = [(path, read_artifact(path)) for path in options.artifacts]
    reports = [_report_beside(path, file) for path, file in artifacts]
    _check_alike(artifacts)
    images = options.images
    if images is None:  # as many as the report covers
        images = next((report["parity"]["images"] for report in reports if report), None)
    data = load_data(artifacts[0][1].graph, "--data", options.data, "test", images)
    answers, wrong = [], []
    for (path, file), report in zip(artifacts, reports, strict=True):
        found = parity.ask_all(None, file, data.images)
        reference = next(answer for answer in found if answer.name == parity.REFERENCE)
        lines, differs = _against(path, report, data, reference)
        for line in lines:
            print(one_line(line))
        wrong += differs
        missing = parity.why_missing(file)
        if missing:
            print(one_line(f"{path.name}: not compared: {missing}"))
        answers += [replace(answer, name=one_line(f"{path.name} {answer.name}")) for answer in found]
    if len(answers) < 2:
        raise CocError(f"{artifacts[0][0]}: nothing here to compare it with but the reference alone")
    pairs = parity.compare(answers)
    print(tables.pairs(pairs))
    bad = [pair for pair in pairs if pair["differing_logits"] or pair["flipped_exits"]]
    if bad:
        first = bad[0]
        wrong.append(
            f"{len(bad)} of {len(pairs)} pairs of back ends differ, first {' and '.join(first['pair'])}: "
            f"{first['differing_logits']} logits, {first['flipped_exits']} exits"
        )
    if wrong:
        raise Differs("; ".join(wrong))
    print(
        f"verified: {len(data.labels)} images of {data.name}, {len(pairs)} pairs of back ends, no difference"
    )


def _report_beside(path: Path, file: OnnxFile | CocFile) -> Report | None:
    """The report lying beside an artifact; Differs if it is that of another file."""
    beside = report_path(path)
    if not beside.is_file():
        print(one_line(f"{path.name}: no {beside.name} beside it: its checksum and data are not compared"))
        return None
    try:
        report = json.loads(beside.read_bytes())
        count = report["parity"]["images"]
        if type(count) is not int or count < 1:
            raise ValueError
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
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


def _check_alike(artifacts: Sequence[tuple[Path, OnnxFile | CocFile]]) -> None:
    """Raise CocError unless all take the same images and give the same outputs."""
    (first, file), *others = artifacts
    for path, other in others:
        for (what, a), b in zip(_traits(file).items(), _traits(other).values(), strict=True):
            if a != b:
                raise CocError(f"{first} and {path} are not the same model: {what} {a} and {b}")


def _traits(file: OnnxFile | CocFile) -> dict[str, Any]:
    graph = file.graph
    return {
        "images": list(graph.tensors[graph.input].shape),
        "outputs": graph.classes,
        "exits": len(graph.segments),
        "task": graph.task.value,
    }


def _against(
    path: Path, report: Report | None, data: Dataset, reference: parity.Answer
) -> tuple[list[str], list[str]]:
    """(lines to print, what differs) of the reference's answer here and on the machine of the report."""
    stated = report["parity"] if report else {}
    if report is None or "logits_sha256" not in stated:
        return [], []
    beside = report_path(path).name
    here = parity.data_digests(data)
    if stated["images"] != len(data.labels):
        count = f"{len(data.labels)} here, {stated['images']} in {beside}"
        return [f"{path.name}: number of images differs, {count}: logits not compared with it"], []
    lines = []
    if stated.get("labels_sha256") != here["labels_sha256"]:
        lines.append(f"{path.name}: the labels are not those of {beside}")
    if stated.get("images_sha256") != here["images_sha256"]:
        lines.append(
            f"{path.name}: the pixels are not those of {beside} (other images, another order, or another "
            "JPEG decoder): logits not compared with it"
        )
        return lines, []
    digests = parity.digests(reference)
    wrong = [key.removesuffix("_sha256") for key in digests if digests[key] != stated.get(key)]
    if wrong:
        return lines, [f"{path.name}: {' and '.join(wrong)} are not those of {beside} on the same images"]
    lines.append(f"{path.name}: logits and exits are those of {beside}, bit for bit")
    return lines, []
