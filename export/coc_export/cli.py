"""coc-export: turn a compressed model.pt into one .onnx or .coc file that computes the same integers."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from coc_deploy import checkpoint
from coc_deploy.checkpoint import Checkpoint
from coc_runtime import cocfile, cocwrite, datasets, files, onnxfile
from coc_runtime.cocfile import CocFile
from coc_runtime.errors import CocError
from coc_runtime.graph import Graph
from coc_runtime.onnxfile import OnnxFile

from . import ledger, parity
from .float_onnx import write_float
from .lowering import lower
from .onnx_writer import write_onnx, write_segments


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog="coc-export", description=__doc__)
    result.add_argument("model", type=Path, help="model.pt of coc-compress")
    result.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="MODEL.onnx|MODEL.coc",
        help="file to write, ONNX or packed for the native runtime; its report goes beside it",
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
        "--float", action="store_true", help="export an unquantized model as float ONNX (for comparison)"
    )
    return result


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 on success, 2 with one line on stderr when the input is wrong or back ends differ."""
    options = parser().parse_args(arguments)
    try:
        loaded = checkpoint.load(options.model)
        if not options.out.parent.is_dir():
            raise CocError(f"{options.out.parent}: no such folder; create it first")
        if options.out.exists() and options.out.samefile(options.model):
            raise CocError(f"--out {options.out} is the model itself; choose another file")
        _check_kind(options)
        if options.float:
            return _export_float(loaded, options.out)
        return _export(loaded, options)
    except CocError as error:
        print(f"coc-export: error: {error}", file=sys.stderr)
        return 2


def _check_kind(options: argparse.Namespace) -> None:
    """Raise CocError unless --out names a kind of file that the other options allow."""
    if options.out.is_dir():
        raise CocError(f"{options.out}: cannot be written (it is a folder): choose another place")
    suffix = options.out.suffix
    if suffix not in (".onnx", ".coc"):
        raise CocError(f"--out {options.out}: the name must end in .onnx or .coc")
    for option in ("float", "split"):
        if suffix == ".coc" and getattr(options, option):
            raise CocError(f"--{option} writes ONNX only: give --out {options.out.with_suffix('.onnx')}")


def _export_float(loaded: Checkpoint, out: Path) -> int:
    files.write_bytes(out, write_float(loaded.network).SerializeToString(deterministic=True))
    print(f"wrote {out} ({out.stat().st_size:,} bytes, float32)")
    return 0


def _export(loaded: Checkpoint, options: argparse.Namespace) -> int:
    graph = lower(loaded, options.model)
    data = _parity_data(loaded, options)
    file, sizes = _pack(graph, options.out)
    agreement, reference = parity.report(loaded.network, file, data)
    shares = np.bincount(reference.exit, minlength=len(graph.segments)) / len(reference.exit)
    costs = ledger.cost_table(graph, [float(share) for share in shares])
    report = {"schema": 1, "artifact": options.out.name, "source_sha256": graph.meta["source_sha256"]}
    report |= {"thresholds": list(graph.thresholds), "parity": agreement, "size": sizes, "cost": costs}
    differs = bool(agreement["differing_logits"] or agreement["flipped_exits"])
    print(summary(report))
    if differs and not options.allow_mismatch:
        raise CocError(
            f"back ends differ on {agreement['differing_logits']} logits and "
            f"{agreement['flipped_exits']} exits; nothing was written (--allow-mismatch keeps the file)"
        )
    files.write_bytes(options.out, file.data)
    files.write_json(options.out.with_suffix(".report.json"), report)
    if options.split is not None:
        _write_split(options.split, write_segments(graph))
    print(f"wrote {options.out} and {options.out.with_suffix('.report.json').name}")
    return 0


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
    if options.images is None:
        return data
    if options.images < 1:
        raise CocError(f"--images {options.images}: must be at least 1")
    count = options.images
    return datasets.Dataset(data.name, data.images[:count], data.labels[:count], data.classes)


def summary(report: dict[str, Any]) -> str:
    """The report as a few lines on screen."""
    agreement, sizes, costs = report["parity"], report["size"], report["cost"]
    shares = ", ".join(f"{share:.1%}" for share in costs["exit_share"])
    return f"""\
parity    {agreement["images"]} images of {agreement["data"]}, {len(agreement["pairs"])} pairs of back ends: \
{agreement["differing_logits"]} differing logits, {agreement["flipped_exits"]} flipped exits
accuracy  {agreement["accuracy"]:.2f} %
size      {sizes["file_bytes"]:,} bytes: weights {sizes["weight_bytes"]:,}, biases {sizes["bias_bytes"]:,}, \
scales {sizes["scale_bytes"]:,}, structure {sizes["structure_bytes"]:,}
exits     {shares}
BitOps    {costs["expected_bitops"]:,.0f} an image on average, {costs["bitops_cr"]:.1f}x below the original
          ({costs["bitops_cr_uniform"]:.1f}x by the uniform convention), CR {costs["cr"]:.1f}x"""


if __name__ == "__main__":
    sys.exit(main())
