"""DIR/report.html: what a study found, from its conclusions and its pictures."""

from coc_report import markup, page
from coc_report.markup import Html
from coc_report.page import Section

from . import cells, page_parts
from .cells import Pictures, Values
from .published import published

SHORT = 120
"""Characters of an entry of the table `meta` that is shown in a line."""


def document(values: Values, pictures: Pictures) -> str:
    """The page. values: those of conclusions.json, which every number names as its source."""
    parts = {
        "Claims": _claims(values),
        "Pairs": page_parts.pairs(values, pictures),
        "Order law": page_parts.law(values, pictures),
        "Insertion": page_parts.insertions(values, pictures),
        "Sequences": page_parts.sequences(values, pictures),
        "Repeats": page_parts.repeats(values, pictures),
        "Stages": page_parts.stages(values, pictures),
        "Other methods": page_parts.other_methods(values),
        "How it was concluded": _statistics(values),
        "Setting and cost": _cost(values),
    }
    found = [Section(name, body) for name, body in parts.items() if body]
    return page.document(f"Which order compresses most: {values['data']}", found, _lead(values))


def _lead(values: Values) -> Html:
    law, total = values["law"], len(values["pairs"])
    if law["cycles"]:
        found = "The better orders of the pairs go round in a circle, so no order agrees with all of them."
    elif law["order"]:
        found = f"The pairs leave one order of the four techniques: {law['order']}."
    elif law["edges"]:
        orders = law["orders"]
        named = f": {', '.join(orders)}" if len(orders) <= 4 else ""
        found = (
            f"{len(law['edges'])} of {total} pairs of techniques have a better order, and {len(orders)} "
            f"orders of all four agree with them{named}."
        )
    else:
        found = "No pair of techniques has an order that is surely better."
    statuses = [claim["status"] for claim in values["claims"]]
    counts = ", ".join(f"{statuses.count(name)} {name}" for name in cells.MARKS)
    return markup.paragraph(f"{found} Of the paper's claims that a study can test: {counts}.")


def _claims(values: Values) -> Html:
    found = (
        part
        for claim in values["claims"]
        for part in (
            markup.tag("h3", f"{claim['number']}. {claim['title']}"),
            markup.paragraph(markup.tag("strong", f"{cells.status(claim['status'])}. "), claim["evidence"]),
        )
    )
    return markup.join(
        [
            *found,
            markup.paragraph(
                f"The claims are those of {published().source}. A factor such as 1.50x says how many "
                "times fewer BitOps one order takes at the same accuracy, in the mean over the "
                f"accuracies reached; brackets hold the interval of {values['statistics']['level']:.0%}. "
                "Supported and contradicted are said where chance is an unlikely reason, undecided of "
                "all else.",
                class_="caption",
            ),
        ]
    )


def _statistics(values: Values) -> Html:
    how = values["statistics"]
    again = (
        "The test images are drawn again with replacement, and so are the seeds where there are "
        f"{how['fewest']} or more. With fewer seeds the cases are drawn instead: each was trained once or "
        "twice, and one that was lucky must not decide alone."
    )
    points = (
        "The frontier of an order: the area under it (hypervolume) over log10 of BitOpsCR and points of "
        "accuracy. It counts from half of the least BitOpsCR of the chains compared, and from half a "
        "point below the most compressed point of the frontier that ends lowest, at most "
        f"{how['depth']:g} points below the original (or the best point, where all lose more). Of several "
        "seeds, the mean of their areas and the median of their BitOpsCR under a loss.",
        f"Intervals: {again} There are {how['draws']} draws, the same for all chains, so that what is "
        "hard for all of them cancels. Intervals of areas have the draws' errors turned round (basic "
        "bootstrap): a frontier picks the luckiest points, in the data and again in every draw.",
        "The original is drawn on the same images, so that a loss is that of one set of images."
        if how["originals_drawn"]
        else "The original's accuracy is taken as it was measured on all test images.",
        "Better: the interval of the difference of the areas lies on one side of 0, over the cases "
        "(hyper-parameters and seed) that both orders have, of which there must be a few. Otherwise "
        "there is no difference that this study can see.",
        f"A repeat brings little if the whole interval of its factor lies below {how['little']:g}, more "
        f"if it lies above 1, much more if it lies above {how['little']:g}, less if it lies below 1.",
    )
    return markup.tag("ul", *(markup.tag("li", point) for point in points))


def _cost(values: Values) -> Html:
    cost = values["cost"]

    def shown(name: str, form: str = ",.0f", unit: str = "", scale: float = 1.0) -> Html:
        return markup.number(cost[name], f"cost.{name}", form, scale, unit)

    instead = markup.join(
        ["stages in the tree, instead of ", shown("stages_alone"), " if each case ran alone"]
    )
    figures = (
        markup.KeyFigure(shown("cases"), markup.join(["cases, ", shown("points"), " operating points"])),
        markup.KeyFigure(shown("stages"), instead),
        markup.KeyFigure(shown("seconds", ",.1f", " min", 1 / 60), "of training and evaluation"),
        markup.KeyFigure(shown("failures"), "cases failed"),
    )
    short = {key: value for key, value in values["meta"].items() if "\n" not in value and len(value) <= SHORT}
    ends = values["original_accuracy"]
    accuracy = [markup.number(ends[end], f"original_accuracy.{end}", ".2f") for end in ("low", "high")]
    rows = [
        ("data set", values["data"]),
        ("test images", cells.count("images", values["images"])),
        ("seeds", ", ".join(map(str, values["seeds"]))),
        ("accuracy of the originals, %", markup.join([accuracy[0], " to ", accuracy[1]])),
        ("epochs", markup.join([shown("epochs"), ", instead of ", shown("epochs_alone")])),
        ("stages found finished in the last run", shown("cached")),
        ("worker processes", shown("workers")),
        *short.items(),
    ]
    long = (
        markup.details(key, markup.tag("pre", markup.tag("code", value), class_="scroll"))
        for key, value in values["meta"].items()
        if key not in short
    )
    return markup.join([markup.key_figures(figures), cells.facts(rows), *long, _failures(values)])


def _failures(values: Values) -> Html:
    if not values["failures"]:
        return markup.text("")
    keys = [key for key in ("chain", "setting", "seed", "error") if key in values["failures"][0]]
    keys = keys or list(values["failures"][0])
    rows = [[cells.wrapped(failure[key]) for key in keys] for failure in values["failures"]]
    return markup.join(
        [markup.tag("h3", "Cases that failed"), markup.table(keys, rows, "Failures", left=len(keys))]
    )
