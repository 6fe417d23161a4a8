"""Pieces that the sections of a study's report share: figures with intervals, comparisons, plots."""

from collections.abc import Sequence
from typing import Any

from coc_report import markup
from coc_report.markup import ABSENT, Html

Values = dict[str, Any]
Pictures = dict[str, list[tuple[str, str]]]
"""Per section: (title, <svg>) of each plot."""
MARKS = {"supported": "\N{CHECK MARK}", "contradicted": "\N{MULTIPLICATION SIGN}", "undecided": "?"}
SAME = ("cases won", "accuracy, points", "compression")
"""Heads of what `comparison` says of equal hyper-parameters."""
SAME_NOTE = (
    "Factor: how many times more the first order compresses at the same accuracy. The columns behind it "
    "compare the orders at the same hyper-parameters and seed: in how many cases the first has the larger "
    "area (and the probability p of so uneven a count by chance), how much more accurate it is in the "
    "mean, and how many times more it compresses."
)


def status(name: str) -> str:
    """A finding with its mark."""
    return f"{MARKS[name]} {name}"


def better(found: Values | None) -> str:
    """The better chain of a comparison, or why there is none."""
    if found is None:
        return "not measured"
    return found["better"] or ("too few cases" if found["few"] else "no difference")


def wrapped(content: object) -> Html:
    """A cell whose text may break into lines."""
    return markup.tag("span", content, class_="wrap")


def plots(pictures: Pictures, name: str) -> Html:
    """A section's plots side by side; a single one keeps half of the width."""
    shown = [markup.plot(svg, title) for title, svg in pictures.get(name, ())]
    return markup.columns(*shown, *([markup.tag("div")] if len(shown) == 1 else []))


def estimate(path: str, value: Values, form: str = ".2f", unit: str = "x") -> Html:
    """A figure and its interval; a dash where nothing is reached, even with luck."""
    if value["value"] is None and value["high"] is None:
        return markup.text(ABSENT)
    low, high = (markup.number(value[end], f"{path}.{end}", form) for end in ("low", "high"))
    shown = markup.number(
        value["value"], f"{path}.value", form, unit=unit if value["value"] is not None else ""
    )
    return markup.join([shown, " (", low, " to ", high, ")"])


def count(path: str, value: float) -> Html:
    """A whole number."""
    return markup.number(value, path, ",.0f")


def comparison(path: str, found: Values | None) -> list[object]:
    """Cells: the factor, then those of SAME."""
    if found is None:
        return [ABSENT] * (1 + len(SAME))
    same = found["same"]
    factor = estimate(f"{path}.factor", found["factor"])
    if same is None:
        return [factor, *[ABSENT] * len(SAME)]
    path = f"{path}.same"
    return [
        factor,
        markup.join(
            [
                count(f"{path}.wins", same["wins"]),
                " of ",
                count(f"{path}.contested", same["contested"]),
                " (p ",
                markup.number(same["sign_test"], f"{path}.sign_test", ".1g"),
                ")",
            ]
        ),
        estimate(f"{path}.accuracy", same["accuracy"], "+.2f", ""),
        estimate(f"{path}.ratio", same["ratio"]),
    ]


def facts(rows: Sequence[tuple[str, object]]) -> Html:
    """Names and values."""
    pairs = (markup.tag("div", markup.tag("dt", name), markup.tag("dd", value)) for name, value in rows)
    return markup.tag("dl", *pairs, class_="facts")
