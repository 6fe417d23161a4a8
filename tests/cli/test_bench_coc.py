"""coc-bench on .coc files: beside .onnx files, on every back end that runs them."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench_files import artifact, float_model, image_folder
from coc_bench import subjects
from coc_bench.cli import main
from coc_bench.opening import open_runner
from coc_bench.subjects import Kind, Subject
from coc_bench.tables import table
from coc_runtime.backends import native
from openers import usual_level

missing = native.why_missing()
built = pytest.mark.skipif(missing is not None, reason=str(missing))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coc")
    image_folder(root / "images")
    for name in ("model.onnx", "model.coc"):
        artifact(root / name, exits=2)
    float_model(root / "float.onnx")
    return root


def bench(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """The runs of one call of coc-bench, whose paths are in the folder."""
    out = folder / "out.json"
    paths = [str(folder / word) if word.endswith((".coc", ".onnx")) else word for word in arguments]
    data = ["--data", f"imagefolder:{folder / 'images'}", "--rounds", "5", "--batch", "8"]
    assert main([*paths, *data, "--json", str(out)]) == 0
    runs: list[dict[str, Any]] = json.loads(out.read_text())["runs"]
    return runs


@built
def test_each_back_end_runs_the_artifacts_that_it_can(folder: Path) -> None:
    backends = [word for name in ("native", "onnxruntime", "reference") for word in ("--backend", name)]
    runs = bench(folder, "model.onnx", "model.coc", *backends, "--original", "float.onnx")
    assert [(run["artifact"], run["backend"]) for run in runs] == [
        ("model.onnx", "onnxruntime"),
        ("model.onnx", "reference"),
        ("model.coc", "native"),
        ("model.coc", "reference"),
        ("float.onnx", "onnxruntime"),
    ]
    artifacts = runs[:-1]
    for key in ("accuracy", "exit_share", "expected_bitops", "bitops_cr", "cr"):
        assert all(run[key] == artifacts[0][key] for run in artifacts), key
    assert artifacts[2]["file_bytes"] == (folder / "model.coc").stat().st_size
    assert [run["cpu_level"] for run in runs] == [None, None, usual_level(), None, None]
    assert {run["reason"] for run in artifacts} == {"asked for"}
    native_row = table(runs).splitlines()[4]
    assert native_row.startswith(f"model.coc   native {usual_level()} ")


@built
def test_auto_takes_the_fast_one_for_each_kind_and_tells_why(folder: Path) -> None:
    coc, onnx = bench(folder, "model.coc", "model.onnx")
    assert (coc["backend"], coc["reason"]) == ("native", "the fastest for .coc files")
    assert (onnx["backend"], onnx["reason"]) == ("onnxruntime", "the fastest that is installed")


@built
def test_the_level_that_the_environment_names_is_the_one_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COC_CPU", "scalar")
    (run,) = bench(folder, "model.coc")
    assert run["cpu_level"] == "scalar"


def test_without_the_extension_auto_runs_the_reference_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "why_missing", lambda: "the C extension was not built")
    (run,) = bench(folder, "model.coc")
    assert (run["backend"], run["reason"]) == ("reference", "the C extension was not built")


@built
def test_what_a_native_subject_loads_is_not_more_than_it_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its load time is that of the core: the graph that the report needs is read when it is asked for."""
    reads: list[str] = []
    parse = subjects.Session.graph.fget
    assert parse is not None
    monkeypatch.setattr(
        subjects.Session, "graph", property(lambda self: (reads.append("graph"), parse(self))[1])
    )
    runner = open_runner(Subject("m", folder / "model.coc", Kind.ARTIFACT, "native", 1))
    assert not reads
    assert runner.graph is not None and reads
