"""The page of coc-bench: its numbers are the JSON's, it says what it does not know, it loads nothing."""

import copy
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bench_sample
from coc_bench import page
from coc_report import page as frame
from coc_runtime.errors import CocError
from pages import Page, value

pytest.importorskip("matplotlib", reason="pages have plots")

ROOT = Path(__file__).parents[2]
NASTY = "<script>alert('x')</script>\"><img src=x onerror=y> $a$ & \x07"
WORDS_WITH_DIGITS = (
    r"95 % (bootstrap )?interval",
    r"[Ee]xit \d",
    r"\d+x\d+ bits",
    r"p50|p90|p99",
    r"All \d+ (points|steps) of",
    r"The \d+ largest of \d+ steps",
    r"99th percentile",
    r"never exceeds 1",
)
"""Figures of speech and counts of what follows, which have no place in the JSON."""


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return bench_sample.report()


@pytest.fixture(scope="module")
def sample(report: dict[str, Any]) -> Page:
    return Page(page.benchmark(report))


def changed(report: dict[str, Any], **runs_without: Any) -> dict[str, Any]:
    """A copy in which every run has the given values."""
    made = copy.deepcopy(report)
    for run in made["runs"]:
        run.update(runs_without)
    return made


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


def assert_numbers_are_those_of(made: Page, report: dict[str, Any]) -> None:
    wrong = [
        (shown.path, shown.text, value(report, shown.path) * shown.scale)
        for shown in made.numbers
        if abs(shown.value - value(report, shown.path) * shown.scale) > shown.half_a_digit
    ]
    assert not wrong, wrong


def test_numbers_on_the_page_are_those_of_the_json(sample: Page, report: dict[str, Any]) -> None:
    assert len(sample.numbers) > 500
    assert_numbers_are_those_of(sample, report)


def test_every_number_on_the_page_names_its_place_in_the_json(sample: Page, report: dict[str, Any]) -> None:
    rest = " ".join(sample.words)
    for name in sorted({*strings(report), *(s.replace("_", " ") for s in report["environment"])}, key=len)[
        ::-1
    ]:
        rest = rest.replace(name, "")
    rest = re.sub("|".join(WORDS_WITH_DIGITS), "", rest)
    assert not re.findall(r".{0,30}\d.{0,30}", rest)


@pytest.mark.parametrize("k", range(5))
def test_a_run_is_there_with_all_its_figures(sample: Page, report: dict[str, Any], k: int) -> None:
    shown = {number.path for number in sample.numbers}
    keys = (
        "latency_us.mean",
        "latency_us.p50",
        "latency_us.p99",
        "latency_us.max",
        "images_per_s",
        "accuracy",
    )
    expected = {f"runs.{k}.{key}" for key in (*keys, "file_bytes", "load_ms", "peak_rss_mb")}
    expected |= {f"runs.{k}.mean_latency_interval_us.{end}" for end in (0, 1)}
    expected |= {
        f"runs.{k}.{key}"
        for key in ("expected_bitops", "bitops_cr", "cr")
        if report["runs"][k][key] is not None
    }
    assert expected <= shown, expected - shown


def test_exits_layers_and_curves_are_shown_once_per_model(sample: Page) -> None:
    shown = {number.path for number in sample.numbers}
    for path in ("accuracy_by_exit.2", "exit_accuracy.0", "curve.20.accuracy", "layers.29.share_of_time"):
        assert f"runs.1.{path}" in shown
        assert f"runs.0.{path}" not in shown, "the slower back end of the same model"
    pictures = [given for tag, given in sample.elements if tag == "img"]
    assert len(pictures) == 24
    assert all(given["src"].startswith("data:image/png;base64,") for given in pictures)


def test_the_headline_names_the_fastest_artifact_and_what_it_was_compared_with(sample: Page) -> None:
    lead = re.sub(r"\s+", " ", sample.text[sample.text.index("is right for") - 30 :][:600])
    assert "resnet20-1x8/model.coc is right for 86.42 % of 10,000 test images of cifar10" in lead
    assert "takes 79.4 µs an image on average, on 1 thread of Example CPU 9000" in lead
    assert (
        "It is 15.3 times as fast as original.onnx in ONNX Runtime 1.32.0 (95 % interval 15.1 to 15.4)"
        in lead
    )
    assert "and is right 3.53 points less often" in lead


def test_no_difference_is_said_where_the_interval_holds_one(sample: Page, report: dict[str, Any]) -> None:
    assert "No difference in speed was found against pruned.onnx (int8)" in sample.text
    slower = copy.deepcopy(report)
    slower["ratios"][2].update(mean_latency_ratio=1.25, interval=[1.2, 1.3])
    made = Page(page.benchmark(slower))
    assert "No difference" not in made.text
    assert "It takes 1.25 times as long as pruned.onnx (int8)" in made.text
    assert_numbers_are_those_of(made, slower)


def test_a_ratio_is_found_in_either_direction(report: dict[str, Any]) -> None:
    turned = copy.deepcopy(report)
    for ratio in turned["ratios"]:
        low, high = ratio["interval"]
        ratio.update(of=ratio["to"], to=ratio["of"], interval=[1 / high, 1 / low])
        ratio["mean_latency_ratio"] = 1 / ratio["mean_latency_ratio"]
    made = Page(page.benchmark(turned))
    assert (
        "It is 15.3 times as fast as original.onnx in ONNX Runtime 1.32.0 (95 % interval 15.1 to 15.4)"
        in made.text
    )
    assert_numbers_are_those_of(made, turned)


