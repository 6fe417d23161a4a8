"""The colours of every page, by the names that its style sheet knows them by."""

from .plots import DARK_PALETTE, MUTED, PALETTE, RULE, SURFACE, TEXT


def _with_series(colours: dict[str, str], palette: tuple[str, ...]) -> dict[str, str]:
    return colours | {f"series-{k}": colour for k, colour in enumerate(palette)}


LIGHT = _with_series(
    {"surface": SURFACE, "text": TEXT, "muted": MUTED, "rule": RULE, "link": "#1a5fa8"}, PALETTE
)
DARK = _with_series(
    {"surface": "#14171a", "text": "#e6e9ec", "muted": "#9ba5af", "rule": "#31373d", "link": "#7db7f0"},
    DARK_PALETTE,
)
