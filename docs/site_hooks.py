"""What mkdocs does beside its plugins: README.md is the first page, the notebook the tutorial, and the
decisions get an index.

A link to a file that is not a page of the site, such as an example, becomes the file's name.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s#]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from other files."""
    readme = (ROOT / "README.md").read_text()
    readme = readme.replace("](docs/", "](").replace("](examples/notebook/tutorial.ipynb)", "](tutorial.md)")
    files.append(File.generated(config, "index.md", content=readme))
    files.append(File.generated(config, "tutorial.md", content=tutorial()))
    files.append(File.generated(config, "adr/index.md", content=decisions()))
    return files


def tutorial() -> str:
    """The cells of the notebook in examples/ as Markdown."""
    cells = json.loads((ROOT / "examples/notebook/tutorial.ipynb").read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells]
    pairs = zip(cells, texts, strict=True)
    return "\n\n".join(
        f"```python\n{text}\n```" if cell["cell_type"] == "code" else text for cell, text in pairs
    )


def decisions() -> str:
    """A page that lists docs/adr, whose files begin with "# N. Title"."""
    pages = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    titles = [page.read_text().splitlines()[0].removeprefix("# ") for page in pages]
    pairs = zip(titles, pages, strict=True)
    lines = [f"- [{title.replace('. ', '&#46; ', 1)}]({page.name})" for title, page in pairs]
    text = "Why it is built as it is: choices that are hard to take back, with context and consequences."
    return "\n".join(["# Decisions", "", text, "", *lines, ""])


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Let links to files that are no pages be their names; code stays as it is."""
    folder = PurePosixPath(page.file.src_uri).parent

    def relink(match: re.Match[str]) -> str:
        image, text, target, anchor = match.groups()
        inside = _joined(folder, target)
        if inside is not None and files.get_file_from_path(inside) is not None:
            return match[0]
        if inside is not None and image == "" and files.get_file_from_path(f"{inside}/index.md") is not None:
            return f"[{text}]({target}/index.md{anchor or ''})"
        outside = (ROOT / "docs" / folder / target).resolve()
        first = (ROOT / target).resolve()  # of README.md, which lies above docs
        if outside.exists() or (page.file.src_uri == "index.md" and first.exists()):
            return text
        return match[0]

    parts = CODE.split(markdown)
    return "".join(part if index % 2 else LINK.sub(relink, part) for index, part in enumerate(parts))


def _joined(folder: PurePosixPath, target: str) -> str | None:
    """The path from docs of a link in a page of that folder; None where it leaves docs."""
    parts: list[str] = []
    for part in (*folder.parts, *PurePosixPath(target).parts):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)
