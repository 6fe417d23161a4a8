"""coc-export on a real run: the file, its report, its split form, and that other programs run them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from coc_deploy import checkpoint
from coc_deploy.network import exit_logits
from coc_export import parity
from coc_export.cli import main
from coc_runtime import arithmetic
from coc_runtime.session import Session
from conftest import TinyRun
from tiny import digits, plain_forward


@pytest.fixture(scope="module")
def exported(tiny_run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert (
        main(
            [str(tiny_run.model), "--out", str(out), "--split", str(out.parent / "split"), "--data", "digits"]
        )
        == 0
    )
    return out


@pytest.fixture(scope="module")
def report(exported: Path) -> dict[str, Any]:
    return dict(json.loads(exported.with_suffix(".report.json").read_text()))


def test_every_pair_of_back_ends_agrees_on_the_whole_test_split(
    report: dict[str, Any], tiny_run: TinyRun
) -> None:
    agreement = report["parity"]
    assert agreement["images"] == len(digits("test").labels) and agreement["data"] == "digits"
    names = {name for pair in agreement["pairs"] for name in pair["pair"]}
    assert {"torch integer mode", "reference"} < names and len(names) == 6
    assert len(agreement["pairs"]) == 15
    for pair in agreement["pairs"]:
        assert (pair["differing_logits"], pair["flipped_exits"]) == (0, 0)
        assert pair["images"] == len(digits("test").labels) and pair["logits"] >= 10 * pair["images"]
    history = json.loads((tiny_run.out / "history.json").read_text())
    assert agreement["accuracy"] == pytest.approx(history[-1]["accuracy"])


def test_every_weight_takes_exactly_its_bits(report: dict[str, Any], exported: Path) -> None:
    sizes = report["size"]
    for weight in sizes["weights"]:
        assert weight["bytes"] == -(-weight["bits"] * weight["count"] // 8)
    assert {weight["bits"] for weight in sizes["weights"]} == {1, 8}
    parts = ("weight_bytes", "bias_bytes", "scale_bytes", "table_bytes", "structure_bytes")
    assert sum(sizes.get(part, 0) for part in parts) == sizes["file_bytes"] == exported.stat().st_size


def test_costs_and_shares_are_those_of_the_run(report: dict[str, Any], tiny_run: TinyRun) -> None:
    last = json.loads((tiny_run.out / "history.json").read_text())[-1]
    costs = report["cost"]
    assert costs["exit_share"] == pytest.approx(last["exit_share"])
    for key in ("expected_bitops", "bitops_cr", "bitops_cr_uniform", "cr"):
        assert costs[key] == pytest.approx(last[key]), key
    assert sum(layer["macs"] for layer in costs["layers"]) == last["macs"]
    assert costs["exit_bitops"][-1] == sum(layer["bitops"] for layer in costs["layers"])
    assert report["thresholds"] == last["thresholds"]


def test_our_runtime_gives_torchs_integers_and_exits(exported: Path, tiny_run: TinyRun) -> None:
    images = digits("test").images[:60]
    per_exit = exit_logits(checkpoint.load(tiny_run.model).network, images)
    for backend in ("onnxruntime", "reference"):
        result = Session(exported, backend=backend).run(images)
        np.testing.assert_array_equal(result.logits, per_exit[result.exit, np.arange(60)])


STOCK = """\
import sys
sys.modules.update(dict.fromkeys(("coc_runtime", "coc_export", "coc_deploy", "torch", "onnx")))
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession({model!r})
for image in np.load({images!r}):
    logits, taken, confidence = session.run(None, {{"image": image[None]}})
    print(int(taken[0]), float(confidence[0]), *logits[0].tolist())
