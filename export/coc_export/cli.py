"""coc-export: turn a compressed model.pt into an .onnx file, a .coc file or both: the same integers."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from coc_deploy import checkpoint
from coc_deploy.checkpoint import Checkpoint
from coc_deploy.network import Network
from coc_runtime import cocfile, cocwrite, datasets, files, onnxfile, quality
from coc_runtime.cocfile import CocFile
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph, Task
from coc_runtime.onnxfile import OnnxFile

from . import layers, ledger, parity
from .float_onnx import write_float
from .lowering import lower, task_of
from .onnx_writer import write_onnx, write_segments


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="coc-export", description=__doc__)
    result.add_argument("model", type=Path, help="model.pt of coc-compress")
    result.add_argument(
        "--out",
        type=Path,
        action="append",
        required=True,
        metavar="MODEL.onnx|MODEL.coc",
        help="file to write, ONNX or packed for the native runtime; give it twice for both. Reports go "
        "beside them: MODEL.report.json and MODEL.coc.report.json",
    )
    result.add_argument("--split", type=Path, metavar="DIR", help="also write one ONNX file per segment")
    result.add_argument(
        "--data",
        metavar="SPEC",
        help="test images for the parity check (default: what the model was trained on)",
    )
    result.add_argument(
        "--images", type=int, metavar="N", help="check parity on the first N test images only"
    )
    result.add_argument(
        "--allow-mismatch", action="store_true", help="keep the file although back ends differ, and say so"
    )
    result.add_argument(
        "--layers", action="store_true", help="measure and show where time goes layer by layer"
    )
    result.add_argument(
        "--float", action="store_true", help="export an unquantized model as float ONNX (for comparison)"
    )
    return result


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 on success, 2 with one line on stderr when the input is wrong or back ends differ."""
    options = parser().parse_args(arguments)
    try:
        loaded = checkpoint.load(options.model)
        for out in options.out:
            _check_out(out, options)
        if len({out.suffix for out in options.out}) < len(options.out):
            raise CocError("--out can be given twice only for one .onnx and one .coc file")
        if options.float and options.layers:
            raise CocError("--layers measures quantized models: leave out --float or --layers")
        if options.float:
            _export_float(loaded, options.out[0])
        else:
            _export(loaded, options)
        return 0
    except CocError as error:
        print(f"coc-export: error: {error}", file=sys.stderr)
        return 2


def _check_out(out: Path, options: argparse.Namespace) -> None:
    """Raise CocError unless a file can be written there, of a kind that the other options allow."""
    if not out.parent.is_dir():
        raise CocError(f"{out.parent}: no such folder; create it first")
    if out.exists() and out.samefile(options.model):
        raise CocError(f"--out {out} is the model itself; choose another file")
    if out.is_dir():
        raise CocError(f"{out}: cannot be written (it is a folder): choose another place")
    if out.suffix not in (".onnx", ".coc"):
        raise CocError(f"--out {out}: the name must end in .onnx or .coc")
    onnx_too = any(other.suffix == ".onnx" for other in options.out)
    if out.suffix == ".coc" and (options.float or (options.split and not onnx_too)):
        option = "--float" if options.float else "--split"
        raise CocError(f"{option} writes ONNX only: give --out {out.with_suffix('.onnx')}")


def report_path(out: Path) -> Path:
    """Where the report of an artifact goes: model.report.json for model.onnx, else model.coc.report.json."""
    return out.with_suffix(".report.json") if out.suffix == ".onnx" else Path(f"{out}.report.json")


def _export_float(loaded: Checkpoint, out: Path) -> None:
    files.write_bytes(out, write_float(loaded.network).SerializeToString(deterministic=True))
    print(f"wrote {out} ({out.stat().st_size:,} bytes, float32)")


def _export(loaded: Checkpoint, options: argparse.Namespace) -> None:
    """Check every artifact before the first is written."""
    graph = lower(loaded, options.model)
    data = _parity_data(loaded, options)
    finished = []
    for out in options.out:
        file, report = _certify(loaded.network, graph, out, data)
        if len(options.out) > 1:
            print(f"{out.name}:")
        if options.layers:
            report["layers"] = layers.measure(file, data.images)
        print(summary(report))
        if options.layers:
            print(layers.text(report["layers"]))
        differing, flipped = (report["parity"][key] for key in ("differing_logits", "flipped_exits"))
        if (differing or flipped) and not options.allow_mismatch:
            raise CocError(
                f"{out.name}: back ends differ on {differing} logits and {flipped} exits; "
                "nothing was written (--allow-mismatch keeps the file)"
            )
        finished.append((out, file, report))
    for out, file, report in finished:
        files.write_bytes(out, file.data)
        files.write_json(report_path(out), report)
    if options.split is not None:
        _write_split(options.split, write_segments(graph))
    for out in options.out:
        print(f"wrote {out} and {report_path(out).name}")


