"""The project's one look for plots: Matplotlib figures as inline SVG for pages, or as PNG for documents.

A module that draws decorates its functions with `@style()`, takes `figure(width, height)` for its axes,
colours series with `PALETTE` and marks them with `MARKERS` too (colour alone must not tell them apart), and
hands the figure to `svg` or `png`. Texts are taken literally, a `$` included; logarithmic axes come from
`log_axis`.

In an SVG the colours of text, axes, surface and palette are CSS: `currentColor` and the variables that
`page.document` defines for light and for dark. Matplotlib (the extra `plots`) is imported when a figure is
made; its settings are left as they were.
"""

import hashlib
import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from coc_runtime import files
from coc_runtime.errors import CocError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

TEXT = "#1c2126"
MUTED = "#5c6670"
RULE = "#dfe3e8"
SURFACE = "#ffffff"
PALETTE = ("#1a6fbf", "#dc7811", "#0c9a78", "#ac3690", "#8d55f0", "#7b8794")
"""Colours of series, in order: contrast of at least 3 on the light and on the dark surface, and apart from
each other for every common kind of colour blindness. Draw no more than six series in one plot."""
DARK_PALETTE = ("#4f9fe8", "#f5a742", "#4fd1ab", "#cf62b8", "#9f80ff", "#a3adb8")
"""The same hues, lighter, which pages show instead where they are dark."""
MARKERS = ("o", "s", "^", "D", "v", "P")

CSS_COLOURS = {
    TEXT: "currentColor",
    MUTED: f"var(--muted, {MUTED})",
    RULE: f"var(--rule, {RULE})",
    SURFACE: f"var(--surface, {SURFACE})",
    **{colour: f"var(--series-{k}, {colour})" for k, colour in enumerate(PALETTE)},
}
FONT_SIZE = 12.5
PNG_DPI = 144
"""Twice a CSS pixel."""
PNG_MARGIN = 10
"""CSS pixels; a page has margins of its own."""
_BINDING = "json:"

_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "text.color": TEXT,
    "text.parse_math": False,
    "figure.facecolor": "none",
    "figure.dpi": 72,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 4 / 72,
    "figure.constrained_layout.w_pad": 1 / 72,
    "savefig.facecolor": "none",
    "savefig.edgecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.titlelocation": "left",
    "axes.titlecolor": TEXT,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "grid.color": RULE,
    "grid.linewidth": 1.0,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "xtick.labelsize": FONT_SIZE - 1,
    "ytick.labelsize": FONT_SIZE - 1,
    "lines.linewidth": 1.8,
    "lines.markersize": 5.5,
    "lines.solid_capstyle": "round",
    "patch.linewidth": 0.0,
    "legend.borderpad": 0.2,
    "legend.edgecolor": "none",
    "legend.facecolor": SURFACE,
    "legend.fancybox": False,
    "legend.framealpha": 1.0,
    "legend.fontsize": FONT_SIZE - 0.5,
    "legend.handlelength": 1.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "coc",
}


@contextmanager
def style() -> Iterator[None]:
    """The house style while drawing: a context, or `@style()`. CocError where Matplotlib is missing."""
    try:
        import matplotlib
        from cycler import cycler
    except ImportError:
        raise CocError(
            "plots need Matplotlib, which is not installed: pip install 'coc-deploy[plots]'"
        ) from None
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the measuring font lacks is still shown, in the font of the page.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams
        settings.update(_STYLE | {"axes.prop_cycle": cycler(color=PALETTE)})
        yield


def figure(width: float, height: float) -> "tuple[Figure, Axes]":
    """An empty figure with one axes, in the house style. Sizes in CSS pixels, as are all lengths in points.

    460 wide fits half a page beside another one and, slightly shrunk, a phone.
    """
    with style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        made = Figure(figsize=(width / 72, height / 72))
        FigureCanvasAgg(made)
        return made, made.add_subplot()


def bind(text: "Text", path: str, scale: float = 1.0) -> None:
    """Say that a text shows the number at a path of the report's JSON, times scale (see page.number)."""
    text.set_gid(f"{_BINDING}{path}*{scale:g}")


def legend(figure: "Figure", columns: int) -> None:
    """A legend above the plot, flush with the left edge."""
    figure.legend(loc="outside upper left", ncols=columns, columnspacing=1.4, borderaxespad=0.0)


def log_axis(axes: "Axes", name: Literal["x", "y"]) -> None:
    """A logarithmic axis with plain labels: 0.5, 10, 2k, 1M."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{name}scale")("log")
    axis = getattr(axes, f"{name}axis")
    low, high = sorted(getattr(axes, f"get_{name}lim")())
    narrow = low > 0 and high / low < 100
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if narrow else (1.0,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A number for a tick in few characters: 0.5, 10, 2k, 1.5M, 3G."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def svg(figure: "Figure", label: str = "") -> str:
    """The figure as an <svg> element for a page. The same figure and label give the same text.

    label: what a screen reader says. Text stays text; ids differ from those of any other figure or label.
    """
    with style():
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    body = re.sub(r"<!--.*?-->", "", buffer.getvalue(), flags=re.DOTALL)
    body = body[body.index("<svg") :]
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r'style="([^"]*)"', _themed, body)
    width, height = (round(side * 72, 1) for side in figure.get_size_inches())
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(label)}" '
        f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}" fill="currentColor" '
        f'stroke-linejoin="round">'
    )
    return re.sub(r"\s*\n\s*", " ", _own_ids(head + body)).strip()


def _themed(match: re.Match[str]) -> str:
    """A style attribute with colours and font left to the page."""
    value = re.sub(r"#[0-9a-f]{6}", lambda found: CSS_COLOURS.get(found[0], found[0]), match[1])
    value = value.replace("#000000", "currentColor")
    value = re.sub("'DejaVu Sans'[^;]*", "var(--font, sans-serif)", value)
    return f'style="{value}"'


def _own_ids(body: str) -> str:
    """Ids that nothing refers to are dropped, the others get a prefix made from all the contents."""
    body = body.replace("xlink:href", "href")
    body = re.sub(rf'id="{_BINDING}([^"]*)\*([^"*]*)"', r'data-json="\1" data-scale="\2"', body)
    used = set(re.findall(r'(?:href="|url\()#([\w.-]+)', body))
    prefix = f"p{hashlib.sha256(body.encode('utf-8', 'replace')).hexdigest()[:10]}"
    body = re.sub(
        r' id="([^"]*)"', lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", body
    )
    return re.sub(r'(href="|url\()#', rf"\1#{prefix}-", body)


def png(figure: "Figure", path: Path) -> None:
    """Write the figure as a PNG on white, twice as many pixels as CSS pixels; CocError where that fails."""
    with style():
        buffer = io.BytesIO()
        layout: Any = figure.get_layout_engine()
        layout.set(w_pad=PNG_MARGIN / 72, h_pad=PNG_MARGIN / 72)
        figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor=SURFACE, metadata={"Software": None})
    files.write_bytes(path, buffer.getvalue())
