"""The repository's smallest study from its recipe to its table, and to its report where that is installed."""

import importlib.util
from pathlib import Path

import studies
from coc_study import KINDS, cli

RECIPE = Path(__file__).parents[2] / "recipes/study-digits-small.toml"


def test_the_small_study_of_the_repository_runs_to_its_end(tmp_path: Path) -> None:
    assert cli.main(["all", str(RECIPE), "--out", str(tmp_path), "--threads", "1"]) == 0
    rows = studies.rows(tmp_path)
    assert {row["kind"] for row in rows} == {*KINDS, "original"}
    assert {row["chain"] for row in rows if row["kind"] == "pairs"} >= {"DP", "PD", "QE", "EQ"}
    accuracies = [row["accuracy"] for row in rows if row["kind"] == "pairs" and row["chain"] == "PQ"]
    assert max(accuracies) > 40, "chance is 10 %"
    assert studies.rows(tmp_path, "failures") == []
    if importlib.util.find_spec("coc_study.conclude") is not None:
        assert (tmp_path / "report.html").exists()