def _certify(
    network: Network, graph: Graph, out: Path, data: datasets.Dataset
) -> tuple[OnnxFile | CocFile, dict[str, Any]]:
    """An artifact as read back from the bytes to write, and its report."""
    file, sizes = _pack(graph, out)
    agreement, reference = parity.report(network, file, data)
    shares = np.bincount(reference.exit, minlength=len(graph.segments)) / len(reference.exit)
    report = {"schema": 1, "artifact": out.name, "source_sha256": graph.meta["source_sha256"]}
    report |= {"thresholds": list(graph.thresholds), "parity": agreement, "size": sizes}
    return file, report | {"cost": ledger.cost_table(graph, [float(share) for share in shares])}


def _pack(graph: Graph, out: Path) -> tuple[OnnxFile | CocFile, dict[str, Any]]:
    """The file as read back from the bytes that will be written, and its size ledger."""
    if out.suffix == ".coc":
        packed = cocfile.parse(cocwrite.dump(graph), str(out))
        return packed, ledger.coc_ledger(packed)
    model = write_onnx(graph)
    content = model.SerializeToString(deterministic=True)
    return onnxfile.parse(content, str(out)), ledger.onnx_ledger(graph, model)


def _write_split(folder: Path, models: list[onnx.ModelProto]) -> None:
    files.make_folder(folder)
    for index, model in enumerate(models):
        files.write_bytes(folder / f"segment{index}.onnx", model.SerializeToString(deterministic=True))


def _parity_data(loaded: Checkpoint, options: argparse.Namespace) -> datasets.Dataset:
    spec = options.data or loaded.meta["data"]
    if options.data is None and spec.startswith("imagefolder:"):
        raise CocError("the parity check needs the model's test images: give --data imagefolder:PATH")
    data = datasets.load(spec, "test")
    if data.images.shape[1:] != loaded.network.input_shape:
        raise CocError(
            f"--data {spec}: images are {list(data.images.shape[1:])}, "
            f"the model takes {list(loaded.network.input_shape)}"
        )
    _check_task(loaded, spec, data)
    if options.images is None:
        return data
    if options.images < 1:
        raise CocError(f"--images {options.images}: must be at least 1")
    count = options.images
    return datasets.Dataset(data.name, data.images[:count], data.labels[:count], data.classes)


def _check_task(loaded: Checkpoint, spec: str, data: datasets.Dataset) -> None:
    """Raise CocError unless the data hold what the model predicts."""
    task, outputs = task_of(loaded), loaded.network.arch.classes
    if data.task is not task:
        kinds = {Task.CLASSIFICATION: ("classes", "digits"), Task.REGRESSION: ("numbers", "rotated-digits")}
        (held, _), (wanted, example) = kinds[data.task], kinds[task]
        raise CocError(
            f"--data {spec}: holds {held}, the model predicts {wanted}: give such data, e.g. {example}"
        )
    if task is Task.REGRESSION and data.labels.shape[1] != outputs:
        raise CocError(f"--data {spec}: {data.labels.shape[1]} numbers an image, the model gives {outputs}")


def summary(report: dict[str, Any]) -> str:
    """The report as a few lines on screen."""
    agreement, sizes, costs = report["parity"], report["size"], report["cost"]
    shares = ", ".join(f"{share:.1%}" for share in costs["exit_share"])
    missing = agreement.get("native_missing")
    found = quality.text(agreement)
    measured = f"accuracy  {found}" if agreement["accuracy"] is not None else f"errors    {found}"
    absent = f"native    not compared: {missing}\n" if missing else ""
    return f"""\
parity    {agreement["images"]} images of {agreement["data"]}, {len(agreement["pairs"])} pairs of back ends: \
{agreement["differing_logits"]} differing logits, {agreement["flipped_exits"]} flipped exits
{absent}{measured}
size      {sizes["file_bytes"]:,} bytes: weights {sizes["weight_bytes"]:,}, biases {sizes["bias_bytes"]:,}, \
scales {sizes["scale_bytes"]:,}, structure {sizes["structure_bytes"]:,}
exits     {shares}
BitOps    {costs["expected_bitops"]:,.0f} an image on average, {costs["bitops_cr"]:.1f}x below the original
          ({costs["bitops_cr_uniform"]:.1f}x by the uniform convention), CR {costs["cr"]:.1f}x"""


if __name__ == "__main__":
    sys.exit(main())
