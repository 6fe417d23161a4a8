"""coc-export --verify: repeats what a report claims anywhere, and fails on any difference."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coc_export.cli import main
from coc_export.export_report import report_path
from coc_runtime import datasets
from coc_runtime.backends import native
from coc_runtime.backends.native import NativeBackend
from coc_runtime.backends.ort import OrtBackend
from conftest import TinyRun
from tiny import digits

IMAGES = "30"
built = pytest.mark.skipif(native.why_missing() is not None, reason="the C extension is not built")


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    outs = ["--out", str(folder / "m.onnx"), "--out", str(folder / "m.coc")]
    assert main([str(tiny_run.model), *outs, "--images", IMAGES, "--data", "digits"]) == 0
    return folder


@pytest.fixture
def here(exported: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(exported, tmp_path / "here")
    return tmp_path / "here"


def verify(folder: Path, *options: str, names: tuple[str, ...] = ("m.onnx", "m.coc")) -> int:
    return main(["--verify", *(str(folder / name) for name in names), "--data", "digits", *options])


def change(path: Path, **values: Any) -> None:
    """Other values in the parity section of a report."""
    report = json.loads(path.read_text())
    report["parity"] |= values
    path.write_text(json.dumps(report))


@built
def test_all_artifacts_are_compared_with_each_other_on_the_images_of_the_report(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(exported) == 0
    lines = capsys.readouterr().out.splitlines()
    backends = 5 + 1 + 2 * len(native.levels())
    assert f"{IMAGES} images of digits, {backends * (backends - 1) // 2} pairs" in lines[-1]
    assert any(line.startswith("m.onnx reference") and "m.coc native-" in line for line in lines)
    for name in ("m.onnx", "m.coc"):
        beside = report_path(Path(name)).name
        assert any(line.startswith(f"{name}: SHA-256 ") and line.endswith(beside) for line in lines)
        assert f"{name}: logits and exits are those of {beside}, bit for bit" in lines


def test_the_report_holds_what_verify_needs(exported: Path) -> None:
    for name in ("m.onnx", "m.coc"):
        report = json.loads(report_path(exported / name).read_text())
        assert len(report["artifact_sha256"]) == len(report["source_sha256"]) == 64
        assert {"cpu", "numpy", "torch", "onnxruntime", "python"} < report["environment"].keys()
        for key in ("images", "labels", "logits", "exits"):
            assert len(report["parity"][f"{key}_sha256"]) == 64


def test_another_file_than_that_of_the_report_fails(
    here: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["--thresholds", "0.5,0.5", "--out", str(here / "other.coc"), "--images", "3"]
    assert main([str(exported / "m.coc"), *other]) == 0
    shutil.move(here / "other.coc", here / "m.coc")
    assert verify(here, names=("m.coc",)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "m.coc: SHA-256 is " in line and "m.coc.report.json says " in line


def test_artifacts_with_other_thresholds_differ(
    here: Path, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ["--thresholds", "0,0", "--out", str(here / "m.coc"), "--images", IMAGES]
    assert main([str(exported / "m.coc"), *other]) == 0
    assert verify(here) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "pairs of back ends differ, first m.onnx reference and m.coc reference: " in line


def test_a_back_end_that_differs_fails(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = OrtBackend.run_segment

    def wrong(backend: OrtBackend, index: int, codes: np.ndarray) -> Any:
        logits, carry = right(backend, index, codes)
        if index == 2 and not backend._optimize:
            logits[3, 1] = np.nextafter(logits[3, 1], np.float32(9))
        return logits, carry

    monkeypatch.setattr(OrtBackend, "run_segment", wrong)
    assert verify(exported, names=("m.onnx",)) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert "onnxruntime none, segments: 1 logits, 0 exits" in line
    (row,) = (
        line for line in captured.out.splitlines() if "reference  " in line and "none, segments" in line
    )
    assert row.split()[-2:] == ["1", "0"]


@built
def test_a_level_that_takes_another_exit_fails(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = NativeBackend.run

    def wrong(backend: NativeBackend, images: np.ndarray) -> Any:
        logits, label, exits, confidence, bitops = right(backend, images)
        if backend.cpu == "scalar":
            exits[4] = (exits[4] + 1) % 3
        return logits, label, exits, confidence, bitops

    monkeypatch.setattr(NativeBackend, "run", wrong)
    assert verify(exported, names=("m.coc",)) == 1
    assert " 1 exits" in capsys.readouterr().err


def test_logits_other_than_the_exporting_machines_fail(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(here / "m.report.json", logits_sha256="0" * 64)
    assert verify(here) == 1
    assert "m.onnx: logits are not those of m.report.json on the same images" in capsys.readouterr().err


def test_other_images_are_told_and_compared_all_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = datasets.load

    def changed(spec: str, split: str) -> datasets.Dataset:
        data = load(spec, split)
        images = data.images.copy()
        images[7, 0, 0, 0] ^= 1
        return datasets.Dataset(data.name, images, data.labels, data.classes)

    monkeypatch.setattr(datasets, "load", changed)
    assert verify(here) == 0
    out = capsys.readouterr().out
    assert "m.onnx: the pixels are not those of m.report.json" in out and "labels" not in out
    change(here / "m.report.json", labels_sha256="0" * 64)
    assert verify(here, "--images", "9") == 0
    out = capsys.readouterr().out
    assert f"number of images differs, 9 here, {IMAGES} in m.report.json" in out
    monkeypatch.undo()
    assert verify(here) == 0
    out = capsys.readouterr().out
    assert "m.onnx: the labels are not those of m.report.json" in out
    assert "m.onnx: logits and exits are those of m.report.json" in out


def test_without_a_report_the_back_ends_are_compared(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in here.glob("*.json"):
        path.unlink()
    assert verify(here, "--images", "7") == 0
    out = capsys.readouterr().out
    assert "m.onnx: no m.report.json beside it" in out and "verified: 7 images" in out


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"parity": 3}', '{"parity": {"images": "3"}}'])
def test_a_report_that_is_none_is_told(content: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "m.report.json").write_text(content)
    assert verify(here, names=("m.onnx",)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "m.report.json: not a report of coc-export" in line


def test_two_models_are_not_compared(
    here: Path, tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]
) -> None:
    quantized = str(tiny_run.out / "03-quantize/model.pt")
    assert main([quantized, "--out", str(here / "q.coc"), "--images", "3"]) == 0
    assert verify(here, names=("m.coc", "q.coc")) == 2
    assert "are not the same model: exits 3 and 1" in capsys.readouterr().err


def test_a_file_with_nothing_to_compare_it_with_is_not_verified(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "why_missing", lambda: "the C extension was not built")
    assert verify(here, names=("m.coc",)) == 2
    captured = capsys.readouterr()
    assert "nothing here to compare it with" in captured.err
    assert "m.coc: not compared: the C extension was not built" in captured.out


DEVICE = """\
import sys

class Missing:
    @staticmethod
    def find_spec(name, *others):
        if name.split(".")[0] in ("torch", "torchvision", "onnx", "coc_deploy"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing)
from coc_export.cli import main
sys.exit(main(sys.argv[1:]))
"""


@built
def test_verifying_and_choosing_anew_coc_files_needs_neither_torch_nor_onnx(
    exported: Path, tmp_path: Path
) -> None:
    def device(*arguments: str) -> None:
        done = subprocess.run([sys.executable, "-c", DEVICE, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    device("--verify", str(exported / "m.coc"), "--data", "digits")
    source, out = str(exported / "m.coc"), str(tmp_path / "o.coc")
    device(source, "--out", out, "--choose-on", "digits", "--max-drop", "6", "--images", "5")
    report = json.loads(report_path(Path(out)).read_text())
    assert report["parity"]["images"] == 5 and report["threshold_choice"]["images"] == len(
        digits("held-out").labels
    )