@pytest.mark.parametrize("example", ["cifar10-resnet20-1x8", "cifar10-resnet20-4x8"])
def test_a_committed_report_gives_a_page(example: str) -> None:
    found = json.loads((ROOT / "examples" / example / "bench.json").read_text())
    made = Page(page.benchmark(found))
    assert_numbers_are_those_of(made, found)
    assert all(run["artifact"] in made.text for run in found["runs"])


def test_without_intervals_the_page_claims_no_difference_and_no_advantage(report: dict[str, Any]) -> None:
    old = {"schema": 1, "environment": report["environment"], "runs": report["runs"]}
    made = Page(page.benchmark(old))
    assert "This file holds no intervals" in made.text
    cells = {word.strip() for word in made.words}
    assert not cells & {"faster", "slower", "no difference"}
    assert_numbers_are_those_of(made, old)


def test_a_peer_that_did_not_run_is_there_with_its_reason(sample: Page) -> None:
    assert "MNN" in sample.text and "not installed: pip install MNN" in sample.text
    assert "unknown operator Clip <opset 21>" in sample.text


def test_names_with_markup_are_shown_as_text(report: dict[str, Any]) -> None:
    hostile = copy.deepcopy(report)
    for run in hostile["runs"]:
        run["artifact"] = run["data"] = run["backend"] = NASTY
        for key in ("layers", "exit_images"):
            if key in run:
                run[key] = run[key][:1]
        if "layers" in run:
            run["layers"][0]["name"] = run["layers"][0]["op"] = NASTY
            run["exit_images"][0][0].update(label=NASTY, predicted=NASTY, png=NASTY)
    hostile["missing_peers"][0] = {"peer": NASTY, "reason": NASTY}
    hostile["environment"][NASTY] = NASTY
    made = Page(page.benchmark(hostile))
    assert not [tag for tag, _ in made.elements if tag == "script"]
    assert not [given for _, given in made.elements if "onerror" in given or given.get("src") == "x"]
    assert NASTY.replace("\x07", "\N{REPLACEMENT CHARACTER}") in made.text


def test_the_page_loads_nothing_and_says_so_in_its_policy(sample: Page) -> None:
    loaded = [
        (tag, name, target)
        for tag, given in sample.elements
        for name, target in given.items()
        if name in ("src", "href", "data", "action")
        and not target.startswith(("data:image/png;base64,", "#"))
    ]
    assert not loaded
    assert not {tag for tag, _ in sample.elements} & {"script", "link", "iframe", "object", "base"}
    assert "url(http" not in sample.source and "@import" not in sample.source
    (policy,) = [g["content"] for t, g in sample.elements if g.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_ids_are_unique_and_links_within_the_page_have_targets(sample: Page) -> None:
    ids = [given["id"] for _, given in sample.elements if "id" in given]
    assert len(ids) == len(set(ids)) > 20
    targets = {given["href"][1:] for _, given in sample.elements if given.get("href", "").startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]+)\)", sample.source))
    assert targets <= set(ids)


def test_the_same_report_gives_the_same_page(sample: Page, report: dict[str, Any]) -> None:
    assert page.benchmark(copy.deepcopy(report)) == sample.source


def test_errors_are_shown_where_answers_are_numbers(report: dict[str, Any]) -> None:
    numbers = changed(report, accuracy=None, mae=5.2153, r2=0.963, accuracy_by_exit=None, exit_accuracy=None)
    for run in numbers["runs"][:2]:
        for point in run["curve"]:
            point.update(accuracy=None, mae=5 + point["expected_bitops"] / 1e9)
    made = Page(page.benchmark(numbers))
    assert "has a mean absolute error of 5.2153 on 10,000 test images" in made.text
    assert "Error against BitOps" in made.text and "Accuracy" not in made.text
    assert_numbers_are_those_of(made, numbers)


def test_latencies_alone_are_shown_where_there_are_no_labels(report: dict[str, Any]) -> None:
    random = changed(report, accuracy=None, accuracy_by_exit=[None] * 3, exit_accuracy=[None] * 3)
    for run in random["runs"][:2]:
        run["exit_images"] = [[], [], []]
        for point in run["curve"]:
            point["accuracy"] = None
    made = Page(page.benchmark(random))
    assert "resnet20-1x8/model.coc takes 79.4 µs an image" in made.text
    assert not re.search("right|Images by exit|Thresholds", made.text)
    assert_numbers_are_those_of(made, random)


def test_a_single_run_without_exits_gives_a_page(report: dict[str, Any]) -> None:
    (peer,) = copy.deepcopy(report["runs"][4:])
    peer.update(speedup_over_original=None, mean_speedup_over_original=None)
    made = Page(page.benchmark({"schema": 2, "environment": {}, "runs": [peer], "ratios": []}))
    assert "Early exits" not in made.text and "takes 1,004 µs" in made.text


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_page_without_what_draws_it_is_refused_in_one_line(
    missing: str, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    frame._template.cache_clear()
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(CocError, match=r"pip install 'coc-deploy\[plots\]'"):
        page.write(tmp_path / "page.html", report)
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_is_refused(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CocError, match="cannot be written"):
        page.write(tmp_path / "no folder" / "page.html", report)
    page.write(tmp_path / "page.html", report)
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
