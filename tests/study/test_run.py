"""A study runs every stage of its tree once, continues where it stopped, and writes what was measured."""

import dataclasses
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import studies
from coc_deploy import checkpoint, keys, train
from coc_deploy.network import exit_logits
from coc_deploy.store import Store
from coc_runtime.arithmetic import exits_taken
from coc_runtime.errors import CocError
from coc_study import cli, run, settings, work
from tiny import digits

TREE = {"original": 1, "prune": 6, "quantize": 5, "exit": 4}
"""Trainings of studies.TEXT, counted by hand in test_plan.py."""


def study(folder: Path, *options: str, kind: str = "all", text: str = studies.TEXT) -> int:
    """coc-study in a folder: its exit status."""
    path = studies.write(folder, text)
    return cli.main([kind, str(path), "--out", str(folder / "out"), "--threads", "1", *options])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study of studies.TEXT, which tests only read."""
    folder = tmp_path_factory.mktemp("study")
    assert study(folder) == 0
    return folder / "out"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the stages that train in the test."""
    names: list[str] = []
    plain = train.fit

    def fit(job: train.Job) -> list[dict[str, float]]:
        names.append(job.name)
        return plain(job)

    monkeypatch.setattr(train, "fit", fit)
    yield names


def counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in set(names)}


def test_every_stage_of_the_tree_trains_once(tmp_path: Path, trained: list[str]) -> None:
    assert study(tmp_path, kind="pairs") == 0
    assert counted(trained) == {"original": 1, "prune": 4, "quantize": 4, "exit": 2}
    assert study(tmp_path) == 0
    assert counted(trained) == TREE, "what the pairs trained is taken over"
    assert study(tmp_path) == 0
    assert counted(trained) == TREE
    stages = studies.rows(tmp_path / "out", "stages")
    assert len(stages) == sum(TREE.values()) and all(stage["seconds"] > 0 for stage in stages)
    meta = {row["key"]: row["value"] for row in studies.rows(tmp_path / "out", "meta")}
    assert (
        "14 cases, 14 of them from before; 47 stages if each ran alone, 16 in the tree, 0 trained"
        in (meta["summary pairs+insert+sequences+repeat"])
    )
    assert meta["study"] == studies.TEXT and meta["code"] == keys.code_version()


def test_samples_say_what_the_models_do_on_the_test_images(done: Path) -> None:
    images, labels = digits("test").images, digits("test").labels
    rows = studies.rows(done)
    assert {(row["kind"], row["grp"], row["chain"]) for row in rows} == {
        *(("pairs", "PQ", chain) for chain in ("PQ", "QP")),
        *(("pairs", "QE", chain) for chain in ("QE", "EQ")),
        *(("insert", "PE+Q", chain) for chain in ("PQE", "EQP")),
        ("sequences", "sequences", "PQE"),
        *(("repeat", "QQ", chain) for chain in ("Q", "QQ")),
        ("original", "original", ""),
    }
    for row in rows:
        stage = done / "stages" / row["case_id"]
        network = checkpoint.load(stage / "model.pt").network
        logits, limits = exit_logits(network, images), json.loads(row["thresholds"])
        taken = exits_taken(logits, limits)
        right = logits[taken, np.arange(len(labels))].argmax(axis=1) == labels
        stored = np.unpackbits(np.frombuffer(row["correct"], np.uint8), count=row["images"]).astype(bool)
        assert (stored == right).all() and row["accuracy"] == pytest.approx(right.mean() * 100)
        assert (np.frombuffer(row["exits"], np.uint8) == taken).all()
        spent = np.array(json.loads(row["exit_bitops"]))
        assert row["expected_bitops"] == pytest.approx(spent[taken].mean())
        assert row["bitops_cr"] == pytest.approx(row["original_bitops"] / spent[taken].mean())
        assert json.loads(row["exit_share"]) == pytest.approx(
            np.bincount(taken, minlength=len(spent)) / len(labels)
        )
        result = json.loads((stage / "result.json").read_text())
        assert row["cr"] == result["cr"] and row["seed"] == 1 and row["data"] == "digits"
        if "E" not in row["chain"]:
            assert limits == [] and row["accuracy"] == result["accuracy"]
            assert row["bitops_cr_uniform"] == pytest.approx(result["bitops_cr_uniform"])


