"""Sections of a benchmark's page about early exits: who leaves where, what thresholds buy, sample images."""

from typing import Any

from coc_report import plots
from coc_report.markup import Html, columns, details, image, join, paragraph, plot, table, tag, text

from . import charts
from .facts import Facts

PNG = "data:image/png;base64,"


def exits(facts: Facts) -> Html:
    """Per model with early exits: who leaves where, how fast and how right."""
    parts = []
    for k in facts.models:
        if len(facts.runs[k]["exit_share"]) < 2:
            continue
        if len(facts.models) > 1:
            parts.append(tag("h3", facts.name(k)))
        parts += [_exit_table(facts, k), _exit_plots(facts, k)]
    return join(parts)


def _exit_table(facts: Facts, k: int) -> Html:
    count = len(facts.runs[k]["exit_share"])
    rows = []
    for exit in range(count):
        at = f"runs.{k}"
        rows.append(
            [
                charts.exit_name(exit, count),
                facts.percent(f"{at}.exit_share.{exit}", ".1f"),
                facts.number(f"{at}.latency_us_by_exit.{exit}", unit=" µs"),
                facts.percent(f"{at}.accuracy_by_exit.{exit}"),
                facts.percent(f"{at}.exit_accuracy.{exit}"),
                facts.number(f"{at}.exit_latency_us.{exit}", unit=" µs"),
            ]
        )
    head = ["exit", "images that leave", "median latency", "right among them"]
    head += ["right if all leave", "latency if all leave"]
    return table(head, rows, f"Exits of {facts.name(k)}")


def _exit_plots(facts: Facts, k: int) -> Html:
    run = facts.runs[k]
    children = []
    if run.get("latency_histogram"):
        edges = run["latency_histogram"]["edges_us"]
        tail = " The last bar holds all slower images."
        children.append(
            plot(
                plots.svg(charts.distribution(facts, k), f"Latencies of {facts.name(k)} by exit"),
                "Latency by the exit taken",
                f"{facts.name(k)} in {facts.backend(k)}." + (tail if charts.has_tail(edges) else ""),
            )
        )
    shares = [*(run.get("accuracy_by_exit") or []), *(run.get("exit_accuracy") or [])]
    if any(share is not None for share in shares):
        children.append(
            plot(
                plots.svg(charts.exit_accuracy(facts, k), f"Accuracy of {facts.name(k)} by exit"),
                "Accuracy by exit",
                "Each exit lets go the images that it is sure of; the harder ones go on.",
            )
        )
    return columns(*children) if children else text("")


def tradeoff(facts: Facts) -> Html:
    """Quality against latency and BitOps over the thresholds."""
    curves = [k for k in facts.models if len(facts.runs[k].get("curve") or []) > 1]
    quality = "accuracy" if all(facts.runs[k]["accuracy"] is not None for k in curves) else "mae"
    runs = [k for k in curves if facts.runs[k].get(quality) is not None][: len(plots.PALETTE)]
    children = []
    for cost, name, title in (
        ("expected_latency_us", "latency", "mean microseconds for one image"),
        ("expected_bitops", "BitOps", "expected BitOps of one image"),
    ):
        drawn = [k for k in runs if any(point[cost] is not None for point in facts.runs[k]["curve"])]
        if drawn:
            svg = plots.svg(charts.tradeoff(facts, drawn, quality, cost, title), f"Quality against {name}")
            shown = "Accuracy" if quality == "accuracy" else "Error"
            children.append(plot(svg, f"{shown} against {name}"))
    if not children:
        return text("")
    return join(
        [
            paragraph(
                "An image leaves at the first exit that is sure enough. Each point is one choice of "
                "thresholds, from all images leaving as soon as they can to none leaving early. The ring is "
                "this run."
            ),
            columns(*children),
            *(_curve_table(facts, k, quality) for k in runs),
        ]
    )


def _curve_table(facts: Facts, k: int, quality: str) -> Html:
    points = facts.runs[k]["curve"]
    rows = []
    for j, point in enumerate(points):
        at = f"runs.{k}.curve.{j}"
        limits = (facts.number(f"{at}.thresholds.{e}", ".4g") for e in range(len(point["thresholds"])))
        shares = (facts.percent(f"{at}.exit_share.{e}", ".1f") for e in range(len(point["exit_share"])))
        good = facts.percent(f"{at}.accuracy") if quality == "accuracy" else facts.number(f"{at}.mae", ".4f")
        rows.append(
            [
                join([join(limits, ", "), " (this run)" if point.get("chosen") else ""]),
                join(shares, " / "),
                good,
                facts.number(f"{at}.expected_latency_us", unit=" µs"),
                facts.big(f"{at}.expected_bitops"),
                facts.times(f"{at}.bitops_cr"),
            ]
        )
    head = [
        "thresholds",
        "leave at each exit",
        quality.replace("mae", "MAE"),
        "latency",
        "BitOps",
        "BitOpsCR",
    ]
    name = facts.name(k)
    return details(
        f"All {len(points)} points of {name}",
        table(head, rows, f"Thresholds of {name}", left=2),
        paragraph("A confidence never exceeds 1: at a higher threshold no image leaves.", class_="caption"),
    )


def samples(facts: Facts) -> Html:
    """Per model: images that left at each exit."""
    parts: list[Html] = []
    for k in facts.models:
        groups = facts.runs[k].get("exit_images") or []
        if any(groups) and len(facts.models) > 1:
            parts.append(tag("h3", facts.name(k)))
        for exit, pictures in enumerate(groups):
            if pictures:
                share = facts.percent(f"runs.{k}.exit_share.{exit}", ".1f")
                where = charts.exit_name(exit, len(groups))
                parts.append(paragraph(tag("strong", where.capitalize()), ": ", share, " of the images"))
                shown = (
                    _sample(picture, f"runs.{k}.exit_images.{exit}.{j}") for j, picture in enumerate(pictures)
                )
                parts.append(tag("div", *shown, class_="samples"))
    if not parts:
        return text("")
    how = "Below each image its label; where the answer is wrong, an arrow and the answer."
    return join([paragraph(how), *parts])


def _sample(picture: dict[str, Any], at: str) -> Html:
    label, answer = picture["label"], picture["predicted"]
    right = label == answer
    source = picture["png"] if picture["png"].startswith("data:") else PNG + picture["png"]
    words = _class(label, f"{at}.label")
    if not right:
        words = join([words, " \N{RIGHTWARDS ARROW} ", _class(answer, f"{at}.predicted")])
    return tag(
        "div",
        image(source, f"{label}, answered {answer}"),
        tag("span", words, class_=None if right else "wrong"),
    )


def _class(value: object, path: str) -> Html:
    """A class by its number or name."""
    return tag("span", value, data_json=path) if isinstance(value, int) else text(value)
