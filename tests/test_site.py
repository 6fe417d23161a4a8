"""The documentation site is built without a warning, and holds what README.md and the notebook say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="builds the site")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_first_page_is_the_readme_and_its_links_lead_to_pages(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert "A deployment compiler" in page and 'href="recipe.html"' in page and 'href="docs/' not in page


def test_the_tutorial_is_the_notebook(site: Path) -> None:
    page = (site / "tutorial.html").read_text()
    assert "From a network to an integer file" in page and "compress" in page


def test_the_reference_shows_the_functions_with_their_types(site: Path) -> None:
    page = (site / "api.html").read_text()
    for name in ("coc_deploy.compress", "coc_export.export", "coc_bench.measure", "coc_runtime.Session"):
        assert f'id="{name}"' in page, name
    assert "Raises CocError" in page


def test_every_decision_is_listed(site: Path) -> None:
    page = (site / "adr/index.html").read_text()
    for decision in (ROOT / "docs/adr").glob("*.md"):
        assert f'href="{decision.stem}.html"' in page, decision.name