def test_originals_have_their_answers_in_the_table_without_training_again(
    tmp_path: Path, trained: list[str]
) -> None:
    """Also in a folder of an older study, which did not keep them."""
    assert study(tmp_path, kind="pairs") == 0
    with sqlite3.connect(tmp_path / "out" / "study.sqlite") as base:
        base.execute("DELETE FROM samples WHERE kind = 'original'")
    (tmp_path / "out/stages" / original(tmp_path / "out") / "points.npz").unlink()
    before = len(trained)
    assert study(tmp_path, kind="pairs") == 0 and len(trained) == before
    (row,) = (row for row in studies.rows(tmp_path / "out") if row["kind"] == "original")
    assert row["case_id"] == original(tmp_path / "out") and row["bitops_cr"] == 1
    assert row["accuracy"] == row["original_accuracy"]
    found = json.loads((tmp_path / "out/conclusions.json").read_text())
    assert found["statistics"]["originals_drawn"] and found["cost"]["cases"] == 6
    meta = {row["key"]: row["value"] for row in studies.rows(tmp_path / "out", "meta")}
    assert meta["summary pairs"].startswith("6 cases, 6 of them from before")


def original(out: Path) -> str:
    """Key of the only original."""
    (key,) = (row["key"] for row in studies.rows(out, "stages") if row["parent"] is None)
    return str(key)


def test_a_chain_with_exits_gives_samples_along_its_frontier(done: Path) -> None:
    rows = [row for row in studies.rows(done) if row["chain"] == "EQ"]
    assert 2 <= len(rows) <= 3 and [row["point"] for row in rows] == list(range(len(rows)))
    assert len({row["case_id"] for row in rows}) == 1
    shares = [json.loads(row["exit_share"])[-1] for row in rows]
    assert shares[-1] == 1 and shares == sorted(shares), "the last point is the whole network"


def test_epochs_of_a_case_are_those_of_its_whole_chain(done: Path) -> None:
    epochs = {row["chain"]: row["epochs"] for row in studies.rows(done)}
    assert epochs["PQ"] == 2 + 1 + 2 and epochs["EQP"] == 2 + 1 + 2 + 1 and epochs["QQ"] == 2 + 2 + 2


