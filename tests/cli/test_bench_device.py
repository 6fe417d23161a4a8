"""coc-bench on a bare device: the runtime alone, no data set, terminals without Unicode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench_files import artifact, float_model, image_folder
from coc_bench.cli import main
from coc_bench.convert import module_environment
from coc_runtime import Session
from coc_runtime.backends import native

BARE = """
import sys
from importlib.abc import MetaPathFinder
NAMES = {"onnxruntime", "onnx", "torch", "PIL", "sklearn", "scipy", "openvino", "MNN", "ncnn", "matplotlib"}
class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in NAMES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
"""A sitecustomize.py with which nothing but the runtime's wheel and NumPy can be imported."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("device")
    artifact(root / "model.coc", exits=1)
    (root / "bare").mkdir()
    (root / "bare" / "sitecustomize.py").write_text(BARE)
    return root


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """coc-bench in a process in which only NumPy is installed."""
    variables = module_environment(environment)
    variables["PYTHONPATH"] = os.pathsep.join([str(folder / "bare"), variables["PYTHONPATH"]])
    code = "import sys; from coc_bench.cli import main; sys.exit(main(sys.argv[1:]))"
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.run(words, env=variables, capture_output=True, check=False)


def test_a_coc_file_is_measured_with_nothing_but_numpy_and_no_data(folder: Path) -> None:
    out = folder / "bare.json"
    words = [str(folder / "model.coc"), "--data", "random", "--rounds", "5", "--limit", "9"]
    done = command(folder, *words, "--json", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    (run,) = report["runs"]
    assert run["backend"] == ("native" if native.why_missing() is None else "reference")
    assert (run["accuracy"], run["data"], run["samples"]) == (None, "random", 9)
    assert run["accuracy_by_exit"] == run["exit_accuracy"] == [None, None]
    assert run["exit_images"] == [[], []]
    assert run["latency_us"]["mean"] > 0 and run["exit_latency_us"][0] > 0
    assert {point["accuracy"] for point in run["curve"]} == {None}


def test_what_is_missing_there_is_named(folder: Path) -> None:
    float_model(folder / "float.onnx")
    words = [str(folder / "model.coc"), "--data", "random", "--original", str(folder / "float.onnx")]
    done = command(folder, *words)
    assert done.returncode == 2
    assert b"pip install 'coc-deploy[ort]'" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize(("encoding", "bar"), [("ascii", "#"), ("utf-8", "\u2588")])
def test_a_terminal_gets_what_its_encoding_holds(folder: Path, encoding: str, bar: str) -> None:
    name = folder / "modèle.coc"
    name.write_bytes((folder / "model.coc").read_bytes())
    words = [str(name), "--data", "random", "--rounds", "20"]
    done = command(folder, *words, PYTHONIOENCODING=f"{encoding}:strict", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert bar in text
    assert ("modèle.coc" if encoding == "utf-8" else "mod\\xe8le.coc") in text
    error = command(folder, "é.coc", "--data", "random", PYTHONIOENCODING=f"{encoding}:strict")
    assert error.returncode == 2 and error.stderr.decode(encoding).startswith("coc-bench: error: ")


def test_random_images_are_the_same_each_time_and_serve_to_quantize(tmp_path: Path) -> None:
    model, floating = artifact(tmp_path / "model.onnx", exits=1), float_model(tmp_path / "float.onnx")
    shares = []
    for name in ("one.json", "two.json"):
        words = [str(model), "--data", "random", "--rounds", "2", "--json", str(tmp_path / name)]
        assert main([*words, "--int8-of", str(floating)]) == 0
        artifact_run, int8 = json.loads((tmp_path / name).read_text())["runs"]
        shares.append(artifact_run["exit_share"])
        assert int8["accuracy"] is None and int8["settings"]["calibration"] == "MinMax"
    assert shares[0] == shares[1]


def test_models_of_different_sizes_do_not_go_with_the_same_random_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, gray = artifact(tmp_path / "model.onnx", exits=0), float_model(tmp_path / "g.onnx", channels=1)
    assert main([str(model), "--data", "random", "--original", str(gray)]) == 2
    assert "takes images of 1x8x8, those of random are 3x8x8" in capsys.readouterr().err


def test_threads_and_cpus_are_reported(tmp_path: Path) -> None:
    model, out = artifact(tmp_path / "model.onnx", exits=0), tmp_path / "out.json"
    words = [str(model), "--data", "random", "--rounds", "2", "--json", str(out)]
    assert main([*words, "--cpu", "any", "--threads", "2"]) == 0
    assert (found := json.loads(out.read_text()))["settings"]["cpus"] is None
    assert found["settings"]["threads"] == found["runs"][0]["threads"] == 2
    assert main(words) == 0
    cpus = json.loads(out.read_text())["settings"]["cpus"]
    assert cpus is None or len(cpus) == 1


def test_a_cpu_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = artifact(tmp_path / "model.onnx", exits=0)
    assert main([str(model), "--data", image_folder(tmp_path / "images"), "--cpu", "4095"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("coc-bench: error: --cpu") and err.count("\n") == 1
    with pytest.raises(SystemExit):
        main([str(model), "--data", "random", "--cpu", "x"])
    assert "is not a list of CPUs like 0,2-3" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error_and_costs_no_report(folder: Path) -> None:
    out = folder / "piped.json"
    words = [str(folder / "model.coc"), "--data", "random", "--rounds", "2", "--json", str(out)]
    code = "import sys; from coc_bench.cli import main; sys.exit(main(sys.argv[1:]))"
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=module_environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(out.read_text())["schema"] == 2


def test_without_data_latency_is_measured_and_no_more_claimed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [artifact(tmp_path / "exits.coc", exits=2), artifact(tmp_path / "plain.coc", exits=0)]
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    words = [*map(str, models), "--rounds", "3", "--json", str(out), "--html", str(page)]
    assert main(words) == 0
    report = json.loads(out.read_text())
    exits, plain = report["runs"]
    assert report["settings"]["data"] == "random" and exits["accuracy"] is plain["accuracy"] is None
    keys = ("expected_bitops", "bitops_cr", "bitops_cr_uniform")
    assert {exits[key] for key in keys} == {None}, "random images leave where no real one would"
    assert plain["expected_bitops"] > 0, "without early exits BitOps are certain"
    assert exits["latency_us"]["mean"] > 0 and len(exits["exit_latency_us"]) == 3
    said = capsys.readouterr().out
    assert "the images are random: accuracy is not measured; at which exits they leave" in said
    assert "(--data names real ones)" in said
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert main(["--from", str(out)]) == 0
    assert "the images are random" in capsys.readouterr().out


def test_bitops_of_random_images_are_known_where_thresholds_decide_alone(tmp_path: Path) -> None:
    model, out = artifact(tmp_path / "m.coc", exits=2), tmp_path / "out.json"
    spent = Session(model).info.exit_bitops
    for limits, exit_ in (("2,2", 2), ("0,0", 0), ("2,0", 1)):
        words = [str(model), "--rounds", "2", "--json", str(out), "--thresholds", limits]
        assert main(words) == 0
        (run,) = json.loads(out.read_text())["runs"]
        assert run["expected_bitops"] == spent[exit_] and run["exit_share"][exit_] == 1
