"""A run: stages into folders, nothing computed twice, the same model for the same seed, every short chain."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from coc_deploy import chain, checkpoint, recipe, train
from coc_deploy.chain import Data
from coc_deploy.cli import main
from coc_deploy.network import exit_logits
from coc_deploy.qat import QConv
from coc_runtime import files
from conftest import TinyRun
from tiny import RECIPE, digits, same_state, write_recipe

SUBSEQUENCES = ["".join(letters) for n in range(1, 5) for letters in itertools.combinations("DPQE", n)]
FOLDERS = ["00-original", "01-distill", "02-prune", "03-quantize", "04-exit"]
FAST = [
    *("--set", "batch=1024", "--set", "original.model=resnet8"),
    *(part for section in ("original", "d", "q", "e") for part in ("--set", f"{section}.epochs=1")),
]


def compress(recipe_path: Path, out: Path, *options: str) -> int:
    return main([str(recipe_path), "--out", str(out), "--threads", "1", *options])


def weights_of(model: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(model, weights_only=True)["state"])


def record_training(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the stages that train from now on."""
    trained: list[str] = []
    plain = train.fit

    def fit(job: train.Job) -> list[dict[str, float]]:
        trained.append(job.name)
        return plain(job)

    monkeypatch.setattr(train, "fit", fit)
    return trained


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("coc-compress: error: ")
    return line


def test_each_stage_leaves_a_folder_a_line_of_history_and_a_row_on_screen(tiny_run: TinyRun) -> None:
    history = json.loads((tiny_run.out / "history.json").read_text())
    assert [record["stage"] for record in history] == ["original", "distill", "prune", "quantize", "exit"]
    assert len((tiny_run.out / "history.json").read_text().splitlines()) == len(history) + 2
    for folder, record in zip(FOLDERS, history, strict=True):
        result = json.loads((tiny_run.out / folder / "result.json").read_text())
        assert result.pop("key") and result == record
        assert not (tiny_run.out / folder / "progress.pt").exists()
        assert any(line.startswith(f"{record['stage']:<10}") for line in tiny_run.stdout.splitlines())
    assert not list(tiny_run.out.rglob(".*"))
    assert (tiny_run.out / "model.pt").read_bytes() == (tiny_run.out / "04-exit/model.pt").read_bytes()


def test_records_hold_what_was_measured(tiny_run: TinyRun) -> None:
    test, config = digits("test"), recipe.load(tiny_run.recipe, [])
    history = json.loads((tiny_run.out / "history.json").read_text())
    original = history[0]
    assert (original["bitops_cr"], original["bitops_cr_uniform"], original["cr"]) == (1, 1, 1)
    for folder, record in zip(FOLDERS, history, strict=True):
        network = checkpoint.load(tiny_run.out / folder / "model.pt").network
        logits = exit_logits(network, test.images)
        assert record["exit_accuracy"] == [train.accuracy(exit_, test.labels) for exit_ in logits]
        assert sum(record["exit_share"]) == pytest.approx(1)
        if folder != "04-exit":
            assert record["accuracy"] == record["exit_accuracy"][0]
        assert record["test_images"] == len(test.labels) and record["seconds"] > 0
        section = config.original if folder == "00-original" else getattr(config, record["stage"][0])
        assert [epoch["epoch"] for epoch in record["epochs"]] == list(range(1, section.epochs + 1))
        assert {"epoch", "loss", "calibration_accuracy", "seconds", "images_per_s"} <= record["epochs"][
            0
        ].keys()
        assert record["bitops_cr"] == pytest.approx(original["expected_bitops"] / record["expected_bitops"])
        assert record["cr"] == pytest.approx(original["stored_bits"] / record["stored_bits"])
    bits = [record["bits"] for record in history]
    assert bits == ["32x32", "32x32", "32x32", "1x8", "1x8"]
    assert [record["model"] for record in history] == ["resnet14"] + ["resnet8"] * 4
    ratios = [record["bitops_cr"] for record in history[1:]]
    assert ratios[:3] == sorted(ratios[:3]) and min(ratios[2:]) > 100
    assert history[2]["macs"] < history[1]["macs"] * 0.4


def test_the_result_learned_something(tiny_run: TinyRun) -> None:
    accuracies = [record["accuracy"] for record in json.loads((tiny_run.out / "history.json").read_text())]
    assert min(accuracies) > 40, "chance is 10 %"


