"""The sections of a study's report that show its measurements."""

from coc_report import markup
from coc_report.markup import ABSENT, Html

from . import cells, table5
from .cells import SAME, SAME_NOTE, Pictures, Values
from .published import published


def pairs(values: Values, pictures: Pictures) -> Html:
    """Both orders of every pair."""
    rows = []
    for k, pair in enumerate(values["pairs"]):
        order, found = pair["published"], pair["comparison"]
        rows.append(
            (
                f"{order} or {order[::-1]}",
                cells.better(found),
                *cells.comparison(f"pairs.{k}.comparison", found),
            )
        )
    return markup.join(
        [
            markup.paragraph(
                "Both orders of every two techniques, over the same hyper-parameters. The first of each "
                "pair is the one that the paper finds better (Figures 6 to 11)."
            ),
            markup.table(("pair", "better", "factor", *SAME), rows, "Pairs", left=2),
            markup.paragraph(SAME_NOTE, class_="caption"),
            cells.plots(pictures, "pairs"),
            markup.paragraph(
                "Each pale mark is an operating point: a trained chain, with exits at one choice of "
                "thresholds. A line shows the most compression that keeps an accuracy, with several "
                "seeds their median.",
                class_="caption",
            ),
        ]
    )


def law(values: Values, pictures: Pictures) -> Html:
    """The graph of the pairs."""
    found = values["law"]
    rows = [
        ("better orders", ", ".join(found["edges"]) or "none"),
        ("pairs without one", ", ".join(found["open_pairs"]) or "none"),
        ("cycles", ", ".join(found["cycles"]) or "none"),
        ("orders that agree", ", ".join(found["orders"]) or "none"),
        ("order of the paper", found["published"]),
    ]
    return markup.join(
        [
            markup.paragraph(
                "Each better order is an arrow from the technique that comes first; a dashed line is a "
                "pair without one. Without a cycle the techniques can be sorted so that all arrows point "
                "one way, and if only one sorting does, the pairs alone decide the order."
            ),
            markup.columns(*(markup.plot(svg, title) for title, svg in pictures["law"]), cells.facts(rows)),
        ]
    )


def insertions(values: Values, pictures: Pictures) -> Html | None:
    """Both orders of pairs with a third technique between."""
    rows = []
    for k, one in enumerate(values["insertions"]):
        found = one["comparison"]
        orders = (cells.better(found), one["pair_better"] or "no difference")
        chains = f"{found['first']} or {found['second']}"
        rows.append((chains, *orders, *cells.comparison(f"insertions.{k}.comparison", found)))
    if not rows:
        return None
    return markup.join(
        [
            markup.paragraph(
                "The law rests on pairs, so that the order of two must not turn when a third stands "
                "between them (Figure 12)."
            ),
            markup.table(("chains", "better", "without third", "factor", *SAME), rows, "Insertion", left=3),
            cells.plots(pictures, "insertions"),
        ]
    )


def sequences(values: Values, pictures: Pictures) -> Html | None:
    """Table 1, and the published order against each other one."""
    if not values["table1"]:
        return None
    paper = published()
    return markup.join(
        [
            markup.paragraph(
                "The largest BitOpsCR that costs at most so many points of accuracy against the original "
                "(Table 1); a dash where no point does. Beside it what the paper reports for "
                f"{paper.table1_model} on CIFAR-10, whose original has {paper.table1_original} %."
            ),
            _table1(values),
            _rivals(values),
            cells.plots(pictures, "sequences"),
        ]
    )


def _table1(values: Values) -> Html:
    losses = [f"\N{LESS-THAN OR EQUAL TO} {loss:g}" for loss in values["statistics"]["losses"]]
    rows: list[tuple[object, ...]] = []
    for k, row in enumerate(values["table1"]):
        path = f"table1.{k}"
        ratios = enumerate(row["ratios"])
        ours = [cells.estimate(f"{path}.ratios.{i}", ratio, ",.0f") for i, ratio in ratios]
        rows.append((row["chain"], "here", *ours, cells.estimate(f"{path}.area", row["area"], unit="")))
        if row["published"]:
            paper = [ABSENT if value is None else f"{value:g}x" for value in row["published"]]
            rows.append(tuple(markup.tag("span", cell, class_="muted") for cell in ("", "paper", *paper, "")))
    return markup.table(("chain", "", *losses, "area"), rows, "Table 1", left=2)


