"""Pieces of an HTML page: escaped text, tables, key figures, plots, numbers that name their source.

Whatever is given to these functions is text and is escaped, unless it is `Html` already.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ABSENT = "\N{EN DASH}"
"""Shown for a figure that is not known."""


class Html(str):
    """Markup that is inserted as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        """What Jinja2 inserts instead of escaping it."""
        return self


def text(value: object) -> Html:
    """A value as text: escaped, control characters replaced; Html unchanged."""
    if isinstance(value, Html):
        return value
    return Html(
        html.escape(
            re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", str(value))
        )
    )


def join(parts: Iterable[object], between: str = "") -> Html:
    """Several pieces as one, with text between them."""
    return Html(text(between).join(text(part) for part in parts))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element. `class_` gives class=, `data_x` gives data-x=; an attribute of None is left out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def image(source: str, description: str, **attributes: object) -> Html:
    """A picture from a data URI; description is what a screen reader says."""
    return Html(tag("img", src=source, alt=description, **attributes).removesuffix("</img>"))


def number(value: float | None, path: str, form: str = ",.1f", scale: float = 1.0, unit: str = "") -> Html:
    """A figure of the report, times scale, with the path of its source in the JSON; a dash for None.

    path: like `runs.0.latency_us.mean`, or `A / B` and `A - B` of two such. It becomes the attribute
    data-json, so that what a page shows can be held to the file it was made from. unit: follows the number.
    """
    if value is None:
        return text(ABSENT)
    shown = format(value if scale == 1 else value * scale, form)
    if shown.strip("-0.,") == "":
        shown = shown.removeprefix("-")
    scaled = f"{scale:g}" if scale != 1 else None
    return Html(tag("span", shown, class_="num", data_json=path, data_scale=scaled) + text(unit))


@dataclass(frozen=True)
class Pair:
    """Two cells of text in a table; where the screen is narrow, the second stands below the first."""

    first: object
    second: object


def table(head: Sequence[object], rows: Iterable[Sequence[object]], label: str, left: int = 1) -> Html:
    """A table that scrolls inside its box where the screen is narrow.

    label: what it shows, for screen readers. left: leading columns of text; the others are right-aligned. A
    `Pair` as a cell is two columns, and on a narrow screen one. A column that holds dashes only is left out.
    """
    lines = list(rows)
    kept = [k for k in range(len(head)) if not lines or any(line[k] != ABSENT for line in lines)]

    def row(name: str, cells: Sequence[object]) -> Html:
        parts: list[Html] = []
        for cell in (cells[k] for k in kept):
            if isinstance(cell, Pair):
                first = join([cell.first, tag("span", cell.second, class_="narrow")])
                parts.append(tag(name, first, class_="name"))
                parts.append(tag(name, cell.second, class_="wide"))
            else:
                parts.append(tag(name, cell, class_=None if len(parts) < left else "r"))
        return tag("tr", *parts)

    body = tag("table", tag("thead", row("th", head)), tag("tbody", *(row("td", line) for line in lines)))
    return tag("div", body, class_="scroll", role="region", aria_label=label, tabindex="0")


@dataclass(frozen=True)
class KeyFigure:
    """One large number with a line of words below."""

    value: object
    label: object


def key_figures(figures: Iterable[KeyFigure]) -> Html:
    """Large numbers side by side."""
    return tag(
        "dl",
        *(tag("div", tag("dt", figure.label), tag("dd", figure.value)) for figure in figures),
        class_="keys",
    )


def plot(svg: str, title: object, caption: object = "") -> Html:
    """A plot from plots.svg with a title above and an explanation below."""
    below = tag("p", caption, class_="caption") if caption else ""
    return tag("figure", tag("figcaption", title), Html(svg), below)


def columns(*children: object) -> Html:
    """Children side by side where there is room for two, below each other where not."""
    return tag("div", *children, class_="columns")


def paragraph(*children: object, class_: str | None = None) -> Html:
    return tag("p", *children, class_=class_)


def details(summary: object, *children: object) -> Html:
    """What only some readers want: folded until asked for."""
    return tag("details", tag("summary", summary), *children)
