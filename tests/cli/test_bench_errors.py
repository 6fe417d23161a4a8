"""coc-bench tells a user's mistake in one line on stderr and exits with 2."""

import sys
from pathlib import Path

import onnx
import pytest

from bench_files import artifact, float_model, image_folder
from coc_bench.cli import main
from coc_runtime.backends import native


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("errors")
    image_folder(root / "images")
    artifact(root / "model.onnx", exits=1)
    artifact(root / "four.onnx", exits=0, classes=4)
    whole = artifact(root / "model.coc", exits=1).read_bytes()
    (root / "cut.coc").write_bytes(whole[:-9])
    (root / "flipped.coc").write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
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
        (["{0}/model.onnx", "--data", "digits", "--backend", "abacus"], "--backend abacus runs none of the"),
        (
            ["{0}/model.onnx", "--data", "digits", "--backend", "reference", "--backend", "native"],
            "--backend native runs none of the artifacts: choose one of auto, onnxruntime, reference",
        ),
        (
            ["{0}/model.coc", "--data", "digits", "--backend", "onnxruntime"],
            "--backend onnxruntime runs none of the artifacts: choose one of auto, native, reference",
        ),
        (
            ["{0}/model.coc", "{0}/model.onnx", "--data", "digits", "--backend", "native"],
            "model.onnx: --backend native does not run it: add one of auto, onnxruntime, reference",
        ),
        (["{0}/model.coc", "--data", "digits"], "model.coc: takes images of 3x8x8"),
        (["{0}/cut.coc", "--data", "digits"], "cut.coc: truncated"),
        (["{0}/flipped.coc", "--data", "digits", "--backend", "reference"], "flipped.coc"),
        (["{0}/model.coc", "--data", "digits", "--original", "{0}/model.coc"], "cannot load it"),
        (["{0}/model.onnx", "--data", "digits", "--thresholds", "1,1,1"], "3 thresholds"),
        (
            ["{0}/model.onnx", "--data", "imagefolder:{0}/images", "--original", "{0}/gray.onnx"],
            "gray.onnx: takes images of 1x8x8",
        ),
        (["{0}/model.onnx", "--data", "digits", "--original", "{0}/text.onnx"], "cannot load it"),
        (["{0}/model.onnx", "--data", "digits", "--int8-of", "{0}/scores.onnx"], "no output `logits`"),
        (
            ["{0}/model.onnx", "--data", "digits", "--original", "{0}/float.onnx", "--peers", "mnn,abacus"],
            "--peers: there is no 'abacus': choose all or some of onnxruntime, openvino, mnn, ncnn, litert",
        ),
        (["{0}/model.onnx", "--data", "digits", "--json", "{0}/text.onnx/out.json"], "cannot be created"),
        (["{0}/model.onnx", "--data", "digits", "--html", "{0}/text.onnx/p.html"], "cannot be created"),
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


def test_a_native_back_end_that_was_not_built_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "why_missing", lambda: "the C extension was not built")
    arguments = [str(folder / "model.coc"), "--data", "digits", "--backend", "native"]
    assert "backend native: the C extension was not built" in complaint(arguments, capsys)


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
