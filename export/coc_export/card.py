"""model.md, the model card: what the files beside it are, how good, what they cost, and how to call them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coc_runtime import quality
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Task

from . import parity, tables
from .imagesets import Kind

MARK = "<!-- Written by coc-export, which overwrites it. -->"
STAGES = {"D": "distillation", "P": "pruning", "Q": "quantization", "E": "early exit"}
NAMES = 20
"""The card lists at most so many classes."""

PYTHON = """\
import numpy
from coc_runtime import Session

session = Session({name})
images = numpy.zeros((4, {shape}), numpy.uint8)  # your images, raw pixels
result = session.run(images)
print(result.{answer}, result.exit, result.confidence, result.bitops)
"""

ONNXRUNTIME = """\
import numpy
import onnxruntime

session = onnxruntime.InferenceSession({name})
image = numpy.zeros((1, {shape}), numpy.uint8)  # your image, raw pixels
logits, exit_taken, confidence = session.run(["logits", "exit", "confidence"], {{"image": image}})
print(logits{answer}, exit_taken, confidence)
"""

C = """\
#include "coc.h"

#include <stdio.h>

int main(void) {{
    static const uint8_t pixels[{pixels}]; /* your image, raw: [channels][height][width] */
    float logits[{classes}], confidence;
    int64_t label, taken;
    const coc_result result = {{logits, &label, &taken, &confidence, NULL}};
    coc_model *model = NULL;
    coc_session *session = NULL;
    coc_status status = coc_model_open({name}, NULL, &model);
    if (status == COC_OK)
        status = coc_session_create(model, NULL, &session);
    if (status == COC_OK)
        status = coc_run(session, pixels, 1, COC_PLANAR, &result);
    if (status == COC_OK)
        printf("{answer}, exit %d, confidence %g\\n", {argument}, (int)taken, confidence);
    else
        fprintf(stderr, "%s\\n", coc_strerror(status));
    coc_session_free(session);
    coc_model_free(model);
    return status != COC_OK;
}}
"""


def path_of(out: Path) -> Path:
    """Where the card of an artifact goes."""
    return out.with_suffix(".md")


def check(path: Path) -> None:
    """Raise CocError if something else than a card would be overwritten."""
    if path.exists() and not (path.is_file() and path.read_bytes().startswith(MARK.encode())):
        raise CocError(f"{path}: is no model card of coc-export; move it, or give --out another name")


def text(graph: Graph, reports: Sequence[dict[str, Any]]) -> str:
    """The card of artifacts of one model, from their reports."""
    name = Path(reports[0]["artifact"]).stem
    parts = [MARK, f"# {name}", _introduction(graph), _facts(graph, reports[0]), "## Files", _files(reports)]
    if graph.thresholds:
        parts += ["## Where images leave", _exits(graph, reports[0])]
    if "threshold_choice" in reports[0]:
        parts.append(_choice(reports))
    parts += ["## Use", "In the folder of the files:"]
    for report in reports:
        parts += _snippets(graph, report["artifact"])
    return "\n\n".join(parts) + "\n"


def _introduction(graph: Graph) -> str:
    chain = graph.meta.get("chain", "")
    stages = ", ".join(STAGES[letter] for letter in chain if letter in STAGES)
    made = f"compressed by coc-deploy: {chain} ({stages})" if stages else "compressed by coc-deploy"
    return (
        f"A convolutional network, {made}. It takes raw images and computes in integers: every back end "
        "and every CPU gives the same numbers."
    )


def _facts(graph: Graph, report: dict[str, Any]) -> str:
    shape = graph.tensors[graph.input].shape
    colours = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]} channels")
    costs = report["cost"]
    weights, activations = graph.meta["chain_bits"]
    good = "accuracy" if graph.task is Task.CLASSIFICATION else "errors"
    return _table(
        [
            ("input", f"uint8 [N, {_list(shape)}], {colours}, raw pixels; the normalisation is inside"),
            ("output", _outputs(graph)),
            ("trained on", str(graph.meta.get("data", "unknown data"))),
            (good, _quality(report)),
            ("weights x activations", f"{weights} x {activations} bits"),
            ("BitOps", _bitops(costs)),
            ("stored bits", f"{costs['cr']:.1f}x below the original"),
            ("made from", f"model.pt of SHA-256 `{report['source_sha256']}`"),
        ]
    )


def _quality(report: dict[str, Any]) -> str:
    agreement, found = report["parity"], tables.found_quality(report)
    if found is None:
        return "not measured"
    measured = agreement["set"] == Kind.TEST.value
    return found + (f" on {agreement['images']:,} test images of {agreement['data']}" if measured else "")


def _bitops(costs: dict[str, Any]) -> str:
    spent = costs["exit_bitops"]
    if costs["expected_bitops"] is None:
        return f"{spent[0]:,} to {spent[-1]:,} an image, by the exit that it takes"
    return (
        f"{costs['expected_bitops']:,.0f} an image on average, {costs['bitops_cr']:.1f}x below the "
        f"original ({costs['bitops_cr_uniform']:.1f}x by the uniform convention)"
    )


def _outputs(graph: Graph) -> str:
    names = [str(name) for name in graph.meta.get("classes", [])]
    listed = ", ".join(names[:NAMES]) + (", ..." if len(names) > NAMES else "")
    kind = "logits of" if graph.task is Task.CLASSIFICATION else "real numbers:"
    unit = " classes" if graph.task is Task.CLASSIFICATION else ""
    return f"{kind} {graph.classes}{unit}" + (f" ({listed})" if listed else "")


def _files(reports: Sequence[dict[str, Any]]) -> str:
    rows = [("file", "bytes", "SHA-256", "parity")]
    for report in reports:
        agreement = report["parity"]
        sections = parity.sections(agreement)
        differing, flipped = parity.totals(sections).values()
        found = (
            f"{len(agreement['pairs'])} pairs of back ends on {' and '.join(map(tables.images, sections))}: "
            f"{differing} differing logits, {flipped} flipped exits"
        )
        size = f"{report['size']['file_bytes']:,}"
        rows.append((f"`{report['artifact']}`", size, f"`{report['artifact_sha256']}`", found))
    return _table(rows[1:], rows[0])


def _exits(graph: Graph, report: dict[str, Any]) -> str:
    costs = report["cost"]
    classified = graph.task is Task.CLASSIFICATION
    limits = [*(tables.limit(value, classified) for value in graph.thresholds), "-"]
    shares = costs["exit_share"]
    left = ["not measured"] * len(limits) if shares is None else [f"{share:.1%}" for share in shares]
    rows = [(str(k), limit, left[k], f"{costs['exit_bitops'][k]:,}") for k, limit in enumerate(limits)]
    rule = (
        "An image leaves at the first exit whose confidence, the largest softmax probability, reaches the "
        "threshold."
        if classified
        else "An image leaves at the first exit that differs from the one before by at most the threshold."
    )
    return f"{rule}\n\n" + _table(rows, ("exit", "threshold", "test images that leave", "BitOps spent"))


def _choice(reports: Sequence[dict[str, Any]]) -> str:
    section = reports[0]["threshold_choice"]
    budget = section["budget"]
    rows = []
    for report in reports:
        found = report["threshold_choice"]
        times = [f"{found['choice']['latency_us'][part]:.1f}" for part in ("mean", "p50", "p99", "worst")]
        rows.append((f"`{report['artifact']}`", f"{found['backend']}, {found['cpu']}", *times))
    return (
        f"Thresholds were chosen for `{budget['option']} {budget['text']}` on {section['images']:,} held-out "
        f"images of {section['data']}: {quality.text(section['choice'])} there. Microseconds of one image on "
        "one thread, leaving as those images do:\n\n"
        + _table(rows, ("file", "measured with", "mean", "p50", "p99", "worst"))
    )


def _snippets(graph: Graph, artifact: str) -> list[str]:
    """How to call one artifact from Python, and from C or plain ONNX Runtime."""
    shape = graph.tensors[graph.input].shape
    name, classified = json.dumps(artifact, ensure_ascii=False), graph.task is Task.CLASSIFICATION
    python = PYTHON.format(name=name, shape=_list(shape), answer="label" if classified else "logits")
    parts = [f"### {artifact} from Python", f"```python\n{python}```"]
    if artifact.endswith(".onnx"):
        answer = ".argmax(axis=1)" if classified else ""
        code = ONNXRUNTIME.format(name=name, shape=_list(shape), answer=answer)
        return [*parts, f"### {artifact} with ONNX Runtime alone", f"```python\n{code}```"]
    code = C.format(
        name=name,
        pixels=" * ".join(map(str, shape)),
        classes=graph.classes,
        answer="label %d" if classified else "%g",
        argument="(int)label" if classified else "logits[0]",
    )
    build = "`cc model.c $(pkg-config --cflags --libs coc) -o model` builds it where the core is installed."
    return [*parts, f"### {artifact} from C", f"```c\n{code}```", build]


def _list(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))


def _table(rows: Sequence[Sequence[str]], head: Sequence[str] = ("", "")) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
