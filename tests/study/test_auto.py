"""coc-compress --auto: held-out images choose, a budget holds, stages are shared, interrupted it goes on."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coc_deploy import checkpoint, cli, train
from coc_deploy.chain import Data
from coc_deploy.network import exit_logits
from coc_deploy.store import Store
from coc_study import run
from coc_study.auto import goal, search, space
from coc_study.auto.goal import Choice, Goal, Kind, Point
from tiny import digits

pytest.importorskip("optuna", reason="the search's optimiser, of the extra [auto]")

RECIPE = """\
chain = "PQE"
data = "digits"
batch = 32
seed = 2
[original]
model = "resnet8"
width = 4
epochs = 6
lr = 0.2
[p]
ratio = 0.25
round_to = 1
epochs = 2
[q]
epochs = 2
[e]
positions = [0.4, 0.7]
head_channels = 4
epochs = 1
"""
TABLE = """\
[auto]
p.ratio = [0.5]
q.bits = ["4x8"]
e.positions = [[0.5]]
"""
DROP = 20
"""Points: the tiny networks lose much."""


def write(folder: Path, text: str = RECIPE + TABLE) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def auto(folder: Path, *options: object, text: str = RECIPE + TABLE) -> int:
    """coc-compress --auto in a folder: its exit status."""
    words = [write(folder, text), "--auto", "--out", folder / "run", "--threads", 1, *options]
    return cli.main([str(word) for word in words])


def log(folder: Path) -> Any:
    return json.loads((folder / "run/auto.json").read_text())


def held_out(model: Path) -> Point:
    """A model as it is, on the held-out images; its BitOpsCR is relative to what its file says."""
    bitops = checkpoint.load(model).meta["original_bitops"]
    images = digits("held-out")
    return goal.measure(model, (), bitops, goal.answers(model, images), images)[0]


def original(folder: Path) -> np.ndarray:
    """Which held-out images the original of a search gets right."""
    key = next(path.parent for path in folder.glob("run/stages/*/result.json") if _is_original(path))
    return goal.answers(key / "model.pt", digits("held-out"))


def _is_original(result: Path) -> bool:
    return bool(json.loads(result.read_text())["stage"] == "original")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose search is finished, which tests only read."""
    folder = tmp_path_factory.mktemp("auto")
    assert auto(folder, "--max-drop", DROP) == 0
    return folder


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Epochs of each stage that trains in the test."""
    epochs: list[int] = []
    plain = train.fit

    def fit(job: train.Job) -> list[dict[str, float]]:
        result = plain(job)
        epochs.append(job.schedule.epochs)
        return result

    monkeypatch.setattr(train, "fit", fit)
    yield epochs


def test_the_model_that_is_left_keeps_the_drop_on_held_out_images(done: Path) -> None:
    found = log(done)
    point, best = held_out(done / "run/model.pt"), found["trials"][found["best"]]["chosen"]["point"]
    most = found["original"]["held_out_accuracy"] - DROP
    assert point.accuracy - best["error"] >= most
    assert (point.accuracy, point.bitops_cr) == (best["accuracy"], best["bitops_cr"])
    assert list(point.thresholds) == best["thresholds"]
    points = [point for trial in found["trials"] for point in trial["points"]]
    within = [p["bitops_cr"] for p in points if p["accuracy"] - p["error"] >= most]
    assert len(within) > 3 and point.bitops_cr == max(within)


def test_a_loss_has_the_standard_error_of_paired_answers(done: Path) -> None:
    found, images = log(done), digits("held-out")
    right = original(done)
    assert 100 * right.mean() == found["original"]["held_out_accuracy"]
    best = found["trials"][found["best"]]["chosen"]["point"]
    network = checkpoint.load(done / "run/model.pt").network
    logits = exit_logits(network, images.images)
    left = [int(np.argmax([*_confident(logits[:-1, n], network.thresholds), True])) for n in range(126)]
    answers = [int(logits[exit_, n].argmax()) for n, exit_ in enumerate(left)]
    lost = [int(was) - int(a == label) for was, a, label in zip(right, answers, images.labels, strict=True)]
    only_original, only_best = lost.count(1), lost.count(-1)
    mean = (only_original - only_best) / 126
    deviation = ((only_original + only_best) / 126 - mean**2) ** 0.5
    assert only_original > only_best > 0
    assert best["error"] == pytest.approx(100 * deviation / 126**0.5)
    assert best["accuracy"] == pytest.approx(found["original"]["held_out_accuracy"] - 100 * mean)


def _confident(logits: np.ndarray, limits: tuple[float, ...]) -> list[bool]:
    """Whether each early exit, logits [exits, classes], is sure enough of one image."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return [bool(p.max() / p.sum() >= limit) for p, limit in zip(odds, limits, strict=True)]


