"""Reading a study's table file: what contradicts itself is refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest

from coc_runtime.errors import CocError
from coc_study import conclude, table
from synthetic_study import exactly, row, write


def test_samples_come_back_as_they_were_written(tmp_path: Path) -> None:
    given = row("PQ", exactly(37, 40), 12.5, setting={"b": 2, "a": 1}, seed=3)
    (found,) = table.read(write(tmp_path, [given], meta={"code": "x"}) / table.NAME).samples
    assert found.correct.sum() == 37 and len(found.exits) == 40
    assert (found.chain, found.group, found.seed, found.bitops_cr) == ("PQ", "PQ", 3, 12.5)
    assert found.setting == json.dumps({"a": 1, "b": 2})
    assert found.loss == pytest.approx(93.0 - 92.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 80.0}, "accuracy 80.00 %, but 92.50 % of its answers are right"),
        ({"bitops_cr": 99.0}, "BitOpsCR 99.00, but its exits come to 12.50"),
        ({"images": 41}, "answers of 40 images where 41 were tested"),
        ({"exits": bytes([5] * 40)}, "an image left at exit 5 of 1"),
        ({"exit_bitops": "[0.0]"}, "BitOps of an exit that are not positive"),
        ({"exit_bitops": "{"}, "cannot be read"),
        ({"setting": "p.ratio"}, "cannot be read"),
        ({"correct": None}, "cannot be read"),
    ],
)
def test_a_row_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    given = row("PQ", exactly(37, 40), 12.5) | change
    with pytest.raises(CocError, match="sample 1") as error:
        table.read(write(tmp_path, [given]) / table.NAME)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_samples_of_two_test_sets_are_refused(tmp_path: Path) -> None:
    given = [row("PQ", exactly(37, 40), 12.5), row("QP", exactly(37, 40), 12.5, data="other")]
    with pytest.raises(CocError, match="40 images of digits, 40 images of other"):
        table.read(write(tmp_path, given) / table.NAME)


def test_only_the_original_that_a_chain_began_with_counts(tmp_path: Path) -> None:
    given = [
        row("", exactly(30, 40), 1.0, kind="original"),
        row("", exactly(38, 40), 1.0, kind="original", original_accuracy=95.0),
        row("PQ", exactly(37, 40), 12.5, original_accuracy=95.0),
        row("QP", exactly(37, 40), 12.5, original_accuracy=93.0),
    ]
    (known, unknown) = table.read(write(tmp_path, given) / table.NAME).samples
    assert known.original_correct is not None and known.original_correct.sum() == 38
    assert unknown.original_correct is None


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CocError, match="no such file: run coc-study first"):
        conclude.write(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / table.NAME).write_bytes(b"not a data base, but long enough to look at" * 100)
    with pytest.raises(CocError, match="not a study's table file"):
        table.read(tmp_path / table.NAME)


def test_a_study_without_a_finished_case_has_no_conclusions(tmp_path: Path) -> None:
    with pytest.raises(CocError, match="no case is finished yet"):
        conclude.write(write(tmp_path, []))
