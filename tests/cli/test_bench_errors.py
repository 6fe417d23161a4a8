"""coc-bench tells a user's mistake in one line on stderr and exits with 2."""

import sys
from pathlib import Path

import onnx
import pytest

from bench_files import artifact, float_model, image_folder
from coc_bench.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("errors")
    image_folder(root / "images")
    artifact(root / "model.onnx", exits=1)
    artifact(root / "four.onnx", exits=0, classes=4)
    float_model(root / "float.onnx")
    float_model(root / "gray.onnx", channels=1)
    (root / "text.onnx").write_text("not a model")
    renamed = onnx.load(str(root / "float.onnx"))
    renamed.graph.node[-1].output[0] = renamed.graph.output[0].name = "scores"
    onnx.save(renamed, str(root / "scores.onnx"))
    (root / "empty" / "train").mkdir(parents=True)
    (root / "empty" / "test").mkdir(parents=True)
    return root


def complaint(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that coc-bench writes to stderr for these arguments."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("coc-bench: error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.onnx", "--data", "digits"], "missing.onnx: no such file"),
        (["{0}/model.onnx", "--data", "digits", "--original", "{0}/no.onnx"], "no.onnx: no such file"),
        (["{0}/model.onnx", "--data", "nonsense"], "nonsense"),
        (["{0}/model.onnx", "--data", "imagefolder:{0}/empty"], "class folders"),
        (["{0}/text.onnx", "--data", "digits"], "text.onnx"),
        (["{0}/model.onnx", "--data", "digits"], "takes images of 3x8x8, those of digits are 1x8x8"),
        (
            ["{0}/four.onnx", "--data", "imagefolder:{0}/images"],
            "four.onnx: has 4 classes, imagefolder:images has labels up to 9",
        ),
        (["{0}/model.onnx", "--data", "digits", "--backend", "abacus"], "abacus"),
        (["{0}/model.onnx", "--data", "digits", "--thresholds", "1,1,1"], "3 thresholds"),
        (
            ["{0}/model.onnx", "--data", "imagefolder:{0}/images", "--original", "{0}/gray.onnx"],
            "gray.onnx: takes images of 1x8x8",
        ),
        (["{0}/model.onnx", "--data", "digits", "--original", "{0}/text.onnx"], "cannot load it"),
        (["{0}/model.onnx", "--data", "digits", "--int8-of", "{0}/scores.onnx"], "no output `logits`"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    folder: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in complaint([part.format(folder) for part in arguments], capsys)


@pytest.mark.parametrize("option", ["--original", "--int8-of"])
def test_missing_onnxruntime_is_named(
    folder: Path, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    arguments = [str(folder / "model.onnx"), "--data", f"imagefolder:{folder / 'images'}"]
    arguments += [option, str(folder / "float.onnx")]
    assert "pip install 'coc-deploy[ort]'" in complaint(arguments, capsys)
    arguments = [*arguments[:3], "--backend", "onnxruntime"]
    assert "pip install 'coc-deploy[ort]'" in complaint(arguments, capsys)


@pytest.mark.parametrize(
    "arguments", [["--rounds", "0"], ["--batch", "x"], ["--thresholds", "a"], ["--limit", "-1"]]
)
def test_a_malformed_option_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["model.onnx", "--data", "digits", *arguments])
    assert stop.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("coc-bench: error: argument " + arguments[0])
    assert "_positive" not in last and "_thresholds" not in last
