"""coc-export tells a user's mistake in one line on stderr, exits with 2 and writes nothing."""

from pathlib import Path

import pytest
import torch

from coc_deploy import checkpoint
from coc_deploy.checkpoint import Checkpoint
from coc_export.cli import main
from conftest import TinyRun
from exporting import complaint, image_folder


@pytest.mark.parametrize("content", [None, b"", b"not a model", "state dict"])
def test_a_file_that_is_no_model_is_refused(
    content: bytes | str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        torch.save({"weight": torch.zeros(3)}, path)
    words = "no such file" if content is None else "not a coc-deploy model"
    assert f"{path}: {words}" in complaint([str(path), "--out", str(tmp_path / "m.onnx")], capsys)
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("none/m.onnx", "none: no such folder"),
        ("file/m.onnx", "file: no such folder"),
        ("folder.onnx", "folder.onnx: cannot be written"),
        ("/proc/m.onnx", "/proc/m.onnx: cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_is_told(
    out: str, words: str, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.onnx").mkdir()
    arguments = [str(tiny_run.model), "--out", str(tmp_path / out), "--images", "2"]
    assert words in complaint(arguments, capsys)


def test_the_model_itself_is_not_overwritten(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(tiny_run.model.read_bytes())
    assert "is the model itself" in complaint([str(path), "--out", str(path), "--images", "2"], capsys)
    assert path.read_bytes() == tiny_run.model.read_bytes()


def test_a_float_model_needs_float_and_a_quantized_one_refuses_it(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "m.onnx")
    line = complaint([str(tiny_run.out / "02-prune/model.pt"), "--out", out], capsys)
    assert "the model is not quantized" in line and "--float" in line
    assert "without quantization" in complaint([str(tiny_run.model), "--out", out, "--float"], capsys)
    assert not Path(out).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "mnist"], "unknown data 'mnist'"),
        (["--data", "imagefolder:/nowhere"], "/nowhere is not a folder"),
        (["--images", "0"], "--images 0: must be at least 1"),
        (["--images", "-3"], "--images -3: must be at least 1"),
    ],
)
def test_wrong_test_images_are_told(
    options: list[str], words: str, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.onnx"
    assert words in complaint([str(tiny_run.model), "--out", str(out), *options], capsys)
    assert not out.exists()


def test_images_of_another_size_are_refused(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_run.model), "--out", str(tmp_path / "m.onnx")]
    line = complaint([*arguments, "--data", image_folder(tmp_path / "images", 9)], capsys)
    assert "images are [1, 9, 9], the model takes [1, 8, 8]" in line


def test_a_model_of_an_image_folder_exports_with_and_without_the_images(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = checkpoint.load(tiny_run.model)
    path = tmp_path / "model.pt"
    meta = loaded.meta | {"data": "imagefolder:birds"}
    checkpoint.save(path, Checkpoint(loaded.network, loaded.history, meta))
    arguments = [str(path), "--out", str(tmp_path / "m.onnx")]
    assert main(arguments) == 0
    assert main([*arguments, "--data", image_folder(tmp_path / "images", 8)]) == 0
