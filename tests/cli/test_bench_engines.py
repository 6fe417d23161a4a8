"""Peers in other engines: the same answers as the float model, and a reason where there is no peer."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bench_files import SIZE, artifact, float_model, image_folder
from coc_bench import convert as conversion
from coc_bench import engines
from coc_bench.cli import main
from coc_bench.convert import convert, module_environment
from coc_bench.engines import openvino
from coc_bench.engines.base import Converted, Job
from coc_bench.opening import open_runner
from coc_bench.subjects import Kind, Precision, Subject
from coc_runtime.arithmetic import Task
from coc_runtime.errors import CocError

MODULES = {"openvino": "openvino", "mnn": "MNN", "ncnn": "ncnn"}
WHY = "the engine is optional: pip install it to test it"


def images(count: int = 8) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 3, SIZE, SIZE), np.uint8)


def logits(subject: Subject, pixels: np.ndarray) -> np.ndarray:
    """As a regression, a peer's answers are its outputs."""
    found, exits = open_runner(subject).run(pixels)
    assert set(exits) == {0}
    return found


def reference(path: Path, pixels: np.ndarray) -> np.ndarray:
    return logits(Subject("float", path, Kind.ORIGINAL, "onnxruntime", 1, task=Task.REGRESSION), pixels)


def peer(engine: str, path: Path, folder: Path, precision: Precision = Precision.FLOAT) -> Subject:
    made = convert(engine, Job(path, precision, folder / f"{engine}-{precision.value}", images(32)))
    return Subject(
        "peer",
        made.path,
        Kind.PEER,
        engine,
        1,
        settings=made.settings,
        task=Task.REGRESSION,
        precision=precision,
        image_shape=(3, SIZE, SIZE),
    )


