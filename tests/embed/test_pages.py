"""What README.md and docs/embed.md show is what the tests run, and their figures are the JSON's."""

import json
import re
import shutil
from pathlib import Path

import pytest

from sites import ROOT, Site, run

README = (ROOT / "README.md").read_text()
EMBED = (ROOT / "docs/embed.md").read_text()
SHOWN = (
    "examples/python/classify.py",
    "examples/c/classify.c",
    "examples/onnxruntime/classify.py",
    "examples/batch/label_folder.py",
    "examples/service/app.py",
)
C_PROGRAM = """\
#include "coc.h"
#include <stdio.h>
int main(void) {
    unsigned char pixels[8 * 8 * 3];
    FILE *file = fopen("image.ppm", "rb");
    if (file == NULL || fseek(file, -(long)sizeof pixels, SEEK_END) || !fread(pixels, sizeof pixels, 1, file))
        return 1;
%s
    printf("%%d %%d %%.4f\\n", (int)label, (int)taken, (double)confidence);
    return (int)status;
}
"""
"""Around README's lines, on a PPM of 8x8 pixels."""


def in_your_program(language: str) -> str:
    section = README.split("\n## In your program\n")[1].split("\n## ")[0]
    found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def place(colour_site: Site, tmp_path: Path) -> Path:
    """A folder with model.coc, image.png and image.ppm, whose names README uses."""
    shutil.copy(colour_site.coc, tmp_path / "model.coc")
    shutil.copy(colour_site.png[1], tmp_path / "image.png")
    shutil.copy(colour_site.pnm[1], tmp_path / "image.ppm")
    return tmp_path


def test_readmes_python_lines_run_as_written(colour_site: Site, place: Path) -> None:
    (place / "app.py").write_text(in_your_program("python"))
    done = run("app.py", cwd=place)
    assert done.returncode == 0, done.stderr
    found, (label, taken, confidence) = colour_site.expected(), done.stdout.split()
    assert (int(label), int(taken)) == (found.label[1], found.exit[1])
    assert float(confidence) == pytest.approx(found.confidence[1], rel=1e-6)


def test_readmes_c_lines_run_as_written(colour_site: Site, place: Path) -> None:
    for needed in ("cc", "cmake", "make"):
        if shutil.which(needed) is None:
            pytest.skip(f"{needed} is not installed")
    assert run("make", "native").returncode == 0
    (place / "app.c").write_text(C_PROGRAM % in_your_program("c"))
    library = ROOT / "build/cmake/libcoc.a"
    words = ("cc", "-Wall", "-Werror", f"-I{ROOT}/runtime/native", "app.c", library, "-lm", "-pthread")
    built = run(*words, cwd=place)
    assert built.returncode == 0, built.stderr
    done = run(place / "a.out", cwd=place)
    found = colour_site.expected()
    assert done.stdout == f"{found.label[1]} {found.exit[1]} {found.confidence[1]:.4f}\n"
    assert done.returncode == 0


def test_the_page_shows_the_very_files() -> None:
    for name in SHOWN:
        assert f"<!-- file: {name} -->\n```" in EMBED
        assert f"\n{(ROOT / name).read_text().rstrip()}\n```\n<!-- end -->" in EMBED, f"{name}: make figures"


def test_the_pages_figures_are_those_of_the_json() -> None:
    result = json.loads((ROOT / "benchmarks/results/embedding.json").read_text())
    for row in result["python"]:
        assert f"{row['images_per_s']:,.0f} |" in EMBED, "make figures"
    for row in result["service"]:
        assert f"| {row['clients']} | {row['requests_per_s']:,.0f} | {row['p50_ms']:.2f} ms |" in EMBED
    for row in result["shared"]:
        assert f"| {row['backend']} | 8 | {row['seconds']:g} | {row['calls']:,} |" in EMBED


def test_in_the_committed_run_nothing_failed_and_nothing_differed() -> None:
    result = json.loads((ROOT / "benchmarks/results/embedding.json").read_text())
    assert {row["backend"] for row in result["shared"]} == {"native", "onnxruntime", "reference"}
    assert {(row["threads"], row["mismatches"]) for row in result["shared"]} == {(8, 0)}
    assert [(row["clients"], row["failed"]) for row in result["service"]] == [(1, 0), (4, 0), (16, 0)]


def test_the_limits_that_the_page_names_are_the_services() -> None:
    app = (ROOT / "examples/service/app.py").read_text()
    for line, words in (
        ("MAX_BYTES = 1 << 20", "larger than 1 MiB"),
        ("MAX_SECONDS = 10", "longer than 10 s"),
        ("MAX_CONNECTIONS = 256", "more than 256 connections"),
    ):
        assert line in app and words in EMBED
