"""A regression from recipe to benchmark: rotated digits through coc-compress, coc-export and coc-bench."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coc_bench import cli as bench
from coc_deploy import checkpoint
from coc_deploy import cli as compress
from coc_export import cli as export
from coc_runtime import Session, datasets, quality
from coc_runtime.backends import native
from coc_runtime.graph import Task
from conftest import TinyRun
from tiny import write_recipe

RECIPE = """\
chain = "DQE"
data = "rotated-digits"
task = "regression"
seed = 1

[original]
model = "resnet8"
width = 8
epochs = 3
lr = 0.003
optimizer = "adam"

[d]
model = "resnet8"
width = 8
epochs = 2
lr = 0.003
optimizer = "adam"

[q]
bits = "4x8"
epochs = 2

[e]
positions = [0.4, 0.7]
head_channels = 8
epochs = 1
max_drop = 20
"""
IMAGES = 200


@dataclass(frozen=True)
class Done:
    """A run's folder with its two artifacts, and what the commands said."""

    out: Path
    compressed: str
    exported: str

    @property
    def history(self) -> list[dict[str, Any]]:
        return json.loads((self.out / "history.json").read_text())


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("regression")
    out, said = folder / "run", []
    steps = (
        (compress.main, [str(write_recipe(folder, RECIPE)), "--out", str(out), "--threads", "1"]),
        (
            export.main,
            [str(out / "model.pt"), "--out", str(out / "model.onnx"), "--out", str(out / "model.coc")]
            + ["--data", "rotated-digits", "--images", str(IMAGES), "--split", str(out / "split")],
        ),
    )
    for command, arguments in steps:
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            assert command(arguments) == 0
        said.append(stdout.getvalue())
    return Done(out, *said)


def test_every_stage_records_errors_in_place_of_accuracy(done: Done) -> None:
    for record in done.history:
        assert record["accuracy"] is None and "exit_accuracy" not in record
        assert np.isfinite(record["mae"]) and len(record["exit_mae"]) == len(record["thresholds"]) + 1
        assert {"calibration_mae", "loss"} <= record["epochs"][-1].keys()
    original, *_, last = done.history
    assert original["r2"] > 0.2 and last["r2"] > 0
    assert last["exit_share"][0] == 0
    head, *rows = [line for line in done.compressed.splitlines() if " epoch " not in line]
    assert "MAE" in head and "R2" in head and "accuracy" not in head
    assert f"{last['mae']:.4f}" in rows[3] and f"{last['r2']:.4f}" in rows[3]
    text = (done.out / "report.md").read_text()
    assert f"MAE {last['mae']:.4f}, R2 {last['r2']:.4f} on 1491 test images" in text
    assert "| exit | threshold | images that leave | mean absolute error on all images |" in text


@pytest.mark.parametrize("name", ["model.onnx", "model.coc"])
def test_no_back_end_differs_and_the_file_gives_the_numbers(done: Done, name: str) -> None:
    test = datasets.load("rotated-digits", "test")
    session = Session(done.out / name)
    assert session.info.task is Task.REGRESSION and session.info.classes == 1
    result = session.run(test.images)
    last = done.history[-1]
    assert quality.measure(result.logits, test.labels, Task.REGRESSION) == {
        "accuracy": None,
        "mae": pytest.approx(last["mae"]),
        "r2": pytest.approx(last["r2"]),
    }
    shares = np.bincount(result.exit, minlength=3) / len(result.exit)
    assert shares.tolist() == pytest.approx(last["exit_share"])
    ending = ".report.json" if name.endswith("onnx") else ".coc.report.json"
    report = json.loads((done.out / name).with_suffix(ending).read_text())
    parity = report["parity"]
    assert (parity["differing_logits"], parity["flipped_exits"], parity["images"]) == (0, 0, IMAGES)
    some = result.logits[:IMAGES], test.labels[:IMAGES]
    assert parity["accuracy"] is None
    assert parity["mae"] == pytest.approx(quality.mean_absolute_error(*some))
    assert f"MAE {parity['mae']:.4f}, R2 {parity['r2']:.4f}" in done.exported
    assert session.graph.meta["mae"] == last["mae"] and "task" not in session.graph.meta


