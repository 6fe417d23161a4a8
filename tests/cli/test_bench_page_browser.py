"""The page of coc-bench in headless Chromium: wide, on a phone, light, dark and in print."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import bench_sample
from coc_bench import page
from pages import Shown, value

pytest.importorskip("matplotlib", reason="pages have plots")
playwright = pytest.importorskip("playwright.sync_api", reason="drives the browser")

PHONE = {"width": 390, "height": 844}
NUMBERS = """() => [...document.querySelectorAll('[data-json]')].map(e =>
    [e.dataset.json, Number(e.dataset.scale || 1), e.textContent.trim(), e.getClientRects().length])"""
OUTSIDE = """width => [...document.querySelectorAll('main *')]
    .filter(e => !e.closest('.scroll') || e.matches('.scroll'))
    .filter(e => { const b = e.getBoundingClientRect(); return b.right > width + 0.5 || b.left < -0.5; })
    .map(e => e.outerHTML.slice(0, 120))"""
OVERLAPS = """() => [...document.querySelectorAll('svg')].flatMap(svg => {
    const boxes = [...svg.querySelectorAll('text')].map(e => [e.textContent, e.getBoundingClientRect()]);
    return boxes.flatMap(([name, a], i) => boxes.slice(i + 1).filter(([, b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3).map(([other]) => [name, other]));
})"""
COLOURS = """() => {
    const found = [];
    const walk = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        if (walk.currentNode.textContent.trim() && e.getClientRects().length)
            found.push(getComputedStyle(e)[e.namespaceURI.endsWith('svg') ? 'fill' : 'color']);
    }
    const marks = [...document.querySelectorAll('svg path, svg use')].map(e => getComputedStyle(e).fill);
    return { surface: getComputedStyle(document.body).backgroundColor, text: [...new Set(found)],
        marks: [...new Set(marks)].filter(c =>
            c.startsWith('rgb(') && c !== getComputedStyle(document.body).backgroundColor) };
}"""


@dataclass
class Opened:
    """A page in the browser, and what it did while it was opened."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return bench_sample.report()


@pytest.fixture(scope="module")
def written(report: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, report)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        found = shutil.which("chromium") or (own if Path(own).exists() else None)
        if found is None:
            pytest.skip("no Chromium: neither `chromium` on the PATH nor playwright's own")
        opened = driver.chromium.launch(executable_path=found)
        yield opened
        opened.close()


def show(browser: Any, path: Path, **context: Any) -> Opened:
    opened = Opened(browser.new_context(**context).new_page())
    opened.page.on("console", lambda message: opened.console.append(message.text))
    opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(path.as_uri())
    return opened


@pytest.fixture(scope="module")
def wide(browser: Any, written: Path) -> Opened:
    return show(browser, written, viewport={"width": 1280, "height": 900}, color_scheme="light")


@pytest.fixture(scope="module")
def phone(browser: Any, written: Path) -> Opened:
    return show(browser, written, viewport=PHONE, color_scheme="dark", is_mobile=True, has_touch=True)


def contrast(colour: str, surface: str) -> float:
    """Of two CSS colours `rgb(r, g, b)`, by WCAG 2."""

    def luminance(text: str) -> float:
        shares = [int(part) / 255 for part in text[text.index("(") + 1 : -1].split(",")]
        linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(colour), luminance(surface)))
    return (light + 0.05) / (dark + 0.05)


def test_it_renders_without_a_message_and_without_any_request(wide: Opened, written: Path) -> None:
    assert wide.page.title() == "resnet20-1x8/model.coc on cifar10"
    assert wide.page.locator("svg").count() == 8
    broken = "() => [...document.images].filter(e => !e.complete || !e.naturalWidth).length"
    assert wide.page.evaluate(broken) == 0
    assert wide.console == []
    assert [url for url in wide.requests if not url.startswith("data:image/png")] == [written.as_uri()]


def test_the_numbers_that_a_reader_sees_are_those_of_the_json(wide: Opened, report: dict[str, Any]) -> None:
    wide.page.evaluate("() => document.querySelectorAll('details').forEach(e => e.open = true)")
    found = wide.page.evaluate(NUMBERS)
    hidden = [path for path, _, _, boxes in found if not boxes]
    assert not hidden
    wrong = []
    for path, scale, text, _ in found:
        shown = Shown(path, scale, text)
        if abs(shown.value - value(report, path) * scale) > shown.half_a_digit:
            wrong.append((path, text))
    assert len(found) > 500 and not wrong, wrong


def test_on_a_phone_nothing_is_wider_than_the_screen(phone: Opened) -> None:
    assert phone.page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert phone.page.evaluate(OUTSIDE, PHONE["width"]) == []
    scrolled = phone.page.evaluate("() => [...document.querySelectorAll('.scroll')].map(e => e.scrollWidth)")
    assert max(scrolled) > PHONE["width"], "wide tables scroll inside their box"


def test_no_label_of_a_plot_lies_on_another_one(wide: Opened, phone: Opened) -> None:
    assert wide.page.evaluate(OVERLAPS) == []
    assert phone.page.evaluate(OVERLAPS) == []


def test_light_and_dark_differ_and_both_are_readable(wide: Opened, phone: Opened) -> None:
    light, dark = wide.page.evaluate(COLOURS), phone.page.evaluate(COLOURS)
    assert light["surface"] != dark["surface"]
    for found in (light, dark):
        assert len(found["text"]) >= 3, "text, muted text and links"
        assert min(contrast(colour, found["surface"]) for colour in found["text"]) >= 4.5
        assert len(found["marks"]) >= 4, "text colour and three series"
        assert min(contrast(colour, found["surface"]) for colour in found["marks"]) >= 3


def test_print_is_light_and_keeps_to_the_paper(browser: Any, written: Path) -> None:
    opened = show(browser, written, viewport={"width": 720, "height": 1000}, color_scheme="dark")
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate(COLOURS)["surface"] == "rgb(255, 255, 255)"
    assert opened.page.locator("nav").is_hidden()
    assert len(opened.page.pdf(format="A4")) > 10_000
