"""report.html, the pictures and conclusions.json of a whole study."""

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the report has plots")

from coc_study import conclude
from synthetic_study import exactly, plausible, row, write, write_plausible

VOID = {"meta", "img", "br", "hr", "link"}


class Elements(HTMLParser):
    """Checks that elements are closed in order; keeps headings, text, and numbers that name their source."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, float, str]] = []
        self.headings: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1][0] == "style":
            return
        tag, attributes = self.open[-1]
        if path := attributes.get("data-json"):
            self.numbers.append((path, float(attributes.get("data-scale") or 1), data))
        if tag == "h2":
            self.headings.append(data)
        self.text += data + " "


@dataclass(frozen=True)
class Written:
    folder: Path
    summary: str
    page: str
    values: dict[str, Any]

    def elements(self) -> Elements:
        parser = Elements()
        parser.feed(self.page)
        parser.close()
        assert not parser.open
        return parser


def conclusions(folder: Path) -> Written:
    summary = conclude.write(folder)
    page = (folder / "report.html").read_text()
    return Written(folder, summary, page, json.loads((folder / "conclusions.json").read_text()))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    rows = plausible(images=300, cases=4, seeds=(0, 1))
    return conclusions(write_plausible(tmp_path_factory.mktemp("study"), rows))


def at(values: Any, path: str) -> float:
    """The number at a path, or the quotient of two."""
    if " / " in path:
        above, below = path.split(" / ")
        return at(values, above) / at(values, below)
    for key in path.split("."):
        values = values[int(key)] if isinstance(values, list) else values[key]
    return float(values)


def test_every_number_on_the_page_is_the_one_of_the_json(written: Written) -> None:
    numbers = written.elements().numbers
    assert len(numbers) > 300
    for path, scale, shown in numbers:
        value = float(shown.replace(",", ""))
        digits = len(shown.partition(".")[2].partition("e")[0])
        if "e" in shown:
            assert value == pytest.approx(at(written.values, path) * scale, rel=0.5), path
        else:
            assert value == pytest.approx(at(written.values, path) * scale, abs=0.5001 * 10**-digits), path


def test_the_page_has_all_sections_and_every_claim_with_its_evidence(written: Written) -> None:
    found = written.elements()
    assert found.headings == [
        "Claims", "Pairs", "Order law", "Insertion", "Sequences", "Repeats", "Stages", "Other methods",
        "How it was concluded", "Setting and cost",
    ]  # fmt: skip
    for claim in written.values["claims"]:
        assert claim["title"] in found.text and claim["evidence"] in found.text
        assert claim["status"].upper() in written.summary and claim["title"] in written.summary


def test_the_page_loads_nothing_and_runs_nothing(written: Written) -> None:
    assert not re.findall(r"<(?:script|iframe|link)\b", written.page)
    assert not re.findall(r'(?:src|href)="(?!#|data:)', written.page)


def test_table_1_stands_beside_the_published_one(written: Written) -> None:
    text = written.elements().text
    for cell in ("858x", "1238x", "664x"):
        assert cell in text
    assert [row["chain"] for row in written.values["table1"]][0] in ("DPQE", "DPEQ")


def test_failures_and_settings_are_shown(written: Written) -> None:
    text = written.elements().text
    assert "leaves no channel of layer 3" in text
    assert "[study]" in text and "0.1.0-8a5c2d91b7e3" in text
    assert "cases failed: 1" in written.summary


def test_cost_counts_what_the_tree_saves(written: Written) -> None:
    cost = written.values["cost"]
    assert cost["cases"] == len({tuple(map(str, key)) for key in _cases(written)})
    assert cost["stages"] < cost["stages_alone"]
    assert cost["failures"] == 1


def _cases(written: Written) -> list[tuple[object, ...]]:
    import sqlite3
    from contextlib import closing

    with closing(sqlite3.connect(written.folder / "study.sqlite")) as base:
        return base.execute("SELECT DISTINCT kind, grp, case_id FROM samples").fetchall()


def test_stages_of_one_case_are_those_of_its_folders(written: Written) -> None:
    stages = written.values["stages"]
    assert [stage["stage"] for stage in stages] == ["original", "distill", "prune", "quantize", "exit"]
    assert stages[0]["bitops_cr"] == 1.0


def test_pictures_are_written_as_png(written: Written) -> None:
    names = {path.name for path in (written.folder / "figures").iterdir()}
    assert names == {f"{n}.png" for n in ("pairs", "insertions", "sequences", "repeats", "law", "stages")}
    for name in names:
        assert (written.folder / "figures" / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_study_gives_the_same_conclusions(tmp_path: Path) -> None:
    rows = [row(chain, exactly(right, 100), 10.0) for chain, right in (("PQ", 93), ("QP", 92))]
    first, second = (conclusions(write(tmp_path / name, rows)) for name in "ab")
    assert first.values == second.values and first.page == second.page


def test_a_study_of_pairs_alone_has_no_empty_sections(tmp_path: Path) -> None:
    rows = [row(chain, exactly(right, 100), 10.0) for chain, right in (("PQ", 93), ("QP", 92))]
    found = conclusions(write(tmp_path, rows)).elements()
    assert found.headings == ["Claims", "Pairs", "Order law", "How it was concluded", "Setting and cost"]


def test_text_of_users_is_shown_as_text(tmp_path: Path) -> None:
    data = '<script>alert("1")</script>'
    found = conclusions(write(tmp_path, [row("PQ", exactly(93, 100), 10.0, data=data)]))
    assert "<script>" not in found.page
    assert data in found.elements().text
