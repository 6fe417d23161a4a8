"""The scripts that make committed figures: each can be imported, and the smallest work of one runs."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "benchmarks/scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_can_be_imported(script: Path) -> None:
    module = importlib.import_module(script.stem)
    assert Path(module.__file__ or "") == script
    assert module.__doc__


def test_every_script_that_the_makefile_names_is_there() -> None:
    named = re.findall(r"(benchmarks/\S+\.py)", (ROOT / "Makefile").read_text())
    assert len(named) > 10 and not [name for name in named if not (ROOT / name).is_file()]


def test_nothing_is_put_on_the_path() -> None:
    files = [*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    words = re.compile(r"sys\.path\.(append|insert|extend)\(")
    assert [path for path in files if words.search(path.read_text())] == []


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_kernels_are_measured_on_their_smallest_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    import conv_kernels

    layer = min(conv_kernels.layers(), key=lambda layer: layer.macs)
    words = ["--only", layer.name, "--rounds", "2", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["conv_kernels.py", *words])
    conv_kernels.main()
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert run["layer"] == layer.name and run["kernels"]
    assert {row["differs_from_onnxruntime"] for row in run["kernels"]} == {0}
