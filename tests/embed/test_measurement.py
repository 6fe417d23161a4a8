"""benchmarks/scripts/embedding.py on the tiny network, for moments."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import TinyRun
from sites import run

pytest.importorskip("fastapi", reason="the service runs on FastAPI")
pytest.importorskip("uvicorn", reason="the service runs on uvicorn")
pytest.importorskip("onnxruntime", reason="one of the programs runs on it")

PROGRAMS = ("python", "c", "onnxruntime", "batch", "service", "shared")


@pytest.mark.skipif(
    None in (shutil.which("cc"), shutil.which("cmake"), shutil.which("make")), reason="builds the C program"
)
def test_every_program_is_measured_and_nothing_differs(tiny_run: TinyRun, tmp_path: Path) -> None:
    out = tmp_path / "embedding.json"
    words = ("--model", tiny_run.model, "--seconds", 0.1, "--each", 0.1, "--json", out)
    done = run("benchmarks/scripts/embedding.py", *words)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result.keys() >= {"environment", *PROGRAMS}
    rates = [row["images_per_s"] for name in ("python", "batch") for row in result[name]]
    rates += [result[name]["images_per_s"] for name in ("c", "onnxruntime")]
    rates += [row["requests_per_s"] for row in result["service"]]
    assert len(rates) >= 10 and min(rates) > 0
    assert {(row["backend"], row["mismatches"]) for row in result["shared"]} == {
        ("native", 0),
        ("onnxruntime", 0),
        ("reference", 0),
    }


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    done = run("benchmarks/scripts/embedding.py", "--model", tmp_path / "model.pt")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