def test_the_exit_stage_leaves_the_body_as_it_was(tiny_run: TinyRun) -> None:
    before = weights_of(tiny_run.out / "03-quantize/model.pt")
    after = weights_of(tiny_run.out / "04-exit/model.pt")
    assert same_state(before, {name: value for name, value in after.items() if name in before})
    assert any(name.startswith("heads.1.") for name in after.keys() - before.keys())


def test_each_stages_model_names_the_chain_so_far(tiny_run: TinyRun) -> None:
    metas = [checkpoint.load(tiny_run.out / folder / "model.pt").meta for folder in FOLDERS]
    assert [meta["chain"] for meta in metas] == ["", "D", "DP", "DPQ", "DPQE"]
    assert [meta["chain_bits"] for meta in metas] == [[32, 32]] * 3 + [[1, 8]] * 2
    assert {(meta["data"], meta["original_bitops"]) for meta in metas} == {
        ("digits", metas[0]["original_bitops"])
    }


def test_the_same_command_again_computes_nothing(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = record_training(monkeypatch)
    paths = sorted(tiny_run.out.glob("*-*/*"))
    before = [path.stat().st_mtime_ns for path in paths]
    history = (tiny_run.out / "history.json").read_bytes()
    assert compress(tiny_run.recipe, tiny_run.out) == 0
    assert trained == []
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert (tiny_run.out / "history.json").read_bytes() == history
    lines = [line for line in tiny_run.stdout.splitlines() if not line.startswith("  ")]
    assert capsys.readouterr().out.splitlines() == [*lines[:-1], f"wrote {tiny_run.model}"] == lines


def test_the_same_seed_gives_the_same_model_bit_for_bit(tiny_run: TinyRun, tmp_path: Path) -> None:
    assert compress(tiny_run.recipe, tmp_path) == 0
    assert same_state(weights_of(tiny_run.model), weights_of(tmp_path / "model.pt"))
    first, second = (checkpoint.load(path).network for path in (tiny_run.model, tmp_path / "model.pt"))
    assert first.thresholds == second.thresholds


def store_like(run: TinyRun, folder: Path) -> tuple[str, str]:
    """The option of a store that holds the stages of a run."""
    shutil.copytree(run.out / "stages", folder / "store")
    return "--store", str(folder / "store")


def test_runs_with_one_store_take_over_equal_stages_and_compute_the_others(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = record_training(monkeypatch)
    shared = store_like(tiny_run, tmp_path)
    assert compress(tiny_run.recipe, tmp_path / "e", *shared, "--set", "e.max_drop=50") == 0
    assert trained == ["exit"]
    for folder in FOLDERS[:4]:
        assert same_state(*(weights_of(run / folder / "model.pt") for run in (tiny_run.out, tmp_path / "e")))
    trained.clear()
    assert compress(tiny_run.recipe, tmp_path / "q", *shared, "--set", "q.bits=4x8") == 0
    assert trained == ["quantize", "exit"]
    trained.clear()
    assert compress(tiny_run.recipe, tmp_path / "seed", *shared, "--set", "chain=P", "--set", "seed=9") == 0
    assert trained == ["original", "prune"]


def test_a_longer_chain_continues_a_shorter_one_in_the_same_folder(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    assert compress(tiny_run.recipe, out, *store_like(tiny_run, tmp_path), "--set", "chain=DP") == 0
    assert checkpoint.load(out / "model.pt").meta["chain"] == "DP"
    trained = record_training(monkeypatch)
    assert compress(tiny_run.recipe, out, "--set", "chain=DPQ", "--set", "q.bits=2x8") == 0
    assert trained == ["quantize"]
    assert checkpoint.load(out / "model.pt").meta["chain"] == "DPQ"


def test_another_recipe_in_the_same_folder_is_refused_and_changes_nothing(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = record_training(monkeypatch)
    before = {path: path.read_bytes() for path in tiny_run.out.rglob("*") if path.is_file()}
    assert compress(tiny_run.recipe, tiny_run.out, "--set", "p.ratio=0.25", "--set", "p.round_to=2") == 2
    line = one_line(capsys)
    assert "02-prune holds the result of another recipe" in line and "--store" in line
    assert trained == []
    assert {path: path.read_bytes() for path in tiny_run.out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("letters", SUBSEQUENCES)
def test_every_chain_with_letters_left_out_can_be_rehearsed(letters: str) -> None:
    chosen = recipe.parse({"chain": letters, "p": {"ratio": 0.5}})
    chain.rehearse(chosen, chain.start(chosen, Data.load("digits")))


@pytest.mark.parametrize("letters", SUBSEQUENCES)
def test_every_chain_with_letters_left_out_runs(letters: str, tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    changes = ["--set", f"chain={letters}", "--set", "original.width=8", *FAST]
    assert compress(path, tmp_path / "run", *changes) == 0
    loaded = checkpoint.load(tmp_path / "run/model.pt")
    network = loaded.network
    assert [record["stage"][0].upper() for record in loaded.history[1:]] == list(letters)
    assert (network.quant is not None) == ("Q" in letters)
    assert (network.exits is not None) == ("E" in letters) == bool(network.thresholds)
    width = network.state_dict()["body.conv1.weight"].shape[0]
    assert width == (4 if "P" in letters else 8)
    assert any(isinstance(unit, QConv) for unit in network.modules()) == ("Q" in letters)
    assert loaded.history[-1]["bitops_cr"] > (50 if "Q" in letters else 0.9 if "E" in letters else 1 - 1e-9)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["chain=Q", "original.shortcut=A"], "layer2.0.downsample: ShortcutA cannot be quantized"),
        (["chain=P", "original.shortcut=A"], "layer2.0.downsample: shortcut A"),
        (["chain=DQ", "d.shortcut=A"], "layer2.0.downsample: ShortcutA cannot be quantized"),
        (
            ["e.positions=['layer9.0']"],
            "exit position 'layer9.0' is not the end of a block; blocks are layer1.0",
        ),
        (["e.positions=['layer2.0', 'layer1.0']"], "must follow each other"),
        (["p.round_to=256"], "removes no channels"),
        (["original.weights=nowhere.pt"], "nowhere.pt"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(
    changes: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = record_training(monkeypatch)
    options = [part for change in changes for part in ("--set", change)]
    assert compress(write_recipe(tmp_path), tmp_path / "run", *options) == 2
    assert words in one_line(capsys)
    assert trained == []


def test_a_shortcut_a_original_can_teach_a_student(tmp_path: Path) -> None:
    options = ["--set", "chain=DQ", "--set", "original.shortcut=A", *FAST]
    assert compress(write_recipe(tmp_path), tmp_path / "run", *options) == 0


class Killed(BaseException):
    """What SIGKILL would have been, before or after a file was written."""


def test_a_run_that_dies_around_any_write_ends_with_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempt n dies at its n-th write, in turns before and after it."""
    path = write_recipe(tmp_path)
    options = [
        "--set",
        "batch=512",
        "--set",
        "original.epochs=1",
        "--set",
        "d.epochs=2",
        "--set",
        "q.epochs=2",
    ]
    assert compress(path, tmp_path / "whole", *options) == 0
    plain, attempts = files.write_bytes, 0

    def attempt(number: int) -> bool:
        writes = 0

        def write(target: Path, data: bytes) -> None:
            nonlocal writes
            writes += 1
            if writes == number and number % 2:
                target.with_name(f".{target.name}.tmp").write_bytes(data[: len(data) // 2])
                raise Killed
            plain(target, data)
            if writes == number:
                raise Killed

        monkeypatch.setattr(files, "write_bytes", write)
        try:
            assert compress(path, tmp_path / "parts", *options) == 0
        except Killed:
            return False
        return True

    while not attempt(attempts + 1):
        attempts += 1
    assert attempts >= 5
    a, b = (checkpoint.load(tmp_path / run / "model.pt") for run in ("whole", "parts"))
    assert same_state(a.network.state_dict(), b.network.state_dict())
    assert a.network.thresholds == b.network.thresholds

    def lasting(record: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in record.items() if key not in ("seconds", "epochs")}

    assert [lasting(r) for r in a.history] == [lasting(r) for r in b.history]
    losses = [[[epoch["loss"] for epoch in r["epochs"]] for r in run.history] for run in (a, b)]
    assert losses[0] == losses[1]


def test_recipe_of_the_fixture_is_the_small_one(tiny_run: TinyRun) -> None:
    assert tiny_run.recipe.read_text() == RECIPE
