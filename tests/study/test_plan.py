"""coc-study --plan: prefixes that chains share are counted once, and hours follow from a given pace."""

from pathlib import Path

import pytest

import studies
from coc_study import KINDS, cli, plan, settings


def plan_of(folder: Path, text: str = studies.TEXT, **pace: float) -> plan.Plan:
    return plan.make(settings.load(studies.write(folder, text)), KINDS, None, pace)


def test_shared_prefixes_are_counted_once(tmp_path: Path) -> None:
    """By hand. PQ and QP with two ratios, QE and EQ; PQE and EQP with two ratios, PQE in two groups; Q, QQ.
    The tree: the original, 2 P, Q, E; 2 PQ, 2 QP, QE, EQ, QQ; 2 PQE, 2 EQP."""
    made = plan_of(tmp_path)
    assert len(made.cases) == 4 + 2 + 4 + 2 + 2
    assert made.alone == 6 * 3 + 4 * 4 + 2 * 4 + 2 + 3
    assert len(made.stages) == 1 + (2 + 1 + 1) + (2 + 2 + 1 + 1 + 1) + (2 + 2)
    counts = dict.fromkeys(("", "P", "Q", "E", "PQ", "QP", "QE", "EQ", "QQ", "PQE", "EQP"), 0)
    for stage in made.stages.values():
        counts[stage.node.chain] += 1
    assert counts == {chain: 2 if "P" in chain else 1 for chain in counts}
    epochs = 2 * (1 + 1 + 2 + 1 + 1) + 1 * (2 + 2 + 2) + 1 * (1 + 1 + 2)
    assert sum(stage.node.epochs for stage in made.left) == epochs, "2 for the original and Q, else 1"
    assert sum(stage.images for stage in made.left) == epochs * 1174


def test_a_seed_has_a_tree_of_its_own(tmp_path: Path) -> None:
    one, two = (plan_of(tmp_path, studies.TEXT.replace("[1]", seeds)) for seeds in ("[1]", "[1, 2]"))
    assert len(two.stages) == 2 * len(one.stages) and len(two.cases) == 2 * len(one.cases)


def test_parents_come_before_their_children(tmp_path: Path) -> None:
    seen: set[str | None] = {None}
    for key, stage in plan_of(tmp_path).stages.items():
        assert stage.node.parent in seen
        seen.add(key)


def test_hours_follow_from_images_per_second_and_macs(tmp_path: Path) -> None:
    made = plan_of(tmp_path, resnet8=500)
    stages = {stage.node.chain: stage for stage in made.stages.values()}
    passes = 2 * 1174 + ((2 + 1) * 126 + 497) / 3
    assert stages[""].hours == pytest.approx(passes / 500 / 3600)
    assert stages["P"].work == pytest.approx(stages[""].work * (0.5**2 + 1 / 3)), "and the original teaches"
    total, longest = made.hours()
    assert total == pytest.approx(sum(stage.hours or 0 for stage in made.left)) and longest < total
    assert plan_of(tmp_path, resnet8=1000).hours()[0] == pytest.approx(total / 2)
    assert {stage.hours for stage in plan_of(tmp_path).stages.values()} == {None}


def test_the_paper_s_study_is_planned_without_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    study = Path(__file__).parents[2] / "recipes/study-paper.toml"
    assert cli.main(["pairs", str(study), "--plan", "--workers", "8"]) == 0
    printed = capsys.readouterr().out
    assert "0 done already" in printed and "hours on one worker at images/s resnet34" in printed
    assert "at least" in printed and "hours on 8 workers" in printed


def test_the_plan_of_a_study_without_cases_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = studies.write(tmp_path, "[study]\ninsert.of = []\n")
    assert cli.main(["insert", str(path), "--plan"]) == 2
    assert "asks for no cases of insert: name chains in 'of' of [study.insert]" in capsys.readouterr().err