def _rivals(values: Values) -> Html:
    order, nearest = values["law"]["published"], values["statistics"]["losses"][-1]
    rows = []
    for k, rival in enumerate(values["rivals"]):
        whole, near = rival["whole"], rival["near"]
        factor, won, accuracy, _ = cells.comparison(f"rivals.{k}.whole", whole)
        rows.append(
            (
                rival["chain"],
                cells.better(near),
                cells.better(whole),
                cells.estimate(f"rivals.{k}.near.factor", near["factor"]),
                factor,
                won,
                accuracy,
            )
        )
    if not rows:
        return markup.text("")
    head = (
        f"{order} or",
        f"better to {nearest:g} points",
        "over all",
        f"factor to {nearest:g} points",
        "over all",
        *SAME[:2],
    )
    return markup.join(
        [
            markup.tag("h3", f"{order} against each other sequence"),
            markup.table(head, rows, f"{order} against each other sequence", left=3),
            markup.paragraph(
                f"Intervals of {values['statistics']['rivals_level']:.0%} here, for there are several "
                f"rivals. The first columns count accuracies down to {nearest:g} points below the "
                "original, as Table 1 does.",
                class_="caption",
            ),
        ]
    )


def repeats(values: Values, pictures: Pictures) -> Html | None:
    """Every repeat against the chain that it prolongs."""
    rows = []
    for k, one in enumerate(values["repeats"]):
        found = one["comparison"]
        rows.append(
            (
                f"{found['first']} against {found['second']}",
                one["gain"],
                cells.status(one["agrees"]),
                cells.estimate(f"repeats.{k}.comparison.factor", found["factor"]),
            )
        )
    if not rows:
        return None
    return markup.join(
        [
            markup.paragraph(
                "A technique applied once more, against the chain without it at hyper-parameters of its own, "
                "stronger ones included (Figure 14). The paper finds that a repeat brings little, unless "
                "quantization follows quantization."
            ),
            markup.table(("", "the repeat brings", "paper's finding", "factor"), rows, "Repeats", left=3),
            cells.plots(pictures, "repeats"),
        ]
    )


def stages(values: Values, pictures: Pictures) -> Html | None:
    """What each stage of one chain did."""
    if not values["stages"]:
        return None
    rows = []
    for k, record in enumerate(values["stages"]):
        path = f"stages.{k}"
        before = values["stages"][k - 1]["bitops_cr"] if k else None
        factor = record["bitops_cr"] / before if before else None
        rows.append(
            (
                record["stage"],
                record["model"],
                record["bits"],
                markup.number(record["accuracy"], f"{path}.accuracy", ".2f", unit=" %"),
                markup.number(record["bitops_cr"], f"{path}.bitops_cr", ",.1f", unit="x"),
                markup.number(factor, f"{path}.bitops_cr / stages.{k - 1}.bitops_cr", ".2f", unit="x"),
                markup.number(record["cr"], f"{path}.cr", ",.1f", unit="x"),
            )
        )
    head = ("stage", "model", "bits", "accuracy", "BitOpsCR", "factor", "CR")
    return markup.join(
        [
            markup.paragraph(
                "What each stage of one chain did (Figure 15): the case that compresses most at a loss of "
                "one point, or the most accurate one, with the thresholds that its last stage chose."
            ),
            markup.table(head, rows, "Stages", left=3),
            cells.plots(pictures, "stages"),
        ]
    )


def other_methods(values: Values) -> Html | None:
    """Table 5 with our rows."""
    five = values["table5"]
    rows: list[tuple[object, ...]] = []
    for k, point in enumerate(five["ours"]):
        path = f"table5.ours.{k}"
        rows.append(
            (
                "here",
                point["chain"],
                markup.number(point["accuracy"], f"{path}.accuracy", ".2f"),
                markup.number(point["change"], f"{path}.change", "+.2f"),
                markup.number(point["bitops_cr"], f"{path}.bitops_cr", ",.2f"),
                markup.number(point["cr"], f"{path}.cr", ",.2f"),
                "",
            )
        )
    for row in (*five["own"], *five["rows"]):
        ahead = {True: "ahead", False: "not ahead", None: ""}[row.get("ahead")]
        ratios = (ABSENT if row[key] is None else f"{row[key]:,.2f}" for key in ("bitops_cr", "cr"))
        method = f"{row['method']}, paper" if row["own"] else row["method"]
        rows.append((row["model"], method, f"{row['accuracy']:.2f}", f"{row['change']:+.2f}", *ratios, ahead))
    if not rows:
        return None
    head = ("model", "method", "accuracy, %", "change", "BitOpsCR", "CR", "our chain is")
    return markup.join([markup.paragraph(_about_table5(values)), markup.table(head, rows, "Table 5", left=2)])


def _about_table5(values: Values) -> str:
    five = values["table5"]
    if not five["rows"]:
        return (
            f"The paper's Table 5 has no rows on {five['dataset']}, so only our own points are listed: the "
            "most compression under each loss of Table 1."
        )
    return (
        "Published methods that combine several techniques on this data set (Table 5), and our points "
        "with the most compression under each loss of Table 1. Ahead: at the loss of that row, or at "
        f"{table5.SMALLEST_LOSS:g} points where it loses less, our chain compresses more. Networks and "
        "originals differ, so that rows do not compare as they stand."
    )
