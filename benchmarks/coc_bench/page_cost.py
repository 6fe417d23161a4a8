"""Sections of a benchmark's page: BitOpsCR beside measured speed-up, layers, missing peers, environment."""

from collections.abc import Sequence
from typing import Any

from coc_report import plots
from coc_report.markup import ABSENT, Html, columns, details, join, number, paragraph, plot, table, tag, text

from . import charts
from .facts import LIBRARIES, Facts

SHARES = ("share_of_time", "share_of_bitops")
MENTIONED = 0.01
"""Share of the time, beyond a layer's share of BitOps, from which on it is worth a sentence."""


def gap(facts: Facts) -> Html:
    """BitOpsCR beside measured speed-up, and the reasons why they differ."""
    compared = [
        k
        for k, run in enumerate(facts.runs)
        if k != facts.original and run.get("bitops_cr") and run.get("mean_speedup_over_original")
    ]
    with_layers = [k for k in facts.models if facts.runs[k].get("layers")]
    if not compared and not with_layers:
        return text("")
    parts = [_distance(facts, compared)]
    if compared:
        title = "BitOpsCR beside the measured speed-up"
        parts = [columns(plot(plots.svg(charts.gap(facts, compared), title), title), tag("div", *parts))]
    for k in with_layers:
        parts += [columns(_layer_plot(facts, k), _reasons(facts, k)), _layer_table(facts, k)]
    return join(parts)


def _distance(facts: Facts, compared: Sequence[int]) -> Html:
    """How far speed lags behind BitOps, and the reason that no measurement is needed for."""
    parts: list[object] = []
    if compared:
        k = facts.headline if facts.headline in compared else compared[0]
        at = f"runs.{k}"
        parts = [
            f"{facts.name(k)} spends ",
            facts.number(f"{at}.bitops_cr"),
            " times fewer BitOps than the original and is ",
            facts.number(f"{at}.mean_speedup_over_original"),
            " times as fast: BitOps promise ",
            facts.number(f"{at}.bitops_cr / {at}.mean_speedup_over_original"),
            " times what the clock shows. ",
        ]
    return paragraph(
        *parts,
        "BitOps count a multiplication as cheaper the fewer bits it has. A CPU multiplies eight bits at the "
        "narrowest, so its time follows the number of multiplications and the bytes moved rather than the "
        "bits; and what counts no BitOps takes time all the same.",
    )


def _reasons(facts: Facts, k: int) -> Html:
    """What the layers' times tell: free steps that are not, and the layer most out of proportion."""
    layers: list[dict[str, Any]] = facts.runs[k]["layers"]
    sentences = []
    free = [j for j, row in enumerate(layers) if not row["bitops"] and row["share_of_time"]]
    if free:
        total = facts.percent(" + ".join(f"runs.{k}.layers.{j}.share_of_time" for j in free), ".1f")
        kinds = ", ".join(dict.fromkeys(kind(layers[j]) for j in free))
        sentences.append(join([total, f" of the time goes into steps that count no BitOps: {kinds}."]))
    surplus = {
        j: row["share_of_time"] - row["share_of_bitops"] for j, row in enumerate(layers) if row["bitops"]
    }
    worst = max(surplus, key=lambda j: surplus[j], default=None)
    if worst is not None and surplus[worst] > MENTIONED:
        at = f"runs.{k}.layers.{worst}"
        time, bitops = (facts.percent(f"{at}.{share}", ".1f") for share in SHARES)
        words = [tag("code", layers[worst]["name"]), " takes ", time, " of the time for ", bitops]
        sentences.append(join([*words, " of the BitOps, more out of proportion than any other layer."]))
    return tag("div", _kinds(facts, k), paragraph(join(sentences, " ")))


