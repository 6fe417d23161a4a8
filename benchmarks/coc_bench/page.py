"""One self-contained HTML page: no network, no scripts, light and dark, readable on a phone and in print."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coc_runtime import files

from . import sections, sections_cost, sections_exits
from .facts import Facts
from .look import CSS
from .markup import (
    ABSENT,
    Html,
    KeyFigure,
    Pair,
    columns,
    details,
    image,
    join,
    key_figures,
    number,
    paragraph,
    plot,
    table,
    tag,
    text,
)

__all__ = [
    "ABSENT",
    "Html",
    "KeyFigure",
    "Pair",
    "Section",
    "columns",
    "details",
    "document",
    "image",
    "join",
    "key_figures",
    "number",
    "paragraph",
    "plot",
    "table",
    "tag",
    "text",
    "write",
]

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the page may load: nothing but what it holds."""


@dataclass(frozen=True)
class Section:
    """A part of the page under its own heading."""

    title: str
    body: Html

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


def document(title: str, sections: Sequence[Section], lead: object = "") -> str:
    """The whole page. lead: the answer in a sentence or two (or more of Html), above all sections.

    It loads nothing, which its own content policy enforces: pictures are data URIs or <svg>.
    """
    links = [tag("a", section.title, href=f"#{section.anchor}") for section in sections]
    body = tag(
        "main",
        tag(
            "header",
            tag("h1", title),
            tag("div", lead, class_="lead"),
            tag("nav", *links, aria_label="Sections"),
        ),
        *(tag("section", tag("h2", section.title), section.body, id=section.anchor) for section in sections),
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{text(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def write(path: Path, report: dict[str, Any]) -> None:
    """The page of a benchmark, from coc-bench's JSON; CocError where it cannot be written or drawn."""
    files.write_text(path, benchmark(report))


def benchmark(report: dict[str, Any]) -> str:
    """The page of a benchmark; sections that the report has nothing for are left out."""
    facts = Facts(report)
    run = facts.runs[facts.headline]
    parts = {
        "Summary": sections.summary(facts),
        "All runs": sections.all_runs(facts),
        "Latency": sections.latency(facts),
        "Early exits": sections_exits.exits(facts),
        "Thresholds": sections_exits.tradeoff(facts),
        "BitOps and time": sections_cost.gap(facts),
        "Images by exit": sections_exits.samples(facts),
        "Missing peers": sections_cost.missing(facts),
        "Environment": sections_cost.environment(facts),
    }
    found = [Section(title, body) for title, body in parts.items() if body]
    return document(f"{run['artifact']} on {run['data']}", found, sections.lead(facts))
