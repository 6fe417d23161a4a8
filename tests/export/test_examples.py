"""The committed examples hold what the README says of them."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from coc_deploy import checkpoint
from coc_export import parity
from coc_export.ledger import onnx_ledger
from coc_export.lowering import lower
from coc_export.onnx.writer import write_onnx
from coc_runtime import onnxfile

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/model.pt"))
JPEGS = ROOT.parent / "shared/data/cifar10-jpeg.tar.xz"
SOME = 100


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SOME, 3, 32, 32), np.uint8)


def photographs() -> np.ndarray:
    if not JPEGS.exists():
        pytest.skip(f"needs {JPEGS.name} beside the checkout")
    images: list[np.ndarray] = []
    with tarfile.open(JPEGS) as archive:
        while len(images) < SOME and (member := archive.next()) is not None:
            if "test/" in member.name and member.name.endswith(".jpg") and member.name[-5] == "7":
                content = archive.extractfile(member)
                assert content is not None
                images.append(np.asarray(Image.open(io.BytesIO(content.read()))).transpose(2, 0, 1))
    return np.stack(images)


def test_there_are_two_examples_below_a_megabyte_each() -> None:
    assert [folder.name for folder in EXAMPLES] == ["cifar10-resnet20-1x8", "cifar10-resnet20-4x8"]
    assert all((folder / "model.pt").stat().st_size < 1_000_000 for folder in EXAMPLES)


@pytest.mark.parametrize("images", [noise, photographs])
@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_every_back_end_computes_the_same_integers(folder: Path, images: Any) -> None:
    loaded = checkpoint.load(folder / "model.pt")
    content = write_onnx(lower(loaded, folder / "model.pt")).SerializeToString(deterministic=True)
    answers = parity.ask_all(loaded.network, onnxfile.parse(content, folder.name), images())
    for pair in parity.compare(answers):
        assert (pair["differing_logits"], pair["flipped_exits"]) == (0, 0), pair["pair"]


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_weights_take_their_bits(folder: Path) -> None:
    loaded = checkpoint.load(folder / "model.pt")
    graph = lower(loaded, folder / "model.pt")
    sizes = onnx_ledger(graph, write_onnx(graph))
    for weight in sizes["weights"]:
        assert weight["bytes"] == -(-weight["bits"] * weight["count"] // 8), weight["name"]
    if folder.name.endswith("1x8"):
        assert sizes["weight_bytes"] <= 36_000
        assert sizes["file_bytes"] <= 72_000
    assert sizes == read(folder / "model.report.json")["size"]


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda folder: folder.name)
def test_the_committed_report_covers_the_test_split_without_a_difference(folder: Path) -> None:
    agreement = read(folder / "model.report.json")["parity"]
    assert agreement["images"] == 10_000
    assert {(p["differing_logits"], p["flipped_exits"]) for p in agreement["pairs"]} == {(0, 0)}
    assert agreement["accuracy"] == pytest.approx(read(folder / "history.json")[-1]["accuracy"])
    assert agreement["accuracy"] == pytest.approx(100 * read(folder / "bench.json")["runs"][0]["accuracy"])


def test_the_digits_demo_compresses_a_hundredfold_at_a_small_loss() -> None:
    demo = read(ROOT / "benchmarks/results/digits_demo.json")
    assert demo["bitops_cr"] >= 100
    assert demo["accuracy_loss"] <= 1.5
    assert (demo["differing_logits"], demo["flipped_exits"]) == (0, 0)


def test_the_figures_of_the_readme_are_those_of_the_json() -> None:
    check = [sys.executable, "benchmarks/scripts/readme.py", "--check"]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "README.md is out of date: make figures"
