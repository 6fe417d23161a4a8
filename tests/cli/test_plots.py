"""The house style of plots: SVG that suits any page, PNG, one palette that everyone can tell apart."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

from coc_report import look, plots
from pages import Page

matplotlib = pytest.importorskip("matplotlib", reason="what is tested draws with it")

VISION = {
    "normal": np.eye(3),
    "without red cones": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "without green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "without blue cones": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Linear RGB as it is seen: Machado, Oliveira and Fernandes, 2009, at full severity."""
THEMES = {"light": (plots.PALETTE, look.LIGHT), "dark": (plots.DARK_PALETTE, look.DARK)}


def linear(colour: str) -> np.ndarray:
    share = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    dark, light = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB, in which distances are about as large as they look."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@plots.style()
def drawn(name: str = "a line") -> str:
    figure, axes = plots.figure(460, 300)
    axes.plot([1, 30, 4000], [1, 2, 3], color=plots.PALETTE[1], marker="o", label=name)
    plots.log_axis(axes, "x")
    axes.set_title(name)
    plots.bind(axes.text(30, 2, "2.00"), "runs.0.accuracy", 100)
    figure.legend(loc="outside upper left")
    return plots.svg(figure, name)


def test_text_of_a_plot_stays_text_and_is_taken_literally() -> None:
    found = Page(drawn("5 $ < x$ & more"))
    assert "5 $ < x$ & more" in found.text
    assert found.elements[0][1]["aria-label"] == "5 $ < x$ & more"
    assert {"1", "10", "100", "1k"} <= set(found.text.split())


def test_colours_and_font_are_left_to_the_page() -> None:
    made = drawn()
    assert "currentColor" in made and "var(--series-1, #dc7811)" in made and "var(--rule" in made
    alone = re.sub(r"var\(--[\w-]+, [^)]*\)", "", made)
    assert not re.findall(r"#[0-9a-f]{6}|DejaVu", alone)


def test_a_bound_text_names_its_place_in_the_json() -> None:
    (number,) = Page(drawn()).numbers
    assert (number.path, number.scale, number.text) == ("runs.0.accuracy", 100, "2.00")


def test_two_plots_share_no_id_and_every_reference_has_its_target() -> None:
    one, two = drawn(), drawn("another line")
    ids = [re.findall(r' id="([^"]+)"', made) for made in (one, two)]
    assert ids[0] and not set(ids[0]) & set(ids[1])
    for made, own in zip((one, two), ids, strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', made)) == set(own)
        assert len(own) == len(set(own))


def test_the_same_plot_is_the_same_text() -> None:
    assert drawn() == drawn()


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were() -> None:
    with matplotlib.rc_context({"font.size": 31, "axes.xmargin": 0.3}):
        before = dict(matplotlib.rcParams)
        first = drawn()
        assert dict(matplotlib.rcParams) == before
    assert first == drawn(), "nor does a user's setting change a plot"


def test_a_png_has_two_pixels_for_one_of_css(tmp_path: Path) -> None:
    figure, _ = plots.figure(300, 200)
    plots.png(figure, tmp_path / "plot.png")
    head = (tmp_path / "plot.png").read_bytes()[:24]
    assert head[1:4] == b"PNG"
    assert [int.from_bytes(head[at : at + 4], "big") for at in (16, 20)] == [600, 400]


@pytest.mark.parametrize(
    "number, shown", [(0.5, "0.5"), (20, "20"), (1500, "1.5k"), (3e6, "3M"), (1e9, "1G")]
)
def test_ticks_are_short(number: float, shown: str) -> None:
    assert plots.short(number) == shown


@pytest.mark.parametrize("theme", THEMES)
def test_series_stand_out_from_the_surface_and_words_can_be_read(theme: str) -> None:
    palette, colours = THEMES[theme]
    assert min(contrast(colour, colours["surface"]) for colour in palette) >= 3
    assert min(contrast(colours[name], colours["surface"]) for name in ("text", "muted", "link")) >= 4.5


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", THEMES)
def test_series_are_told_apart_with_any_vision(theme: str, vision: str) -> None:
    seen = [lab(np.asarray(VISION[vision]) @ linear(colour)) for colour in THEMES[theme][0]]
    distances = [np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)]
    assert min(distances) > 10
