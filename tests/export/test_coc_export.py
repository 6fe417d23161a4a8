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
from coc_export.lowering import lower
from coc_runtime import cocfile, cocwrite
from coc_runtime.errors import CocError
from coc_runtime.session import Session
from conftest import TinyRun
from graphs import random_graph
from tiny import digits


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model.coc"
    assert main([str(tiny_run.model), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def report(exported: Path) -> dict[str, Any]:
    return dict(json.loads(exported.with_suffix(".report.json").read_text()))


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
    parts = ("weight_bytes", "bias_bytes", "scale_bytes", "structure_bytes")
    assert sum(sizes[part] for part in parts) == sizes["file_bytes"] == exported.stat().st_size
    assert sizes["structure_bytes"] > 48


def test_the_ledger_fails_when_weights_are_not_in_the_file_at_their_bits() -> None:
    file = cocfile.parse(cocwrite.dump(random_graph(0)), "memory")
    ledger.coc_ledger(file)
    with pytest.raises(CocError, match="1-bit weights do not take .* bytes"):
        ledger.coc_ledger(cocfile.CocFile(file.graph, file.data[:-400]))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("model.tflite", [], "the name must end in .onnx or .coc"),
        ("model", [], "the name must end in .onnx or .coc"),
        ("model.coc", ["--float"], "--float writes ONNX only"),
        ("model.coc", ["--split", "parts"], "--split writes ONNX only"),
    ],
)
def test_other_files_are_refused(
    name: str,
    options: list[str],
    words: str,
    tiny_run: TinyRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([str(tiny_run.model), "--out", str(tmp_path / name), *options]) == 2
    line = capsys.readouterr().err
    assert words in line and line.count("\n") == 1
    assert not list(tmp_path.iterdir())
