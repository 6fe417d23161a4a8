"""coc-export's options: contradictions and what there is not are told in one line, with exit code 2."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from coc_export.cli import main
from coc_export.export_report import report_path
from coc_runtime import cocfile, coclayout, cocwrite, manifest, onnxfile
from coc_runtime.graph import Graph
from coc_runtime.session import Session
from conftest import TinyRun
from exporting import complaint, image_folder
from tiny import digits

BUDGETS = [["--max-drop", "1"], ["--max-latency", "1ms"], ["--bitops", "2e7"]]


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    outs = ["--out", str(folder / "m.onnx"), "--out", str(folder / "m.coc")]
    assert main([str(tiny_run.model), *outs, "--images", "3"]) == 0
    return folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--choose-on", "digits"],
            "needs exactly one budget of --max-drop, --max-latency, --bitops: none given",
        ),
        (["--choose-on", "digits", *BUDGETS[0], *BUDGETS[2]], "exactly one budget of"),
        (["--max-drop", "1"], "--max-drop needs --choose-on DATA"),
        (["--max-latency", "1ms", "--bitops", "9"], "--max-latency, --bitops needs --choose-on"),
        (["--choose-on", "digits", *BUDGETS[0], "--thresholds", "0.5,0.5"], "leave one of them out"),
        (["--thresholds", "0.5"], "--thresholds: 1 thresholds given, the model has 2 early exits"),
        (["--thresholds", "0.5,0.5,0.5"], "--thresholds: 3 thresholds given"),
        (["--thresholds", "0.5,-1"], "--thresholds: thresholds [0.5, -1.0] must be numbers of at least 0"),
        (["--thresholds", "0.5,nan"], "must be numbers of at least 0"),
        (["--thresholds", "0.5;0.5"], "give one number per early exit, e.g. 0.8,0.9"),
        (["--choose-on", "digits", "--max-drop", "-1"], "--max-drop -1: must be a number 0 or more"),
        (["--choose-on", "digits", "--max-drop", "nan"], "must be a number 0 or more"),
        (["--choose-on", "digits", "--bitops", "0"], "--bitops 0: must be a number above 0"),
        (["--choose-on", "digits", "--bitops", "many"], "--bitops many: must be a number above 0"),
        (["--choose-on", "digits", "--max-latency", "5"], "give a time with its unit, e.g. 1.5ms or 800us"),
        (["--choose-on", "digits", "--max-latency", "xms"], "--max-latency xms: must be a number above 0"),
        (["--choose-on", "mnist", *BUDGETS[0]], "unknown data 'mnist'"),
        (["--choose-on", "rotated-digits", *BUDGETS[0]], "holds numbers, the model predicts classes"),
        (["--choose-on", "digits", "--bitops", "9"], "cannot be met, thresholds reach "),
        (["--choose-on", "digits", "--max-latency", "1e-3us"], "cannot be met here, thresholds reach "),
        (["--opset", "21"], "--opset is a matter of ONNX files"),
        (["--float"], "--float writes ONNX only"),
        (["--verify", "m.coc"], "--verify takes the files to check itself and no IN"),
    ],
)
def test_contradictions_are_told(
    options: list[str], words: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(exported / "m.coc"), "--out", str(tmp_path / "o.coc"), *options]
    assert words in complaint(arguments, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give IN, a model.pt, an .onnx or a .coc file, or --verify"),
        (["m.coc"], "give --out MODEL.onnx, --out MODEL.coc or both"),
        (["none.pt", "--out", "o.coc"], "none.pt: no such file"),
        (["none.onnx", "--out", "o.coc"], "none.onnx: no such file"),
        (["m.onnx", "--out", "o.onnx", "--opset", "12"], "--opset 12: choose one of 13 to 25"),
        (["m.onnx", "--out", "o.onnx", "--opset", "twenty"], "--opset twenty: choose one of 13 to 25"),
        (["m.onnx", "--out", "o.onnx", "--float"], "--float: m.onnx holds integers"),
        (["m.onnx", "--out", "o.onnx", "--float", "--opset", "20"], "--opset does not go with --float"),
        (["--verify", "m.coc", "--out", "o.coc"], "--out does not go with --verify"),
        (["--verify", "m.coc", "--max-drop", "1"], "--max-drop does not go with --verify"),
        (["--verify", "m.coc", "--sizes"], "--sizes does not go with --verify"),
        (["--verify", "m.coc", "none.coc"], "none.coc: no such file"),
        (["--verify", "m.coc", "--images", "0"], "--images 0: must be at least 1"),
    ],
)
def test_wrong_command_lines_are_told(
    arguments: list[str],
    words: str,
    exported: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(exported)
    before = sorted(path.name for path in exported.iterdir())
    assert words in complaint(arguments, capsys)
    assert sorted(path.name for path in exported.iterdir()) == before


def test_the_least_that_is_reachable_is_told(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(exported / "m.coc"), "--out", str(exported / "x.coc"), "--choose-on", "digits"]
    line = complaint([*arguments, "--bitops", "100"], capsys)
    least = Session(exported / "m.coc").info.exit_bitops[0]
    assert f"thresholds reach {least:,} BitOps an image at best" in line


def test_held_out_images_that_do_not_fit_are_told(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(exported / "m.coc"), "--out", str(tmp_path / "o.coc"), "--data", "digits"]
    for size, words in (
        (9, "images are [1, 9, 9], the model takes [1, 8, 8]"),
        (8, "2 classes, the model has 10"),
    ):
        spec = image_folder(tmp_path / f"images{size}", size)
        line = complaint([*arguments, "--choose-on", spec, "--max-drop", "1"], capsys)
        assert f"--choose-on {spec}: {words}" in line


def test_data_without_held_out_images_are_told(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = image_folder(tmp_path / "images", 8)
    for path in (tmp_path / "images/train").glob("*/[12].png"):
        path.unlink()
    arguments = [str(exported / "m.coc"), "--out", str(tmp_path / "o.coc"), "--data", "digits"]
    line = complaint([*arguments, "--choose-on", spec, "--max-drop", "1"], capsys)
    assert "no images for the held-out split" in line


@pytest.mark.parametrize("options", [["--thresholds", "0.5"], ["--choose-on", "digits", *BUDGETS[0]]])
def test_a_model_without_exits_has_no_thresholds(
    options: list[str], tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(tiny_run.out / "03-quantize/model.pt"), "--out", str(tmp_path / "o.coc")]
    line = complaint([*arguments, *options], capsys)
    assert f"{options[0]}: " in line and "has no early exits; add E to the recipe's chain" in line


def newer(path: Path, folder: Path) -> Path:
    """The same artifact in a format of the future."""
    changed = folder / path.name
    if path.suffix == ".coc":
        data = bytearray(path.read_bytes())
        data[8:10] = (coclayout.VERSION + 1).to_bytes(2, "little")
        changed.write_bytes(cocwrite.seal(bytes(data)))
        return changed
    model = onnx.load(path)
    structure = json.loads(next(p.value for p in model.metadata_props if p.key == "coc"))
    content = json.dumps(structure | {"format": manifest.FORMAT + 1}).encode()
    changed.write_bytes(onnxfile.model_bytes(model.graph.SerializeToString(deterministic=True), content))
    return changed


@pytest.mark.parametrize("name", ["m.coc", "m.onnx"])
@pytest.mark.parametrize("what", ["export", "verify"])
def test_an_artifact_of_a_newer_format_is_told(
    what: str, name: str, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = newer(exported / name, tmp_path)
    arguments = ["--verify", str(path)] if what == "verify" else [str(path), "--out", str(tmp_path / "o.coc")]
    newest = coclayout.VERSION if name == "m.coc" else manifest.FORMAT
    message = f"{path}: format {newest + 1} is newer than this version reads ({newest})"
    assert message in complaint(arguments, capsys)


def test_an_artifact_that_does_not_tell_its_origin_is_told(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = cocfile.read(exported / "m.coc").graph
    bare = Graph(graph.input, graph.tensors, graph.segments, graph.thresholds, {}, graph.task)
    path = tmp_path / "bare.coc"
    path.write_bytes(cocwrite.dump(bare))
    line = complaint([str(path), "--out", str(tmp_path / "o.coc"), "--data", "digits"], capsys)
    assert "does not say what it was compressed from" in line


@pytest.mark.parametrize("opset", [13, 17, 18, 25])
def test_other_opsets_give_the_same_integers(opset: int, exported: Path, tmp_path: Path) -> None:
    known = onnx.defs.onnx_opset_version()
    if opset > known:
        pytest.skip(f"the installed onnx knows opsets up to {known}")
    out = tmp_path / "o.onnx"
    split = ["--split", str(tmp_path / "split")]
    arguments = [str(exported / "m.onnx"), "--out", str(out), "--opset", str(opset), *split]
    assert main([*arguments, "--images", "30"]) == 0
    model = onnx.load(out)
    assert model.opset_import[0].version == opset == json.loads(report_path(out).read_text())["opset"]
    assert model.ir_version == onnxfile.IR_VERSIONS[opset] <= onnx.IR_VERSION
    image = digits("test").images[:1]
    (logits,) = onnxruntime.InferenceSession(str(out)).run(["logits"], {"image": image})
    np.testing.assert_array_equal(logits, Session(exported / "m.coc").run(image).logits)
    first = onnxruntime.InferenceSession(str(tmp_path / "split/segment0.onnx"))
    (logits,) = first.run(["logits"], {"image": digits("test").images[:9]})
    expected = Session(exported / "m.coc").logits_per_exit(digits("test").images[:9])[0]
    np.testing.assert_array_equal(logits, expected)
    again = tmp_path / "again.onnx"
    assert main([str(out), "--out", str(again), "--images", "3"]) == 0
    assert again.read_bytes() == out.read_bytes(), "an .onnx file keeps its opset"


def test_sizes_are_printed_on_request(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.coc"
    assert main([str(exported / "m.coc"), "--out", str(out), "--images", "3", "--sizes"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()}
    sizes = json.loads(report_path(out).read_text())["size"]
    for weight in sizes["weights"]:
        found = [word.replace(",", "") for word in rows[weight["name"]][1:]]
        assert found == [str(weight[key]) for key in ("bits", "count", "bytes")]
    assert rows["file"][1].replace(",", "") == str(out.stat().st_size)
