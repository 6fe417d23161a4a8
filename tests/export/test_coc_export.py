"""coc-export --out model.coc: the packed file, its report, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coc_deploy import checkpoint
from coc_deploy.network import exit_logits
from coc_export import ledger
from coc_export.cli import main
from coc_export.export_report import report_path
from coc_export.lowering import lower
from coc_runtime import cocfile, cocwrite
from coc_runtime.backends import Outcome, native
from coc_runtime.backends.native import NativeBackend
from coc_runtime.errors import CocError
from coc_runtime.session import Session
from conftest import TinyRun
from graphs import random_graph
from tiny import digits

missing = native.why_missing()
built = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model.coc"
    assert main([str(tiny_run.model), "--out", str(out), "--data", "digits"]) == 0
    return out


@pytest.fixture(scope="module")
def report(exported: Path) -> dict[str, Any]:
    return dict(json.loads(exported.with_name("model.coc.report.json").read_text()))


def test_the_file_read_back_gives_torchs_integers_on_the_whole_test_split(report: dict[str, Any]) -> None:
    agreement = report["parity"]
    assert agreement["images"] == len(digits("test").labels)
    assert [pair["pair"] for pair in agreement["pairs"]][0] == ["torch integer mode", "reference"]
    for pair in agreement["pairs"]:
        assert (pair["differing_logits"], pair["flipped_exits"]) == (0, 0)


def test_a_session_runs_the_file(exported: Path, tiny_run: TinyRun) -> None:
    images = digits("test").images[:40]
    session = Session(exported, backend="reference")
    expected = exit_logits(checkpoint.load(tiny_run.model).network, images)
    np.testing.assert_array_equal(session.logits_per_exit(images), expected)


def test_the_same_model_gives_the_same_bytes(exported: Path, tiny_run: TinyRun) -> None:
    graph = lower(checkpoint.load(tiny_run.model), tiny_run.model)
    assert cocwrite.dump(graph) == exported.read_bytes()


def test_the_ledger_accounts_for_every_byte(report: dict[str, Any], exported: Path) -> None:
    sizes = report["size"]
    for weight in sizes["weights"]:
        assert weight["bytes"] == -(-weight["bits"] * weight["count"] // 8)
    assert {weight["bits"] for weight in sizes["weights"]} == {1, 8}
    parts = ("weight_bytes", "bias_bytes", "scale_bytes", "table_bytes", "structure_bytes")
    assert sum(sizes.get(part, 0) for part in parts) == sizes["file_bytes"] == exported.stat().st_size
    assert sizes["structure_bytes"] > 48


def test_the_ledger_fails_when_weights_are_not_in_the_file_at_their_bits() -> None:
    file = cocfile.parse(cocwrite.dump(random_graph(0)), "memory")
    ledger.coc_ledger(file)
    with pytest.raises(CocError, match="1-bit weights do not take .* bytes"):
        ledger.coc_ledger(cocfile.CocFile(file.graph, file.data[:-400]))


@built
def test_the_core_takes_part_at_every_level(report: dict[str, Any]) -> None:
    agreement = report["parity"]
    names = {name for pair in agreement["pairs"] for name in pair["pair"]}
    expected = {"torch integer mode", "reference"}
    for level in native.levels():
        expected |= {f"native-{level}", f"native-{level}, all exits"}
    assert names == expected and "native-scalar" in names
    assert len(agreement["pairs"]) == len(names) * (len(names) - 1) // 2
    assert "native_missing" not in agreement


@built
def test_the_environments_level_does_not_narrow_the_check(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COC_CPU", "scalar")
    out = tmp_path / "m.coc"
    assert main([str(tiny_run.model), "--out", str(out), "--images", "3"]) == 0
    pairs = json.loads(report_path(out).read_text())["parity"]["pairs"]
    assert f"native-{native.levels()[0]}" in {name for pair in pairs for name in pair["pair"]}


def wrong_logits(backend: NativeBackend, images: np.ndarray) -> np.ndarray:
    logits = right_logits(backend, images)
    if backend.cpu == "scalar":
        logits[-1, 2, 3] = np.nextafter(logits[-1, 2, 3], np.float32(9))
    return logits


def wrong_exits(backend: NativeBackend, images: np.ndarray) -> Outcome:
    logits, label, exits, confidence, bitops = right_run(backend, images)
    if backend.cpu == "scalar":
        exits[4] = (exits[4] + 1) % 3
    return logits, label, exits, confidence, bitops


right_logits, right_run = NativeBackend.logits_per_exit, NativeBackend.run


@built
@pytest.mark.parametrize(
    ("method", "wrong", "words"),
    [("logits_per_exit", wrong_logits, " and 0 exits"), ("run", wrong_exits, " on 0 logits and ")],
)
def test_a_level_that_differs_fails_the_export_and_leaves_no_file(
    method: str,
    wrong: Any,
    words: str,
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(NativeBackend, method, wrong)
    outs = ["--out", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "m.coc")]
    assert main([str(tiny_run.model), *outs, "--images", "20"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "m.coc: back ends differ on " in line and words in line and "nothing was written" in line
    assert list(tmp_path.iterdir()) == []


def test_without_the_extension_the_export_succeeds_and_says_so(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "why_missing", lambda: "the C extension was not built")
    out = tmp_path / "m.coc"
    assert main([str(tiny_run.model), "--out", str(out), "--images", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "native    not compared: the C extension was not built" in lines
    agreement = json.loads(report_path(out).read_text())["parity"]
    assert agreement["native_missing"] == "the C extension was not built"
    assert [pair["pair"] for pair in agreement["pairs"]] == [["torch integer mode", "reference"]]


def test_one_call_writes_both_kinds_with_a_report_each(
    exported: Path, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = ["--out", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "m.coc")]
    arguments = [str(tiny_run.model), *outs, "--images", "3", "--split", str(tmp_path / "split")]
    assert main(arguments) == 0
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"m.onnx", "m.coc", "m.report.json", "m.coc.report.json", "m.md", "split"}
    assert (tmp_path / "m.coc").read_bytes() == exported.read_bytes()
    reports = [json.loads((tmp_path / name).read_text()) for name in ("m.report.json", "m.coc.report.json")]
    assert [report["artifact"] for report in reports] == ["m.onnx", "m.coc"]
    assert reports[0]["cost"] == reports[1]["cost"]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.endswith(":")] == ["m.onnx:", "m.coc:"]
    assert len([line for line in lines if line.startswith("wrote ")]) == 3


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("model.tflite", [], "the name must end in .onnx or .coc"),
        ("model", [], "the name must end in .onnx or .coc"),
        ("model.coc", ["--float"], "--float writes ONNX only"),
        ("model.coc", ["--split", "parts"], "--split writes ONNX only"),
        ("model.coc", ["--out", "model.onnx", "--float"], "--float writes ONNX only"),
        ("model.coc", ["--out", "other.coc"], "--out can be given twice only for one .onnx and one .coc"),
    ],
)
def test_other_files_are_refused(
    name: str,
    options: list[str],
    words: str,
    tiny_run: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(tiny_run.model), "--out", name, *options]) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1
    assert not list(tmp_path.iterdir())
