"""coc-bench --compare and --from: what they tell of earlier reports, and their exit codes."""

import copy
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import coc_bench
from bench_files import artifact, image_folder
from coc_bench.bench_report import read
from coc_bench.cli import main

SCHEMA_1 = Path(__file__).parents[1] / "bench_schema1.json"
"""As version 0.1 wrote it."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A real report whose intervals are then made narrow, since nothing here depends on the machine."""
    folder = tmp_path_factory.mktemp("compare")
    data, model = image_folder(folder / "images"), artifact(folder / "model.onnx", exits=1)
    words = [str(model), "--data", data, "--rounds", "5", "--json", str(folder / "out.json")]
    assert main([*words, "--backend", "reference", "--backend", "onnxruntime"]) == 0
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    for run in found["runs"]:
        run["latency_us"]["mean"] = 100.0
        run["mean_latency_interval_us"] = [99.0, 101.0]
    return found


def slowed(report: dict[str, Any], factor: float, which: int = 0) -> dict[str, Any]:
    changed = copy.deepcopy(report)
    run = changed["runs"][which]
    run["latency_us"]["mean"] *= factor
    run["mean_latency_interval_us"] = [factor * bound for bound in run["mean_latency_interval_us"]]
    return changed


def compare(
    folder: Path, old: Any, new: Any, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of comparing two reports."""
    paths = [folder / "old.json", folder / "new.json"]
    for path, value in zip(paths, (old, new), strict=True):
        path.write_text(json.dumps(value))
    capsys.readouterr()
    code = main(["--compare", *map(str, paths), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_equal_reports_are_no_different(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = compare(tmp_path, report, report, capsys, "--fail-if-slower", "0%")
    assert code == 0 and err == ""
    assert [line.count("no difference") for line in out.splitlines()] == [0, 1, 1]


@pytest.mark.parametrize(
    ("factor", "limit", "code"), [(1.10, "5%", 1), (1.10, "15%", 0), (1.04, "5%", 0), (0.8, "0%", 0)]
)
def test_only_what_is_slower_beyond_the_limit_fails(
    report: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    factor: float,
    limit: str,
    code: int,
) -> None:
    found, out, err = compare(tmp_path, report, slowed(report, factor), capsys, "--fail-if-slower", limit)
    assert found == code
    assert ("slower" if factor > 1 else "faster") in out.splitlines()[1]
    assert (f"is {factor - 1:.1%} slower, {float(limit[:-1]):.1f}% allowed" in err) == bool(code)


def test_what_noise_explains_does_not_fail(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = slowed(report, 1.2)
    noisy["runs"][0]["mean_latency_interval_us"] = [90.0, 160.0]
    code, out, _ = compare(tmp_path, report, noisy, capsys, "--fail-if-slower", "5%")
    assert code == 0 and "no difference" in out.splitlines()[1]


def test_without_a_limit_slower_is_told_but_does_not_fail(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = compare(tmp_path, report, slowed(report, 2, which=1), capsys)
    assert code == 0
    assert "slower" in out.splitlines()[2] and "2.000" in out.splitlines()[2]


def test_changes_of_accuracy_and_bitops_are_told(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy.deepcopy(report)
    changed["runs"][0]["accuracy"] -= 0.0125
    changed["runs"][0]["expected_bitops"] *= 1.5
    _, out, _ = compare(tmp_path, report, changed, capsys)
    assert "-1.25 points" in out.splitlines()[1] and "+50.0%" in out.splitlines()[1]
    assert "+0.00 points" in out.splitlines()[2]


def test_other_machines_versions_and_missing_runs_are_warned_of(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = copy.deepcopy(report)
    changed["environment"] |= {"cpu": "Abacus 3000", "numpy": "9.9", "date": "2001-01-01"}
    changed["runs"] = changed["runs"][:1]
    _, _, err = compare(tmp_path, report, changed, capsys)
    lines = err.splitlines()
    assert any(line.startswith("warning: the machines differ: cpu was") for line in lines)
    assert any("versions differ: numpy was" in line and "9.9" in line for line in lines)
    assert any(line.startswith("warning: only in the old report: model.onnx, onnxruntime") for line in lines)
    assert not any("2001" in line for line in lines) and len(lines) == 3


def test_a_report_of_schema_1_is_read_and_compared(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = read(SCHEMA_1)
    assert committed["ratios"] == committed["missing_peers"] == [] and committed["drift"] is None
    first = copy.deepcopy(report) | {"schema": 1}
    for run in first["runs"]:
        del run["mean_latency_interval_us"], run["version"], run["precision"]
    for key in ("ratios", "missing_peers", "drift", "settings"):
        del first[key]
    code, out, err = compare(tmp_path, first, slowed(report, 3), capsys, "--fail-if-slower", "5%")
    assert code == 1 and "slower" in out.splitlines()[1]
    assert "no interval recorded" in err


def test_an_earlier_report_is_shown_as_it_was(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(report))
    capsys.readouterr()
    assert main(["--from", str(path)]) == 0
    out = capsys.readouterr().out
    assert "model.onnx" in out and "100" in out and "clock:" in out
    assert main(["--from", str(SCHEMA_1)]) == 0
    assert "original.onnx" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is not JSON"),
        ("[]", "is not a report"),
        ('{"schema": 2, "environment": {}, "runs": []}', "is not a report"),
        ('{"schema": 2, "environment": {}, "runs": [{"artifact": "m"}]}', "is not a report"),
        ("NEWER", "has schema 99, this coc-bench reads up to 2: update coc-deploy"),
    ],
)
@pytest.mark.parametrize("option", ["--from", "--compare"])
def test_what_is_not_a_report_is_told_in_one_line(
    report: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    text: str | None,
    words: str,
) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(json.dumps(report | {"schema": 99}) if text == "NEWER" else text)
    capsys.readouterr()
    assert main([option, *([str(path)] * (2 if option == "--compare" else 1))]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and words in captured.err
    assert captured.err.startswith("coc-bench: error: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize("option", ["--from", "--compare"])
@pytest.mark.parametrize("key", ["backend", "samples", "latency_us", "expected_bitops", "exit_share"])
def test_a_report_with_a_part_of_another_shape_is_told_in_one_line(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, key: str
) -> None:
    spoiled = copy.deepcopy(report)
    for run in spoiled["runs"]:
        run[key] = {"mean": 1.0} if key == "latency_us" else [None]
    path, page = tmp_path / "x.json", tmp_path / "page.html"
    path.write_text(json.dumps(spoiled))
    capsys.readouterr()
    more = [str(path)] if option == "--compare" else ["--html", str(page)]
    status, said = main([option, str(path), *more]), capsys.readouterr().err
    assert "Traceback" not in said and not page.exists()
    if option == "--compare" and key in ("latency_us", "exit_share"):
        assert status == 0, "which it does not read so deep"
    else:
        assert status == 2 and said.count("\n") == 1 and f"{path}" in said and "is no whole report" in said


def test_reports_with_nothing_in_common_are_refused(
    report: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy.deepcopy(report)
    for run in other["runs"]:
        run["artifact"] = "else.onnx"
    code, out, err = compare(tmp_path, report, other, capsys)
    assert code == 2 and out == "" and "measure nothing in common" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no model is named"),
        (["m.onnx"], "m.onnx: no such file"),
        (["m.onnx", "--data", "digits", "--peers", "all"], "--peers needs the float model"),
        (["m.onnx", "--data", "digits", "--fail-if-slower", "5%"], "--fail-if-slower needs --compare"),
        (["--from", "a.json", "--data", "digits"], "--from measures nothing, so --data does not go with it"),
        (["m.onnx", "--from", "a.json"], "--from measures nothing, so a MODEL does not go with it"),
        (["--compare", "a", "b", "--json", "c"], "--compare measures nothing, so --json does not go with"),
        (["--compare", "a", "b", "--html", "c"], "--compare has no page"),
        (["--compare", "a", "b", "--from", "c"], "give one of them"),
    ],
)
def test_options_that_contradict_each_other_are_told_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert words in err and err.startswith("coc-bench: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("text", ["x", "-1%", "inf", ""])
def test_a_limit_that_is_no_percentage_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--compare", "a", "b", f"--fail-if-slower={text}"])
    assert stop.value.code == 2
    assert "is not a percentage like 5%" in capsys.readouterr().err


def test_a_page_is_made_of_an_earlier_report(
    report: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[Path, dict[str, Any]]] = []
    page = types.ModuleType("coc_bench.page")
    page.write = lambda path, found: written.append((path, found))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coc_bench.page", page)
    monkeypatch.setattr(coc_bench, "page", page, raising=False)
    path = tmp_path / "earlier.json"
    path.write_text(json.dumps(report))
    assert main(["--from", str(path), "--html", str(tmp_path / "page.html")]) == 0
    assert written == [(tmp_path / "page.html", report)]