def test_the_recipe_is_the_first_trial_and_a_lower_bound(done: Path) -> None:
    found = log(done)
    first, best = found["trials"][0], found["trials"][found["best"]]
    assert first["settings"] == {"p.ratio": 0.25, "q.bits": "1x8", "e.positions": [0.4, 0.7]}
    assert first["state"] == "done" and first["chosen"]["met"]
    assert best["chosen"]["value"] >= first["chosen"]["value"]
    own = held_out(done / "run/stages" / first["key"] / "model.pt")
    assert found["original"]["held_out_accuracy"] - own.accuracy + first["chosen"]["point"]["error"] <= DROP
    assert best["chosen"]["point"]["bitops_cr"] >= own.bitops_cr
    compared = found["compared"]
    assert compared["by hand"]["trial"] == 0 and compared["found"]["trial"] == found["best"]


def test_a_setting_that_was_skipped_could_not_have_won(done: Path) -> None:
    found = log(done)
    chosen, axes = space.load(done / "recipe.toml", [])
    goal_ = Goal(Kind.MAX_DROP, DROP, found["original"]["held_out_accuracy"])
    skipped = [trial for trial in found["trials"] if trial["state"] == "skipped"]
    assert skipped and chosen.chain == "PQE"
    for picked in axes.all():
        if axes.choice(picked) in [trial["settings"] for trial in skipped]:
            ran = run.evaluate(axes.recipe(picked), Store.of(done / "others"), 24, threads=1)
            limits = [point.thresholds for point in ran.measured.points]
            bitops, images = found["original"]["bitops"], digits("held-out")
            points = goal.measure(ran.model, limits, bitops, original(done), images)
            best = found["trials"][found["best"]]["chosen"]["point"]["bitops_cr"]
            assert all(point.bitops_cr <= best for point in points if goal_.met(point))


def test_the_recipe_of_the_best_gives_the_same_model_without_auto(done: Path, tmp_path: Path) -> None:
    path, out = done / "run/recipe.toml", tmp_path / "plain"
    assert cli.main([str(path), "--out", str(out), "--threads", "1"]) == 0
    found, plain = (checkpoint.load(folder / "model.pt") for folder in (done / "run", out))
    assert plain.network.thresholds == found.network.thresholds
    for name in ("accuracy", "bitops_cr", "bitops_cr_uniform", "exit_share", "cr"):
        assert plain.history[-1][name] == found.history[-1][name], name
    for name, tensor in found.network.state_dict().items():
        assert np.array_equal(tensor.numpy(), plain.network.state_dict()[name].numpy()), name


