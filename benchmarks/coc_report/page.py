"""One self-contained HTML page: no network, no scripts, light and dark, readable on a phone and in print."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from coc_runtime.errors import CocError

from .look import DARK, LIGHT
from .markup import Html, text

if TYPE_CHECKING:
    from jinja2 import Template

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

    It loads nothing, which its own content policy enforces: pictures are data URIs or <svg>. Raises CocError
    where Jinja2 is missing.
    """
    return _template().render(
        title=title, lead=lead, sections=sections, policy=_POLICY, light=LIGHT, dark=DARK
    )


@cache
def _template() -> "Template":
    """templates/page.html, which escapes whatever is not Html."""
    try:
        import jinja2
    except ImportError:
        raise CocError("pages need Jinja2, which is not installed: pip install 'coc-deploy[plots]'") from None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coc_report"),
        autoescape=jinja2.select_autoescape(),
        finalize=text,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")