def test_a_study_stopped_within_a_stage_goes_on_there(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs: list[tuple[str, int]] = []
    plain, stop = train._epoch, ("quantize", 1)

    def epoch(job: train.Job, optimizer: Any, number: int) -> dict[str, float]:
        if (job.name, number) == stop and stop not in epochs:
            epochs.append(stop)
            raise KeyboardInterrupt
        epochs.append((job.name, number))
        return plain(job, optimizer, number)

    monkeypatch.setattr(train, "_epoch", epoch)
    assert study(tmp_path) == 130
    assert "stopped; the same command continues" in capsys.readouterr().err
    assert epochs[-2:] == [("quantize", 0), stop]
    epochs_before = len(epochs)
    assert study(tmp_path) == 0
    assert epochs[epochs_before] == stop, "neither the original nor the first epoch is trained again"
    assert studies.lasting(tmp_path / "out") == studies.lasting(done)


def test_a_failing_case_is_recorded_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = studies.TEXT.replace("[[0.4, 0.7]]", '[[0.4, 0.7], ["layer9"]]').replace('"PQ", "QE"', '"QE"')
    assert study(tmp_path, kind="pairs", text=text) == 1
    failures = {row["chain"]: row for row in studies.rows(tmp_path / "out", "failures")}
    assert failures.keys() == {"QE", "EQ"}
    for row in failures.values():
        assert json.loads(row["setting"]) == {"e.positions": ["layer9"], "q.bits": "1x8"}
        assert "'layer9' is not the end of a block" in row["error"]
    assert failures["QE"]["stage"] == failures["QE"]["case_id"]
    assert failures["EQ"]["stage"] != failures["EQ"]["case_id"], "EQ fails because E does"
    assert {row["chain"] for row in studies.rows(tmp_path / "out")} == {"QE", "EQ", ""}
    printed = capsys.readouterr().out
    assert printed.count("failed: exit position 'layer9'") == 2 and "failed: QE {" in printed
    assert study(tmp_path, kind="pairs", text=text.replace("layer9", "layer2.0")) == 0
    assert studies.rows(tmp_path / "out", "failures") == []


def test_what_cannot_work_at_all_is_told_before_any_training(
    tmp_path: Path, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert study(tmp_path, text=studies.TEXT.replace("[0.4, 0.7]", '["layer9"]')) == 2
    assert "'layer9' is not the end of a block" in capsys.readouterr().err
    assert trained == []


def test_rows_that_the_study_no_longer_asks_for_go(tmp_path: Path, trained: list[str]) -> None:
    assert study(tmp_path, kind="repeat") == 0
    assert study(tmp_path, kind="repeat", text=studies.TEXT.replace('["QQ"]', '["PP"]')) == 0
    assert {row["grp"] for row in studies.rows(tmp_path / "out")} == {"PP", "original"}
    trained.clear()
    assert study(tmp_path, kind="repeat") == 0
    assert trained == [], "but their stages stay"
    assert {row["grp"] for row in studies.rows(tmp_path / "out")} == {"QQ", "original"}
    cost = json.loads((tmp_path / "out/conclusions.json").read_text())["cost"]
    assert cost["stages"] == 3 < len(studies.rows(tmp_path / "out", "stages")), "the original, Q and QQ"


def test_other_code_computes_anew_unless_told_that_it_is_the_same(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert study(tmp_path, kind="repeat") == 0
    trained.clear()
    monkeypatch.setattr(keys, "code_version", lambda: "other")
    assert study(tmp_path, "--same-code", kind="repeat") == 0
    assert trained == []
    assert study(tmp_path, kind="repeat") == 0
    assert counted(trained) == {"original": 1, "quantize": 2}


def test_two_studies_in_one_folder_do_not_mix(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from coc_deploy import locking

    with locking.hold(done):
        assert study(done.parent) == 2
    assert "works in it" in capsys.readouterr().err


def test_a_recipe_is_evaluated_with_the_stages_of_a_study(
    done: Path, tmp_path: Path, trained: list[str]
) -> None:
    chosen = settings.load(studies.write(tmp_path))
    recipe = chosen.recipe("PQE", {"p.ratio": 0.5, "q.bits": "1x8", "e.positions": [0.4, 0.7]}, 1)
    found = run.evaluate(recipe, Store.of(done), 3, threads=1)
    assert (trained, found.trained, found.epochs) == ([], (), 0)
    rows = [row for row in studies.rows(done) if row["case_id"] == found.model.parent.name]
    assert {row["kind"] for row in rows} == {"insert", "sequences"}
    for kind in ("insert", "sequences"):
        accuracies = [row["accuracy"] for row in rows if row["kind"] == kind]
        assert accuracies == [point.accuracy for point in found.measured.points]
    longer = run.evaluate(dataclasses.replace(recipe, chain="PQEQ"), Store.of(done), 3, threads=1)
    assert (trained, longer.trained, longer.epochs) == (["quantize"], ("PQEQ",), 2)
    assert checkpoint.load(longer.model).meta["chain"] == "PQEQ"


def test_the_evaluation_of_a_recipe_that_cannot_work_raises(tmp_path: Path) -> None:
    chosen = settings.load(studies.write(tmp_path))
    recipe = chosen.recipe("E", {"e.positions": ["layer9"], "original.epochs": 0}, 1)
    with pytest.raises(CocError, match="'layer9' is not the end of a block"):
        run.evaluate(recipe, Store.of(tmp_path / "out"), threads=1)


def test_a_worker_with_other_code_images_or_folder_refuses(done: Path, tmp_path: Path) -> None:
    chosen = settings.load(studies.write(tmp_path))
    recipe = chosen.recipe("QP", {"p.ratio": 0.4, "q.bits": "1x8"}, 1)
    identity = run.identify(recipe)
    node = identity.path(recipe)[1]
    task = work.Task(node, done / "stages", 0, identity.code, identity.data)
    assert work.run(task).cached
    assert "install the same" in work.run(dataclasses.replace(task, code="0")).error
    gone = dataclasses.replace(task, store=tmp_path / "elsewhere")
    assert "workers must share the study's folder" in work.run(gone).error
    other = dataclasses.replace(task, node=identity.path(recipe)[2], data="0")
    assert "other images than the study" in work.run(other).error
