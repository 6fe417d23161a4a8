"""The model card: its figures are the report's, and its snippets run as they are written."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from coc_export import card
from coc_export.cli import main
from coc_export.export_report import report_path
from conftest import TinyRun
from native_driver import NATIVE, core_sources
from tiny import digits


@pytest.fixture(scope="module")
def folder(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("card")
    outs = ["--out", str(folder / "model.onnx"), "--out", str(folder / "model.coc")]
    budget = ["--choose-on", "digits", "--max-drop", "5"]
    assert main([str(tiny_run.model), *outs, *budget, "--images", "40"]) == 0
    return folder


def snippets(folder: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (folder / "model.md").read_text(), re.DOTALL)


def test_the_card_holds_the_figures_of_the_reports(folder: Path) -> None:
    text = (folder / "model.md").read_text()
    assert text.startswith(card.MARK) and "DPQE (distillation, pruning, quantization, early exit)" in text
    for name in ("model.onnx", "model.coc"):
        report = json.loads(report_path(folder / name).read_text())
        assert report["artifact_sha256"] in text and f"{report['size']['file_bytes']:,}" in text
        assert f"{report['threshold_choice']['choice']['latency_us']['mean']:.1f}" in text
    assert f"{report['parity']['accuracy']:.2f} % on 40 test images of digits" in text
    assert f"{report['cost']['bitops_cr']:.1f}x below the original" in text
    for spent in report["cost"]["exit_bitops"]:
        assert f"{spent:,}" in text
    assert "Thresholds were chosen for `--max-drop 5` on 126 held-out images of digits" in text
    assert ", ".join(digits("test").classes) in text


@pytest.mark.parametrize("index", range(3))
def test_python_snippets_run_as_written(index: int, folder: Path) -> None:
    found = snippets(folder, "python")
    assert len(found) == 3 and sum("onnxruntime" in snippet for snippet in found) == 1
    done = subprocess.run(
        [sys.executable, "-c", found[index]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_c_snippet_builds_without_a_warning_and_runs_as_written(folder: Path, tmp_path: Path) -> None:
    (snippet,) = snippets(folder, "c")
    (tmp_path / "model.c").write_text(snippet)
    flags = ["-std=c11", "-D_GNU_SOURCE", f"-I{NATIVE}"]
    strict = ["-Wall", "-Wextra", "-Werror", "-c", "-o", str(tmp_path / "model.o")]
    for command in (
        ["gcc", *flags, *strict, str(tmp_path / "model.c")],
        ["gcc", *flags, "-O0", "-ffp-contract=off", "-o", str(tmp_path / "model"), str(tmp_path / "model.o")]
        + [*map(str, core_sources()), "-lm", "-pthread"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    done = subprocess.run([str(tmp_path / "model")], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and re.match(r"label \d, exit \d, confidence 0\.\d+", done.stdout), done


def test_something_that_is_no_card_is_not_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.md").write_text("# My notes\n")
    arguments = [str(folder / "model.coc"), "--out", str(tmp_path / "model.coc"), "--images", "3"]
    assert main(arguments) == 2
    assert "model.md: is no model card of coc-export" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model.md"]
    (tmp_path / "model.md").write_text(card.MARK + "\nleftover\n")
    assert main(arguments) == 0
    assert "leftover" not in (tmp_path / "model.md").read_text()
