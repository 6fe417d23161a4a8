"""Rewrite the figures of README.md and of pages in docs, and the picture, from the committed JSON.

Programs that a page shows are copied from their files. The figures are those of `blocks.py`.
"""

import argparse
import re
import sys
from pathlib import Path

from blocks import BLOCKS, EXAMPLES, ROOT, example
from coc_report import plots

PICTURE = ROOT / "docs/chain.png"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
LANGUAGES = {".py": "python", ".c": "c"}


def filled(text: str) -> str:
    """The text with each block down to `<!-- end -->` written anew.

    `<!-- figures: NAME -->` begins one of BLOCKS, `<!-- file: PATH -->` the contents of a file.
    """

    def replace(match: re.Match[str]) -> str:
        kind, name = match.groups()
        content = BLOCKS[name]() if kind == "figures" else _shown(ROOT / name)
        return f"<!-- {kind}: {name} -->\n{content}\n<!-- end -->"

    return re.sub(r"<!-- (figures|file): (\S+) -->\n.*?<!-- end -->", replace, text, flags=re.DOTALL)


def _shown(path: Path) -> str:
    return f"```{LANGUAGES[path.suffix]}\n{path.read_text().rstrip()}\n```"


@plots.style()
def draw(path: Path) -> None:
    """Accuracy against BitOpsCR along each example's chain."""
    figure, axes = plots.figure(720, 380)
    for index, name in enumerate(EXAMPLES):
        records = example(name, "history.json")
        x, y = [r["bitops_cr"] for r in records], [r["accuracy"] for r in records]
        look = {"color": plots.PALETTE[index], "marker": plots.MARKERS[index]}
        axes.plot(x, y, label=f"weights x activations: {records[-1]['bits']} bits", **look)
        for record in records if name == EXAMPLES[0] else records[3:]:
            at = (record["bitops_cr"], record["accuracy"])
            axes.annotate(record["stage"], at, textcoords="offset points", xytext=(5, 8))
    axes.margins(0.1, 0.15)
    plots.log_axis(axes, "x")
    axes.set_xlabel("BitOps of the original / BitOps spent per image (per-layer convention)")
    axes.set_ylabel("test accuracy, %")
    axes.set_title("CIFAR-10 (JPEG q75): ResNet-56 along the chain D, P, Q, E")
    axes.legend(loc="lower left")
    plots.png(figure, path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if a page is out of date")
    options = parser.parse_args()
    texts = {path: path.read_text() for path in PAGES}
    if options.check:
        return int(any(filled(text) != text for text in texts.values()))
    for path, text in texts.items():
        path.write_text(filled(text))
    draw(PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
