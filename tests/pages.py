"""Reads a page as a person would: its visible text, its elements, and the numbers that name their source."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "img", "br", "hr", "link", "input"}


@dataclass
class Shown:
    """A number on a page."""

    path: str
    scale: float
    text: str = ""

    @property
    def value(self) -> float:
        return float(self.text.replace(",", ""))

    @property
    def half_a_digit(self) -> float:
        """Half a unit of the last digit shown."""
        _, _, decimals = self.text.partition(".")
        return 0.5 * 10.0 ** -len(decimals) * (1 + 1e-9)


@dataclass
class Page(HTMLParser):
    """What a document holds. Raises AssertionError where elements are not nested properly."""

    source: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    numbers: list[Shown] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    """text outside of plots, of numbers with a source and of the style sheet"""
    text: str = ""
    """all visible text"""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[tuple[str, Shown | None]] = []
        self.feed(self.source)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        number = None
        if "data-json" in given:
            number = Shown(given["data-json"], float(given.get("data-scale", 1)))
            self.numbers.append(number)
        if tag not in VOID:
            self._open.append((tag, number))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data: str) -> None:
        inside = [tag for tag, _ in self._open]
        if "style" in inside:
            return
        self.text += data
        number = next((number for _, number in reversed(self._open) if number is not None), None)
        if number is not None:
            number.text += data.strip()
        elif "svg" not in inside:
            self.words.append(data)


def value(report: Any, expression: str) -> float:
    """The number at a path like `runs.0.accuracy`, or of terms joined by / - +, taken from left to right."""
    first, *rest = re.split(r" ([-+/]) ", expression)
    total = _term(report, first)
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        other = _term(report, term)
        total = total / other if operator == "/" else total - other if operator == "-" else total + other
    return total


def _term(report: Any, path: str) -> float:
    if path == "1":
        return 1.0
    for key in path.split("."):
        report = report[int(key)] if isinstance(report, list) else report[key]
    return float(report)