def test_epochs_are_charged_once_and_are_those_that_were_trained(
    tmp_path: Path, trained: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = 18
    assert auto(tmp_path, "--max-drop", DROP, "--budget-epochs", budget) == 0
    found = log(tmp_path)
    assert sum(trained) == found["epochs"] == sum(trial["epochs"] for trial in found["trials"]) <= budget
    assert found["trials"][0]["epochs"] == 6 + 2 + 2 + 1 and found["trials"][1]["epochs"] == 1
    before = len(trained)
    with monkeypatch.context() as patched:
        patched.setattr(search.Search, "_evaluated", None)  # which nothing may call: auto.json knows
        assert auto(tmp_path, "--max-drop", DROP, "--budget-epochs", budget) == 0
    assert len(trained) == before and log(tmp_path) == found
    assert auto(tmp_path, "--target-bitopscr", 150, "--budget-epochs", budget) == 0
    assert log(tmp_path)["trials"][0]["epochs"] == 0, "stages of another search cost nothing"
    assert log(tmp_path)["asked"]["goal"] == "target-bitopscr"


def test_an_interrupted_search_ends_like_an_undisturbed_one(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs: list[str] = []
    plain = train.fit

    def fit(job: train.Job) -> list[dict[str, float]]:
        jobs.append(job.key)
        if len(jobs) == 6:
            raise KeyboardInterrupt
        return plain(job)

    monkeypatch.setattr(train, "fit", fit)
    assert auto(tmp_path, "--max-drop", DROP) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert 2 <= len(log(tmp_path)["trials"]) < len(log(done)["trials"])
    assert (tmp_path / "run/auto.png").stat().st_size > 500, "drawn while the search runs"
    assert auto(tmp_path, "--max-drop", DROP) == 0
    assert jobs.count(jobs[5]) == 2 and len(set(jobs)) == len(jobs) - 1, "only what was cut off trains again"
    assert log(tmp_path) == log(done)


def test_test_images_choose_nothing(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data.load("digits")
    wrong = dataclasses.replace(data.test, labels=(data.test.labels + 1) % 10)
    monkeypatch.setattr(Data, "load", lambda spec: dataclasses.replace(data, test=wrong))
    assert auto(tmp_path, "--max-drop", DROP) == 0
    other, found = log(tmp_path), log(done)
    assert [t["chosen"] for t in other["trials"]] == [t["chosen"] for t in found["trials"]]
    accuracies = [f["compared"]["found"]["test_accuracy"] for f in (other, found)]
    assert accuracies[0] != accuracies[1]


def test_a_ratio_is_reached_with_the_best_accuracy(done: Path, tmp_path: Path) -> None:
    ratio = log(done)["trials"][0]["points"][-1]["bitops_cr"] + 1
    assert auto(tmp_path, "--target-bitopscr", ratio) == 0
    found, point = log(tmp_path), held_out(tmp_path / "run/model.pt")
    points = [p for trial in found["trials"] for p in trial["points"] if p["bitops_cr"] >= ratio]
    assert point.bitops_cr >= ratio and point.accuracy == max(p["accuracy"] for p in points)


def test_a_goal_that_nothing_meets_ends_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auto(tmp_path, "--max-drop", 0, "--budget-epochs", 12) == 1
    printed, found = capsys.readouterr().out, log(tmp_path)
    accuracy, best = held_out(tmp_path / "run/model.pt").accuracy, found["trials"][found["best"]]["chosen"]
    assert not found["met"] and f"the nearest has {accuracy:.2f} %" in printed.splitlines()[-1]
    assert f"a standard error of {best['point']['error']:.2f} points" in printed.splitlines()[-1]
    done = [trial for trial in found["trials"] if trial["state"] == "done"]
    surest = max(point["accuracy"] - point["error"] for trial in done for point in trial["points"])
    assert accuracy - best["point"]["error"] == surest


def test_points_of_a_trial_hold_the_chosen_one() -> None:
    early, late = Point((0.1,), 90.0, 150.0, error=3.0), Point((2.0,), 90.0, 140.0, error=2.5)
    worse = Point((0.5,), 80.0, 120.0, error=1.0)
    choice = Goal(Kind.MAX_DROP, 0.0, original=91.0).choose([early, late, worse])
    assert choice.point == late and search.frontier([early, late, worse]) == [early]
    assert search.frontier_with(choice.point, [early, late, worse]) == [early, late]


def test_every_trial_has_a_line_and_the_run_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auto(tmp_path, "--max-drop", DROP, "--budget-epochs", 12) == 0
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.startswith("#")]
    assert len(lines) == len(log(tmp_path)["trials"]) > 1
    first = log(tmp_path)["trials"][0]["chosen"]["point"]
    assert f"held-out {first['accuracy']:.2f} % at {first['bitops_cr']:.1f}x" in lines[0]
    assert "p.ratio=0.25 q.bits=1x8 e.positions=[0.4,0.7]" in lines[0] and "11 epochs, 1 left" in lines[0]
    frontiers = [line.partition("frontier: ")[2] for line in printed if "frontier: " in line]
    points = [
        tuple(p[k] for k in ("bitops_cr", "accuracy")) for t in log(tmp_path)["trials"] for p in t["points"]
    ]
    kept = [p for p in points if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in points)]
    ends = [f"{accuracy:.2f} % at {ratio:.1f}x" for ratio, accuracy in (max(kept), min(kept))]
    assert 1 <= len(frontiers) <= len(lines) and len(set(frontiers)) == len(frontiers)
    assert frontiers[-1].startswith(ends[0]) and frontiers[-1].endswith(ends[1])
    report = (tmp_path / "run/report.md").read_text()
    assert "## The search" in report and "| by hand | p.ratio=0.25" in report
    for name in ("auto.png", "report.png", "history.json", "recipe.json"):
        assert (tmp_path / "run" / name).stat().st_size > 500


def test_check_prints_the_space_and_trains_nothing(
    tmp_path: Path, trained: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([str(write(tmp_path)), "--auto", "--max-drop", "1", "--check"]) == 0
    printed = capsys.readouterr().out
    assert "q.bits=1x8  q.bits=4x8" in printed and "8 settings" in printed and "220 epochs" in printed
    assert trained == [] and not (tmp_path / "run").exists()


def test_a_recipe_without_a_table_is_searched_around_its_own_settings(tmp_path: Path) -> None:
    text = RECIPE.replace("PQE", "DPQE") + "[d]\nmodel = 'resnet8'\nwidth = 16\n"
    _, found = space.load(write(tmp_path, text), [])
    choices = {axis.name: [*(choice[axis.name] for choice in axis.choices)] for axis in found.axes}
    assert choices == {
        "d.width": [16, 8, 12, 20],
        "p.ratio": [0.25, 0.125, 0.375, 0.5, 0.625],
        "q.bits": ["1x8", "1x4", "2x8", "4x8"],
        "e.positions": [[0.4, 0.7], [0.3, 0.525], [0.2, 0.35], [0.7]],
    }
    _, narrowed = space.load(write(tmp_path, RECIPE.replace("PQE", "DPQ")), ["d.narrow=0.8"])
    assert [choice["d.narrow"] for choice in narrowed.axes[0].choices] == [0.8, 0.4, 0.6, 1.0]


def test_the_search_of_the_repository_is_legal() -> None:
    recipes = Path(__file__).parents[2] / "recipes"
    (path,) = (path for path in recipes.glob("*.toml") if "[auto]" in path.read_text())
    chosen, found = space.load(path, [])
    assert chosen.chain == "PQE" and found.size == 64
    assert found.recipe(found.by_hand) == chosen


def test_keys_may_change_together_and_the_recipe_stays_a_choice(tmp_path: Path) -> None:
    text = RECIPE + "[auto]\np = [{ ratio = 0.5, round_to = 2 }, { ratio = 0.1, epochs = 3 }]\n"
    chosen, found = space.load(write(tmp_path, text), [])
    assert found.axes[0].choices == (
        {},
        {"p.ratio": 0.5, "p.round_to": 2},
        {"p.ratio": 0.1, "p.epochs": 3},
    )
    assert found.recipe(found.by_hand) == chosen
    assert found.recipe((2, 0, 0)).p.epochs == 3


@pytest.mark.parametrize(
    ("options", "text", "says"),
    [
        ((), RECIPE, "neither is given: choose --max-drop POINTS or --target-bitopscr RATIO"),
        (("--max-drop", 1, "--target-bitopscr", 9), RECIPE, "both are given"),
        (("--max-drop", -1), RECIPE, "--max-drop -1: points of accuracy, 0 to 100"),
        (("--target-bitopscr", 0), RECIPE, "--target-bitopscr 0: a number above 0"),
        (("--max-drop", 1, "--budget-epochs", 0), RECIPE, "--budget-epochs 0: must be at least 1"),
        (("--max-drop", 1, "--budget-epochs", 10), RECIPE, "the recipe itself, the first trial, takes 11"),
        (("--max-drop", 1), RECIPE + "[auto]\np.ratoi = [0.1]\n", "did you mean p.ratio?"),
        (("--max-drop", 1), RECIPE + "[auto]\nd.narrow = [0.1]\n", "unknown key auto.d"),
        (("--max-drop", 1), RECIPE + "[auto]\np.ratio = 0.1\n", "a list of what to try, e.g. [0.1, 0.25]"),
        (("--max-drop", 1), RECIPE + "[auto]\np.ratio = [1.5]\n", "p.ratio = 1.5 is not allowed"),
        (("--max-drop", 1), 'chain = "E"\n[e]\npositions = ["layer1.0"]\n', "nothing to search"),
        (("--max-drop", 1), 'task = "regression"\ndata = "rotated-digits"\n', "of classifications only"),
        (("--max-drop", 1, "--same-code"), RECIPE, "--same-code is not for --auto"),
    ],
)
def test_wrong_input_is_told_in_a_line(
    tmp_path: Path, options: tuple[object, ...], text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert auto(tmp_path, *options, text=text) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_options_of_the_search_need_auto_and_its_table_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path)
    assert cli.main([str(path), "--check", "--max-drop", "1"]) == 2
    assert "--max-drop is for --auto" in capsys.readouterr().err
    assert cli.main([str(path), "--check"]) == 0


def test_without_optuna_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    assert auto(tmp_path, "--max-drop", 1) == 2
    assert "pip install 'coc-deploy[auto]'" in capsys.readouterr().err


def test_goals_choose_and_give_up_as_they_say() -> None:
    points = [Point((), 90.0, 100.0), Point((), 88.0, 200.0), Point((), 80.0, 400.0)]
    drop = Goal(Kind.MAX_DROP, 2.0, 90.0)
    best = drop.choose(points)
    assert best == Choice(points[1], True, 200.0)
    assert drop.choose(points[2:]) == Choice(points[2], False, -8.0)
    assert drop.cannot_win(200.0, best) and not drop.cannot_win(201.0, best) and not drop.cannot_win(1, None)
    assert drop.has_lost(85.9, best) and not drop.has_lost(86.0, best), "two points of slack"
    doubtful = [Point((), 88.5, 300.0, error=0.5), Point((), 88.6, 350.0, error=0.7)]
    assert drop.choose([*points, *doubtful]) == Choice(doubtful[0], True, 300.0), "a standard error on top"
    assert drop.choose(doubtful[1:]) == Choice(doubtful[1], False, pytest.approx(-0.1))
    target = Goal(Kind.TARGET, 200.0, 90.0)
    best = target.choose(points)
    assert best == Choice(points[1], True, 88.0)
    assert target.choose(points[:1]) == Choice(points[0], False, -100.0)
    assert target.cannot_win(199.0, best) and not target.cannot_win(200.0, best)
    assert target.has_lost(85.9, best) and not target.has_lost(85.9, None)
    assert goal.better(best, Choice(points[2], False, -8.0)) and not goal.better(best, best)
