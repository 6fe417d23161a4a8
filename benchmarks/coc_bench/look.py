"""The style sheet of every page: light, dark, phone and print."""

from .plots import DARK_PALETTE, MUTED, PALETTE, RULE, SURFACE, TEXT

LIGHT = {"surface": SURFACE, "text": TEXT, "muted": MUTED, "rule": RULE, "link": "#1a5fa8"}
DARK = {"surface": "#14171a", "text": "#e6e9ec", "muted": "#9ba5af", "rule": "#31373d", "link": "#7db7f0"}


def _variables(colours: dict[str, str], palette: tuple[str, ...]) -> str:
    named = colours | {f"series-{k}": colour for k, colour in enumerate(palette)}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


_RULES = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--surface); color: var(--text); font: 16px/1.55 var(--font); }
main { max-width: 1128px; margin: 0 auto; padding: 48px 32px 96px; overflow-wrap: anywhere; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 12px; letter-spacing: -0.01em; }
h2 {
  font-size: 21px; line-height: 1.3; margin: 0 0 8px; padding-top: 28px;
  border-top: 1px solid var(--rule);
}
h3 { font-size: 16px; margin: 32px 0 8px; }
p, ul { margin: 0 0 16px; max-width: 68ch; }
section { margin-top: 44px; }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
code { font: 0.92em var(--mono); }
.lead { font-size: 18px; }
.muted, .caption { color: var(--muted); }
nav { font-size: 14px; line-height: 1.9; }
nav a { margin-right: 18px; white-space: nowrap; }
.num { font-variant-numeric: tabular-nums; white-space: nowrap; }
.keys {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 24px 32px;
  margin: 28px 0;
}
.keys div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.keys dt { color: var(--muted); font-size: 14px; line-height: 1.45; }
.keys dd { margin: 0 0 2px; font-size: 30px; line-height: 1.2; font-weight: 600; letter-spacing: -0.01em; }
.scroll { overflow-x: auto; margin: 16px 0 20px; overflow-wrap: normal; }
.scroll:focus-visible { outline: 2px solid var(--link); outline-offset: 4px; }
table { border-collapse: collapse; font-size: 14px; line-height: 1.4; min-width: 100%; }
th, td {
  padding: 7px 14px 7px 0; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--rule);
}
th { color: var(--muted); font-weight: 500; vertical-align: bottom; }
td.name { white-space: normal; min-width: 150px; }
.wrap { display: block; white-space: normal; min-width: 24ch; overflow-wrap: anywhere; }
.narrow { display: none; color: var(--muted); }
th:last-child, td:last-child { padding-right: 0; }
.r { text-align: right; font-variant-numeric: tabular-nums; }
.columns {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 8px 40px;
}
.columns > * { min-width: 0; }
figure { margin: 16px 0; break-inside: avoid; }
figcaption { font-weight: 600; font-size: 15px; margin-bottom: 8px; }
figure svg { display: block; max-width: 100%; height: auto; }
.columns figure svg { width: 100%; }
.caption { font-size: 14px; line-height: 1.5; margin: 8px 0 0; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); gap: 16px 32px;
  margin: 20px 0; font-size: 14px; line-height: 1.4;
}
.facts dt { color: var(--muted); }
.facts dd { margin: 0; }
.samples { display: flex; flex-wrap: wrap; gap: 14px; margin: 0 0 24px; }
.samples div { width: 68px; font-size: 12px; line-height: 1.35; color: var(--muted); text-align: center; }
.samples img { display: block; width: 68px; height: 68px; object-fit: contain; image-rendering: pixelated; }
.samples span { display: block; margin-top: 4px; }
.samples .wrong { color: var(--text); font-weight: 600; }
details { margin: 8px 0 16px; }
summary { cursor: pointer; color: var(--link); font-size: 14px; }
@media (max-width: 600px) {
  main { padding: 28px 16px 64px; }
  h1 { font-size: 25px; }
  .lead { font-size: 17px; }
  .wide { display: none; }
  .narrow { display: block; }
  .keys { grid-template-columns: 1fr 1fr; gap: 20px 16px; }
  .keys dd { font-size: 25px; }
}
@media print {
  :root { color-scheme: light; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 11px; }
  th, td { padding-right: 8px; }
}
"""
CSS = f"""
:root {{
  color-scheme: light dark;
  {_variables(LIGHT, PALETTE)}
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK, DARK_PALETTE)} }} }}
{_RULES}"""