def _kinds(facts: Facts, k: int) -> Html:
    """Time and BitOps of layers of the same kind and bits."""
    groups: dict[str, list[str]] = {}
    for j, row in enumerate(facts.runs[k]["layers"]):
        bits = f", {row['weight_bits']}x{row['activation_bits']} bits" if row["macs"] else ""
        groups.setdefault(f"{kind(row)}{bits}", []).append(f"runs.{k}.layers.{j}")
    rows = [
        [name, *(facts.percent(" + ".join(f"{at}.{share}" for at in paths), ".1f") for share in SHARES)]
        for name, paths in groups.items()
    ]
    return table(["steps", "of the time", "of the BitOps"], rows, f"Kinds of steps of {facts.name(k)}")


def _layer_plot(facts: Facts, k: int) -> Html:
    rows = facts.runs[k]["layers"]
    shown = charts.largest(rows)
    cut = f"The {len(shown)} largest of {len(rows)} steps. " if len(shown) < len(rows) else ""
    return plot(
        plots.svg(charts.layers(shown), f"Share of time and of BitOps per layer of {facts.name(k)}"),
        f"Where time goes in {facts.name(k)}",
        f"{cut}Shares are of all segments, as if every image went to the end.",
    )


def _layer_table(facts: Facts, k: int) -> Html:
    rows = facts.runs[k]["layers"]
    cells = []
    for j, row in enumerate(rows):
        at = f"runs.{k}.layers.{j}"
        bits = [facts.number(f"{at}.{key}", "d") for key in ("weight_bits", "activation_bits")]
        cells.append(
            [
                row["name"],
                kind(row),
                facts.number(f"{at}.segment", "d"),
                facts.number(f"{at}.macs", ",d"),
                join(bits, "x") if row["macs"] else text(ABSENT),
                facts.number(f"{at}.bitops", ",.0f"),
                facts.number(f"{at}.time_us", ".2f", unit=" µs"),
                facts.percent(f"{at}.share_of_time", ".1f"),
                facts.percent(f"{at}.share_of_bitops", ".1f"),
            ]
        )
    head = ["layer", "kind", "segment", "MACs", "bits", "BitOps", "time", "of time", "of BitOps"]
    listing = table(head, cells, f"Layers of {facts.name(k)}", left=2)
    return details(f"All {len(rows)} steps of {facts.name(k)}", listing)


def kind(row: dict[str, Any]) -> str:
    """What a layer does; what belongs to no operator says so by its name."""
    return str(row.get("kind") or row.get("op") or row["name"])


def missing(facts: Facts) -> Html:
    """Peers that were asked for and could not run, with the reason."""
    peers = facts.report.get("missing_peers") or []
    if not peers:
        return text("")
    rows = [
        [LIBRARIES.get(entry["peer"], entry["peer"]), tag("span", entry["reason"], class_="wrap")]
        for entry in peers
    ]
    return table(["peer", "reason"], rows, "Peers that did not run", left=2)


def environment(facts: Facts) -> Html:
    """Machine and versions, how it was measured, and how steady the machine was."""
    how = _entries(facts, "settings") + _entries(facts, "drift", "drift: ")
    parts = [tag("dl", *_entries(facts, "environment"), class_="facts")]
    if how:
        parts += [tag("h3", "How it was measured"), tag("dl", *how, class_="facts")]
    return join(parts)


def _entries(facts: Facts, at: str, before: str = "") -> list[Html]:
    return [
        tag("div", tag("dt", before + key.replace("_", " ")), tag("dd", said(value, f"{at}.{key}")))
        for key, value in (facts.report.get(at) or {}).items()
    ]


def said(value: Any, path: str) -> Html:
    """Any value of the JSON in words."""
    if value is None:
        return text(ABSENT)
    if isinstance(value, bool):
        return text("yes" if value else "no")
    if isinstance(value, int):
        return number(value, path, "d")
    if isinstance(value, float):
        return number(value, path, ".4g")
    if isinstance(value, list):
        return join((said(item, f"{path}.{k}") for k, item in enumerate(value)), ", ")
    if isinstance(value, dict):
        return join((join([f"{key} ", said(item, f"{path}.{key}")]) for key, item in value.items()), ", ")
    return text(value)
