"""The sections of a benchmark's page, in the page's order; one that has nothing to show is left out."""

from coc_report import plots
from coc_report.markup import (
    ABSENT,
    Html,
    KeyFigure,
    Pair,
    columns,
    details,
    join,
    key_figures,
    paragraph,
    plot,
    table,
    tag,
    text,
)

from . import charts
from .facts import Facts, Speed, digits, plural
from .page_cost import said


def lead(facts: Facts) -> Html:
    """The answer in sentences: the fastest artifact's quality and time, against original and best peer."""
    k = facts.headline
    run = facts.runs[k]
    at = f"runs.{k}"
    samples = facts.number(f"{at}.samples", ",d")
    said: list[object] = [tag("strong", run["artifact"]), " "]
    if run["accuracy"] is not None:
        said += ["is right for ", facts.percent(f"{at}.accuracy"), " of ", samples]
        said += [f" test images of {run['data']} and takes "]
    elif run.get("mae") is not None:
        said += ["has a mean absolute error of ", facts.number(f"{at}.mae", ".4f"), " on ", samples]
        said += [f" test images of {run['data']} and takes "]
    else:
        said += ["takes "]
    said += [facts.number(f"{at}.latency_us.mean", unit=" µs"), " an image on average, on "]
    said += [facts.number(f"{at}.threads", "d"), f" {plural(run['threads'], 'thread')} of "]
    said += [facts.value("environment.cpu") or "this CPU", "."]
    return paragraph(join([join(said), *(_compared(facts, k, speed) for speed in _rivals(facts, k))], " "))


def _rivals(facts: Facts, k: int) -> list[Speed]:
    """The original and the fastest of the other peers."""
    others = [speed for speed in facts.speeds(k) if speed.to not in facts.artifacts]
    original = [speed for speed in others if speed.to == facts.original]
    rest = [speed for speed in others if speed.to != facts.original]
    return original + sorted(rest, key=lambda speed: facts.mean(speed.to))[:1]


def _compared(facts: Facts, k: int, speed: Speed) -> Html:
    """A sentence on speed and quality against another run."""
    name = tag("strong", facts.name(speed.to))
    said: list[object]
    if speed.differs is False:
        said = ["No difference in speed was found against ", name]
    elif facts.value(speed.faster) >= 1:
        said = ["It is ", facts.number(speed.faster), " times as fast as ", name]
    else:
        said = ["It takes ", facts.number(speed.slower), " times as long as ", name]
    if speed.low:
        form = digits(facts.value(speed.faster))
        plain = speed.differs and facts.value(speed.faster) >= 1
        said += [" (95 % interval ", facts.between(speed.low, speed.high, form)]
        said += [")" if plain else " times as fast)"]
    points = _points(facts, k, speed.to)
    if points:
        said += ["; it is right " if speed.differs is False else " and is right ", points]
    return join([*said, "."])


def _points(facts: Facts, k: int, other: int) -> Html:
    """How much more often run k is right than another one; nothing where either has no accuracy."""
    mine, its = f"runs.{k}.accuracy", f"runs.{other}.accuracy"
    difference = facts.value(f"{mine} - {its}")
    if difference is None:
        return text("")
    if round(100 * difference, 2) == 0:
        return text("as often")
    less = difference < 0
    points = facts.number(f"{its} - {mine}" if less else f"{mine} - {its}", ".2f", 100)
    return join([points, " points ", "less" if less else "more", " often"])


def summary(facts: Facts) -> Html:
    """Key figures of the headline run, and its comparison with every other run."""
    k = facts.headline
    others = facts.speeds(k)
    if not others:
        return _keys(facts, k)
    rows = []
    for speed in others:
        form = digits(facts.value(speed.faster))
        rows.append(
            [
                facts.pair(speed.to),
                _verdict(facts, speed),
                facts.times(speed.faster),
                facts.between(speed.low, speed.high, form),
                _points(facts, k, speed.to) or text(ABSENT),
            ]
        )
    head = [Pair("against", "back end"), "speed", "times as fast", "95 % interval", "right answers"]
    return join([_keys(facts, k), table(head, rows, f"{facts.name(k)} against every other run", left=3)])


def _verdict(facts: Facts, speed: Speed) -> str:
    if speed.differs is None:
        return ABSENT
    if not speed.differs:
        return "no difference"
    return "faster" if facts.value(speed.faster) > 1 else "slower"