def branching_model(path: Path) -> Path:
    """All operators that float models of coc-export hold: `image` to `logits`."""
    random = np.random.default_rng(0)
    weights = {
        "middle": np.float32(128),
        "unit": np.float32(1 / 128),
        "stem": random.standard_normal((6, 3, 3, 3)).astype(np.float32),
        "stem.bias": random.standard_normal(6).astype(np.float32),
        "depthwise": random.standard_normal((6, 1, 3, 3)).astype(np.float32),
        "grouped": random.standard_normal((6, 3, 1, 1)).astype(np.float32),
        "starts": np.zeros(2, np.int64),
        "ends": np.full(2, np.iinfo(np.int64).max),
        "axes": np.array([2, 3], np.int64),
        "steps": np.array([2, 2], np.int64),
        "pads": np.array([0, 1, 0, 0, 0, 2, 0, 0], np.int64),
        "scale": random.uniform(0.5, 2, 9).astype(np.float32),
        "shift": random.standard_normal(9).astype(np.float32),
        "mean": random.standard_normal(9).astype(np.float32),
        "variance": random.uniform(0.5, 2, 9).astype(np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "matrix": random.standard_normal((5, 27)).astype(np.float32),
        "matrix.bias": random.standard_normal(5).astype(np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        node("Sub", ["pixels", "middle"], ["centred"]),
        node("Mul", ["centred", "unit"], ["values"]),
        node("Conv", ["values", "stem", "stem.bias"], ["sums"], pads=[1, 1, 1, 1], strides=[1, 2]),
        node("Relu", ["sums"], ["body"]),
        node("Conv", ["body", "depthwise"], ["wide"], pads=[1, 1, 1, 1], group=6),
        node("Clip", ["wide", "low", "high"], ["clipped"]),
        node("Conv", ["clipped", "grouped"], ["mixed"], group=2),
        node("Add", ["mixed", "body"], ["joined"]),
        node("Relu", ["joined"], ["active"]),
        node("MaxPool", ["active"], ["most"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("AveragePool", ["active"], ["some"], kernel_shape=[2, 2], strides=[2, 2], count_include_pad=1),
        node("Slice", ["active", "starts", "ends", "axes", "steps"], ["half"]),
        node("Pad", ["half", "pads"], ["padded"]),
        node("BatchNormalization", ["padded", "scale", "shift", "mean", "variance"], ["even"]),
        node("Concat", ["most", "some", "some", "even"], ["both"], axis=1),
        node("GlobalAveragePool", ["both"], ["means"]),
        node("Flatten", ["means"], ["features"]),
        node("Gemm", ["features", "matrix", "matrix.bias"], ["answers"], transB=1),
        node("Identity", ["answers"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "branching",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("engine", MODULES)
@pytest.mark.parametrize("build", [float_model, branching_model])
def test_a_float_peer_computes_what_the_float_model_does(engine: str, build: Any, tmp_path: Path) -> None:
    pytest.importorskip(MODULES[engine], reason=WHY)
    path = build(tmp_path / "float.onnx")
    subject = peer(engine, path, tmp_path)
    expected = reference(path, images())
    for count in (1, 8):
        found = logits(subject, images()[:count])
        assert found == pytest.approx(expected[:count], rel=1e-3, abs=1e-3)
    files = [file for file in subject.path.parent.iterdir() if file.stem == subject.path.stem]
    assert subject.file_bytes == sum(file.stat().st_size for file in files) > 1500


@pytest.mark.parametrize(("engine", "needs"), [("openvino", "nncf"), ("mnn", "MNN")])
def test_an_int8_peer_computes_it_but_for_rounding(engine: str, needs: str, tmp_path: Path) -> None:
    pytest.importorskip(MODULES[engine], reason=WHY)
    pytest.importorskip(needs, reason=WHY)
    path = float_model(tmp_path / "float.onnx")
    subject = peer(engine, path, tmp_path, Precision.INT8)
    assert subject.settings["calibration_images"] == 32
    expected, found = reference(path, images()), logits(subject, images())
    assert np.abs(found - expected).max() > 0  # It is quantized.
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_int8_weights_for_openvino_have_half_their_range_where_sums_saturate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dot_products(flags: list[str], most: str | None = None) -> bool:
        monkeypatch.setattr(openvino, "cpu_flags", lambda: flags)
        monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
        if most:
            monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", most)
        return openvino.dot_products()

    assert not dot_products(["avx2"])
    assert not dot_products(["avx2", "avx512f", "avx512bw"])
    assert dot_products(["avx2", "avx512f", "avx512bw", "avx512_vnni"])
    assert dot_products(["avx2", "avx_vnni"]) and dot_products(["asimd"])
    assert not dot_products(["avx2", "avx512_vnni"], "AVX2")
    assert dot_products(["avx2", "avx512_vnni"], "AVX512_CORE_VNNI")


def test_mnns_tools_which_install_a_package_are_never_imported(tmp_path: Path) -> None:
    pytest.importorskip("MNN", reason=WHY)
    path = float_model(tmp_path / "float.onnx")
    code = (
        "import sys, numpy, pathlib\n"
        "sys.modules['MNN.tools'] = None\n"
        "from coc_bench.engines import mnn, base\n"
        "from coc_bench.subjects import Precision\n"
        "folder = pathlib.Path(sys.argv[2]); folder.mkdir()\n"
        "pixels = numpy.zeros((2, 3, 8, 8), numpy.uint8)\n"
        "mnn.ENGINE.convert(base.Job(pathlib.Path(sys.argv[1]), Precision.INT8, folder, pixels))\n"
    )
    words = [sys.executable, "-c", code, str(path), str(tmp_path / "out")]
    done = subprocess.run(words, env=module_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "int8.mnn").is_file()


def test_an_operator_without_a_rule_is_named(tmp_path: Path) -> None:
    pytest.importorskip("ncnn", reason=WHY)
    model = onnx.load(str(float_model(tmp_path / "float.onnx")))
    (relu,) = [node for node in model.graph.node if node.op_type == "Relu"]
    relu.op_type = "Tanh"
    onnx.save(model, str(tmp_path / "tanh.onnx"))
    with pytest.raises(CocError, match="no rule for the operator Tanh"):
        peer("ncnn", tmp_path / "tanh.onnx", tmp_path)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os; os.abort()", "its converter crashed (signal 6)"),
        ("raise ValueError('bad\\nmodel')", "its converter failed: bad"),
    ],
)
def test_a_converter_that_crashes_or_fails_is_a_reason(
    body: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import dataclasses\n"
        "from coc_bench import engines\n"
        f"def convert(job):\n    {body}\n"
        "engines.ENGINES['mnn'] = dataclasses.replace(engines.ENGINES['mnn'], convert=convert)\n"
    )
    monkeypatch.setattr(sys, "path", [str(broken), *sys.path])
    with pytest.raises(CocError) as error:
        convert("mnn", Job(float_model(tmp_path / "f.onnx"), Precision.FLOAT, tmp_path / "out", images()))
    assert str(error.value) == reason


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("engines")
    image_folder(root / "images")
    artifact(root / "model.onnx", exits=1)
    float_model(root / "float.onnx")
    return root


def bench(folder: Path, *arguments: str) -> dict[str, Any]:
    out = folder / "out.json"
    words = [str(folder / "model.onnx"), "--data", f"imagefolder:{folder / 'images'}", "--rounds", "4"]
    assert main([*words, "--original", str(folder / "float.onnx"), "--json", str(out), *arguments]) == 0
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_peers_are_measured_in_the_same_run_and_named_with_their_version(folder: Path) -> None:
    pytest.importorskip("openvino", reason=WHY)
    pytest.importorskip("nncf", reason=WHY)
    report = bench(folder, "--peers", "onnxruntime,openvino")
    assert report["missing_peers"] == []
    rows = [(run["artifact"], run["kind"], run["precision"], run["backend"]) for run in report["runs"]]
    assert rows == [
        ("model.onnx", "artifact", None, "onnxruntime"),
        ("float.onnx", "original", "float", "onnxruntime"),
        ("float.onnx (int8)", "int8", "int8", "onnxruntime"),
        ("float.onnx", "peer", "float", "openvino"),
        ("float.onnx (int8)", "peer", "int8", "openvino"),
    ]
    original, int8, floating, quantized = report["runs"][1:]
    assert floating["accuracy"] == original["accuracy"]
    assert abs(quantized["accuracy"] - int8["accuracy"]) < 0.2
    assert all(run["version"].startswith("20") for run in (floating, quantized))
    assert floating["settings"]["performance_hint"] == "LATENCY"
    assert floating["bitops_cr"] is None and floating["load_ms"] > 0


def test_every_run_is_compared_with_originals_peers_and_the_first_artifact(folder: Path) -> None:
    report = bench(folder, "--peers", "onnxruntime", "--backend", "reference", "--backend", "onnxruntime")
    pairs = [(entry["of"], entry["to"]) for entry in report["ratios"]]
    assert pairs == [(0, 2), (0, 3), (1, 0), (1, 2), (1, 3), (2, 0), (2, 3), (3, 0), (3, 2)]
    means = [run["latency_us"]["mean"] for run in report["runs"]]
    for entry in report["ratios"]:
        low, high = entry["interval"]
        expected = means[entry["of"]] / means[entry["to"]]
        assert entry["mean_latency_ratio"] == pytest.approx(expected)
        verdict = "faster" if high < 1 else "slower" if low > 1 else "no difference"
        assert entry["verdict"] == verdict


def test_all_names_a_reason_for_each_engine_that_is_not_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("openvino", "MNN", "ncnn"):
        monkeypatch.setitem(sys.modules, name, None)
    report = bench(folder, "--peers", "all")
    assert [run["kind"] for run in report["runs"]] == ["artifact", "original", "int8"]
    reasons = {entry["peer"]: entry["reason"] for entry in report["missing_peers"]}
    assert list(reasons) == ["openvino", "mnn", "ncnn", "litert"]
    for name, module in MODULES.items():
        assert reasons[name] == f"the package {module} is not installed: pip install {module}"
    assert "onnx2tf" in reasons["litert"]
    assert "missing: openvino: the package openvino is not installed" in capsys.readouterr().out


def test_an_engine_that_crashes_on_the_model_is_missing_and_the_rest_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nonsense(engine: str, job: Job) -> Converted:
        (job.folder.parent / "broken.xml").write_text("not a model")
        return Converted(job.folder.parent / "broken.xml")

    pytest.importorskip("openvino", reason=WHY)
    monkeypatch.setattr("coc_bench.peers.convert", nonsense)
    report = bench(folder, "--peers", "openvino")
    assert [run["kind"] for run in report["runs"]] == ["artifact", "original"]
    assert [entry["peer"] for entry in report["missing_peers"]] == ["openvino float", "openvino int8"]
    assert "OpenVINO cannot load it" in report["missing_peers"][0]["reason"]


def test_engines_are_listed_under_their_own_names() -> None:
    assert all(name == engine.name for name, engine in engines.ENGINES.items())
    assert not set(engines.CANNOT) & set(engines.ENGINES)
    assert conversion.QUIET  # Converters run without their telemetry.