"""


def test_stock_onnxruntime_runs_the_file_without_our_code(
    exported: Path, tiny_run: TinyRun, tmp_path: Path
) -> None:
    images = digits("test").images[:80]
    np.save(tmp_path / "images.npy", images)
    script = STOCK.format(model=str(exported), images=str(tmp_path / "images.npy"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    network = checkpoint.load(tiny_run.model).network
    expected = Session(exported, backend="reference").run(images)
    per_exit = exit_logits(network, images)
    for i, line in enumerate(done.stdout.splitlines()):
        taken, confidence, *logits = (float(number) for number in line.split())
        assert int(taken) == expected.exit[i]
        assert logits == per_exit[int(taken), i].tolist()
        assert confidence == pytest.approx(float(expected.confidence[i]), abs=1e-6)
    assert i == 79


def test_split_files_chain_to_the_same_logits_in_stock_onnxruntime(exported: Path, tiny_run: TinyRun) -> None:
    network = checkpoint.load(tiny_run.model).network
    images = digits("test").images
    paths = sorted((exported.parent / "split").iterdir())
    assert [path.name for path in paths] == ["segment0.onnx", "segment1.onnx", "segment2.onnx"]
    known: dict[str, np.ndarray] = {"image": images}
    limits = arithmetic.gate_thresholds(network.thresholds)
    for k, (path, expected) in enumerate(zip(paths, exit_logits(network, images), strict=True)):
        session = onnxruntime.InferenceSession(str(path))
        names = [entry.name for entry in session.get_outputs()]
        feeds = {entry.name: known[entry.name] for entry in session.get_inputs()}
        known |= dict(zip(names, session.run(names, feeds), strict=True))
        np.testing.assert_array_equal(known["logits"], expected)
        about = json.loads(session.get_modelmeta().custom_metadata_map["coc_segment"])
        assert about["segment"] == k and about.get("threshold") == (float(limits[k]) if k < 2 else None)
        np.testing.assert_allclose(known["confidence"], arithmetic.confidence(expected), atol=1e-6)


def test_the_same_model_gives_the_same_file(exported: Path, tiny_run: TinyRun, tmp_path: Path) -> None:
    out = tmp_path / "again.onnx"
    assert main([str(tiny_run.model), "--out", str(out), "--images", "3"]) == 0
    assert out.read_bytes() == exported.read_bytes()
    assert json.loads(out.with_suffix(".report.json").read_text())["parity"]["images"] == 3


def test_the_original_exports_as_float(tiny_run: TinyRun, tmp_path: Path) -> None:
    model, out = tiny_run.out / "00-original/model.pt", tmp_path / "float.onnx"
    assert main([str(model), "--out", str(out), "--float"]) == 0
    images = digits("test").images
    (logits,) = onnxruntime.InferenceSession(str(out)).run(["logits"], {"image": images})
    expected = plain_forward(checkpoint.load(model).network, images)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())


def differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """One logit of one back end is off by its last digit."""

    def wrong(*arguments: Any) -> np.ndarray:
        logits = exit_logits(*arguments)
        logits[-1, 2, 3] = np.nextafter(logits[-1, 2, 3], np.float32(9))
        return logits

    monkeypatch.setattr(parity, "exit_logits", wrong)


def test_a_difference_fails_the_export_and_leaves_no_file(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    differ(monkeypatch)
    split = ["--split", str(tmp_path / "split")]
    assert main([str(tiny_run.model), "--out", str(tmp_path / "m.onnx"), "--images", "20", *split]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert "back ends differ on" in line and "nothing was written (--allow-mismatch keeps the file)" in line
    assert list(tmp_path.iterdir()) == []


def test_allow_mismatch_keeps_the_file_and_the_report_says_so(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    differ(monkeypatch)
    out = tmp_path / "m.onnx"
    assert main([str(tiny_run.model), "--out", str(out), "--images", "20", "--allow-mismatch"]) == 0
    assert out.exists()
    found = json.loads(out.with_suffix(".report.json").read_text())["parity"]
    wrong = [pair for pair in found["pairs"] if pair["differing_logits"]]
    assert found["differing_logits"] >= 3 and all("torch integer mode" in pair["pair"] for pair in wrong)
    assert f"{found['differing_logits']} differing logits" in capsys.readouterr().out