def _keys(facts: Facts, k: int) -> Html:
    at = f"runs.{k}"
    run = facts.runs[k]
    keys = [KeyFigure(facts.number(f"{at}.latency_us.mean", unit=" µs"), "mean latency of one image")]
    if run["accuracy"] is not None:
        keys.append(KeyFigure(facts.percent(f"{at}.accuracy"), "of the test images right"))
    elif run.get("mae") is not None:
        keys.append(KeyFigure(facts.number(f"{at}.mae", ".4f"), "mean absolute error"))
    if facts.original is not None and facts.original != k:
        value = next(speed.faster for speed in facts.speeds(k) if speed.to == facts.original)
        keys.append(KeyFigure(facts.times(value), "as fast as the original"))
    if run.get("bitops_cr") is not None:
        keys.append(KeyFigure(facts.times(f"{at}.bitops_cr"), "fewer BitOps than the original"))
    if run.get("cr") is not None:
        keys.append(KeyFigure(facts.times(f"{at}.cr"), "fewer bits stored"))
    keys.append(KeyFigure(facts.size(f"{at}.file_bytes"), "on disk"))
    keys.append(KeyFigure(facts.number(f"{at}.peak_rss_mb", unit=" MB"), "peak memory of the process"))
    if len(run["exit_share"]) > 1:
        last = f"{at}.exit_share.{len(run['exit_share']) - 1}"
        keys.append(KeyFigure(facts.percent(f"1 - {last}", ".1f"), "of the images leave early"))
    return key_figures(keys)


def all_runs(facts: Facts) -> Html:
    """Every run in two tables: how good and fast, and what it costs."""
    return join([_speed_table(facts), _cost_table(facts), _settings(facts)])


def _speed_table(facts: Facts) -> Html:
    rows = []
    for k in range(len(facts.runs)):
        at = f"runs.{k}"
        interval = f"{at}.mean_latency_interval_us"
        rows.append(
            [
                facts.pair(k),
                facts.percent(f"{at}.accuracy"),
                facts.number(f"{at}.mae", ".4f"),
                facts.number(f"{at}.r2", ".4f"),
                facts.number(f"{at}.latency_us.mean"),
                facts.between(f"{interval}.0", f"{interval}.1", digits(facts.mean(k))),
                *(facts.number(f"{at}.latency_us.{key}") for key in ("p50", "p90", "p99", "max")),
                facts.number(f"{at}.images_per_s", ",.0f"),
                facts.times(f"{at}.mean_speedup_over_original"),
            ]
        )
    quality = [Pair("run", "back end"), "accuracy", "MAE", "R²"]
    head = [*quality, "mean µs", "95 % interval", "p50", "p90", "p99", "worst", "images/s", "speed-up"]
    note = paragraph(
        "Latencies are those of one image alone, in microseconds, over ",
        facts.number("runs.0.rounds", ",d"),
        " interleaved rounds on ",
        facts.number("runs.0.threads", "d"),
        f" {plural(facts.runs[0]['threads'], 'thread')}; images/s at a batch of ",
        facts.number("runs.0.batch", "d"),
        ". Speed-up: mean latency of the original divided by that of the run.",
        class_="caption",
    )
    return join([table(head, rows, "Quality and speed of every run", left=2), note])


def _cost_table(facts: Facts) -> Html:
    rows = [
        [
            facts.pair(k),
            facts.big(f"runs.{k}.expected_bitops"),
            facts.times(f"runs.{k}.bitops_cr"),
            facts.times(f"runs.{k}.bitops_cr_uniform"),
            facts.times(f"runs.{k}.cr"),
            facts.size(f"runs.{k}.file_bytes"),
            facts.number(f"runs.{k}.load_ms", unit=" ms"),
            facts.number(f"runs.{k}.peak_rss_mb", unit=" MB"),
        ]
        for k in range(len(facts.runs))
    ]
    head = [Pair("run", "back end"), "BitOps", "BitOpsCR", "uniform", "CR", "file", "load", "memory"]
    note = paragraph(
        "BitOps: multiplications times weight bits times activation bits, expected over the exits taken. "
        "BitOpsCR: how many times fewer than the original, with each layer's own bits or, uniform, with the "
        "chain's bits for all layers. CR: how many times fewer bits stored. Memory: peak of the process.",
        class_="caption",
    )
    return join([table(head, rows, "Cost and size of every run", left=2), note])


def _settings(facts: Facts) -> Html:
    """The settings of those runs that name some."""
    rows = [
        [facts.name(k), key.replace("_", " "), said(value, f"runs.{k}.settings.{key}")]
        for k, run in enumerate(facts.runs)
        for key, value in (run.get("settings") or {}).items()
    ]
    if not rows:
        return text("")
    return details("Settings of the peers", table(["run", "setting", "value"], rows, "Settings", left=3))


def latency(facts: Facts) -> Html:
    """Latency of every run, and the headline's speed against each."""
    children = [
        plot(
            plots.svg(charts.latency(facts), "Mean latency of every run"),
            "Latency of one image",
            "Bar and number: mean. Dot: median. Tick at the end of the line: 99th percentile.",
        )
    ]
    if len(facts.runs) > 1:
        k = facts.headline
        told = any(speed.low for speed in facts.speeds(k))
        how = (
            "Line: 95 % bootstrap interval; grey dot: no difference."
            if told
            else "This file holds no intervals."
        )
        children.append(
            plot(
                plots.svg(charts.speeds(facts, k), f"Speed of {facts.name(k)} against every other run"),
                f"{facts.name(k)} against every other run",
                f"Ratio of the mean latencies. {how}",
            )
        )
    return columns(*children)
