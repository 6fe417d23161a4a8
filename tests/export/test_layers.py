"""coc-export --layers: where time goes, on screen and in the report of each artifact."""

import json
from pathlib import Path
from typing import Any

import pytest

from coc_export import layers
from coc_export.cli import main
from coc_runtime import cocfile, onnxfile
from coc_runtime.backends import native
from coc_runtime.profile import REST
from conftest import TinyRun
from openers import usual_level
from tiny import digits

missing = native.why_missing()
built = pytest.mark.skipif(missing is not None, reason=str(missing))


def export(tiny_run: TinyRun, folder: Path, *more: str) -> tuple[Path, Path]:
    outs = folder / "model.onnx", folder / "model.coc"
    flags = [flag for out in outs for flag in ("--out", str(out))]
    assert main([str(tiny_run.model), *flags, "--images", "5", *more]) == 0
    return outs


def check_rows(found: dict[str, Any], costs: list[dict[str, Any]]) -> None:
    """The rows hold the report's cost table, and times and shares that add up."""
    rows = {row["name"]: row for row in found["rows"]}
    assert len(rows) == len(found["rows"]) and found["rows"][-1]["name"] == REST
    for cost in costs:
        row = rows[cost["name"]]
        for key in ("segment", "macs", "weight_bits", "activation_bits", "bitops"):
            assert row[key] == cost[key], (cost["name"], key)
    assert sum(row["bitops"] for row in found["rows"]) == sum(cost["bitops"] for cost in costs)
    assert sum(row["share_of_time"] for row in found["rows"]) == pytest.approx(1)
    assert (found["images"], found["missing"]) == (5, None)


@built
def test_each_artifact_gets_a_table_and_a_place_in_its_report(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outs = export(tiny_run, tmp_path, "--layers")
    shown = capsys.readouterr().out
    reports = [json.loads((tmp_path / f"model{kind}report.json").read_text()) for kind in (".", ".coc.")]
    for report, where in zip(reports, ("onnxruntime", f"native, {usual_level()}"), strict=True):
        check_rows(report["layers"], report["cost"]["layers"])
        assert f"layers    {where}: " in shown and layers.text(report["layers"]) in shown
        assert any(row["op"] == "Add" and row["macs"] == 0 for row in report["layers"]["rows"])
    assert reports[0]["layers"]["cpu_level"] is None
    assert shown.count("\nsum ") == 2
    assert onnxfile.read(outs[0]).graph.exit_bitops() == cocfile.read(outs[1]).graph.exit_bitops()


def test_without_the_flag_nothing_is_measured_and_a_missing_core_is_said(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, packed = export(tiny_run, tmp_path)
    assert "layers" not in json.loads((tmp_path / "model.report.json").read_text())
    assert "layers  " not in capsys.readouterr().out
    monkeypatch.setattr(layers, "why_missing", lambda: "the C extension was not built")
    found = layers.measure(cocfile.read(packed), digits("test").images)
    assert found["rows"] == [] and found["missing"] == "the C extension was not built"
    assert layers.text(found) == "layers    not measured: the C extension was not built"


def test_float_models_have_no_layers_to_measure(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "model.onnx")
    assert main([str(tiny_run.model), "--out", out, "--float", "--layers"]) == 2
    assert "--layers does not go with --float" in capsys.readouterr().err