def test_coc_bench_reports_errors(done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = done.out / "00-original" / "model.pt", done.out / "f.onnx"
    assert export.main([str(source), "--float", "--out", str(target)]) == 0
    names = ["model.onnx"] + (["model.coc"] if native.why_missing() is None else [])
    out = done.out / "bench.json"
    arguments = [str(done.out / name) for name in names] + ["--original", str(target)]
    arguments += ["--data", "rotated-digits", "--rounds", "5", "--limit", "300", "--json", str(out)]
    assert bench.main(arguments) == 0
    *artifacts, original = json.loads(out.read_text())["runs"]
    for run in artifacts:
        assert run["accuracy"] is None and run["exit_share"][0] == 0
        assert run["mae"] == artifacts[0]["mae"] < 0.55 and run["r2"] > 0
        assert run["exit_mae"][-1] > 0 and run["mae_by_exit"][0] is None and run["exit_latency_us"][0] is None
        (chosen,) = [point for point in run["curve"] if point["chosen"]]
        assert chosen["mae"] == pytest.approx(run["mae"], rel=1e-5) and chosen["accuracy"] is None
    assert original["mae"] == pytest.approx(done.history[0]["mae"], rel=0.2)
    table = capsys.readouterr().out
    assert "MAE" in table and f"{original['r2']:.4f}" in table and "acc %" not in table


@pytest.mark.parametrize("budget", [("--max-drop", "10"), ("--bitops", "0.9"), ("--max-latency", "1s")])
def test_tolerances_are_chosen_within_a_budget(
    budget: tuple[str, str], done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = datasets.load("rotated-digits", "held-out")
    spent = Session(done.out / "model.coc").info.exit_bitops
    option, value = budget
    text = f"{float(value) * spent[2]:.0f}" if option == "--bitops" else value
    out = tmp_path / "m.coc"
    arguments = [str(done.out / "model.coc"), "--out", str(out), "--choose-on", "rotated-digits"]
    assert export.main([*arguments, option, text, "--images", "5"]) == 0
    result = Session(out).run(held_out.images)
    last = Session(out, thresholds=[0.0, 0.0]).run(held_out.images)
    mae, best = (quality.mean_absolute_error(found.logits, held_out.labels) for found in (result, last))
    section = json.loads(Path(f"{out}.report.json").read_text())["threshold_choice"]
    assert section["choice"]["mae"] == pytest.approx(mae)
    assert section["choice"]["bitops"]["mean"] == pytest.approx(result.bitops.mean())
    assert section["exit_latency_us"][0] is None and section["choice"]["exit_share"][0] == 0
    if option == "--max-drop":
        assert mae <= 1.1 * best
    else:
        assert result.bitops.mean() <= 0.9 * spent[2] or option == "--max-latency"
    assert "MAE" in capsys.readouterr().out
    assert "differs from the one before by at most the threshold" in (tmp_path / "m.md").read_text()


def test_data_of_classes_are_refused_with_what_to_do(
    done: Done, tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def complaint(command: Any, *arguments: Any) -> str:
        capsys.readouterr()
        assert command.main([str(argument) for argument in arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    onnx = done.out / "model.onnx"
    line = complaint(bench, onnx, "--data", "digits", "--rounds", 2)
    assert "gives numbers, but the labels of digits are classes" in line and "--data rotated-digits" in line
    line = complaint(export, done.out / "model.pt", "--out", tmp_path / "m.onnx", "--data", "digits")
    assert "holds classes, the model predicts numbers" in line and "rotated-digits" in line
    line = complaint(export, tiny_run.model, "--out", tmp_path / "m.onnx", "--data", "rotated-digits")
    assert "holds numbers, the model predicts classes" in line and "e.g. digits" in line
    recipe = write_recipe(tmp_path, RECIPE)
    line = complaint(compress, recipe, "--out", tmp_path / "run", "--set", "data=digits")
    assert 'leave task = "regression" out' in line
    given = f"original.checkpoint={tiny_run.model}"
    line = complaint(compress, recipe, "--out", tmp_path / "run", "--set", "chain=Q", "--set", given)
    assert "the recipe's task is regression: set task = 'classification'" in line


def test_a_chain_goes_on_from_a_given_regression_and_warns_of_a_single_exit(
    done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path, RECIPE)
    given = f"original.checkpoint={done.out / '01-distill' / 'model.pt'}"
    options = [given, "chain=PE", "p.epochs=0", "e.epochs=0", "e.positions=[0.5]"]
    changes = [word for option in options for word in ("--set", option)]
    assert compress.main([str(recipe), "--out", str(tmp_path / "run"), *changes]) == 0
    assert "with one no image leaves early; give e.positions two" in capsys.readouterr().out
    result = checkpoint.load(tmp_path / "run" / "model.pt")
    assert result.meta["task"] == "regression" and result.history[-1]["exit_share"] == [0, 1]
