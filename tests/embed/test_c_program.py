"""The C program is built by the very commands of docs/embed.md and agrees with the reference."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sites import ROOT, Site, run

PAGE = (ROOT / "docs/embed.md").read_text()
for tool in ("cc", "cmake", "make"):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed", allow_module_level=True)

CLASSIFY = ROOT / "build/cmake/classify"


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    """`make native` leaves the library and the program in build/cmake."""
    done = run("make", "native")
    assert done.returncode == 0, done.stderr


def block(language: str, word: str) -> str:
    """The page's one code block of a language that contains a word."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if word in text]
    assert len(found) == 1, (language, word)
    return str(found[0])


def shell(commands: str, home: Path) -> None:
    """Run a page's commands in the repository's root with warnings as errors; $HOME is `home`."""
    script = commands.replace("-o classify", f'-Wall -Wextra -Werror -o "{home}/classify"')
    done = subprocess.run(
        ["sh", "-e", "-c", f'export HOME="{home}"\n{script}'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def assert_agrees(program: Path, site: Site) -> None:
    done = run(program, site.coc, *site.pnm)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    told = [re.sub(r", [\d.]+ us$", "", line) for line in lines]
    assert told == [f"{path}: {line}" for path, line in zip(site.pnm, site.lines(), strict=True)]
    assert re.fullmatch(rf"{len(site.pnm)} images, [\d.]+ us each \(\w+\)", last)


def test_the_program_of_make_native_says_what_the_reference_says(
    digits_site: Site, colour_site: Site
) -> None:
    assert_agrees(CLASSIFY, digits_site)
    assert_agrees(CLASSIFY, colour_site)


def test_cc_builds_it_on_what_make_native_leaves(digits_site: Site, tmp_path: Path) -> None:
    shell(block("sh", "libcoc.a"), tmp_path)
    assert_agrees(tmp_path / "classify", digits_site)


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="pkg-config is not installed")
def test_pkg_config_builds_it_on_an_installed_library(digits_site: Site, tmp_path: Path) -> None:
    shell(block("sh", "pkg-config"), tmp_path)
    assert_agrees(tmp_path / "classify", digits_site)
    assert (tmp_path / "coc/include/coc.h").is_file()
    assert (tmp_path / "coc/lib/libcoc.a").is_file()


def test_a_cmake_project_finds_the_installed_library(digits_site: Site, tmp_path: Path) -> None:
    assert run("cmake", "--install", "build/cmake", "--prefix", tmp_path / "coc").returncode == 0
    for name in ("classify.c", "pnm.h"):
        shutil.copy(ROOT / "examples/c" / name, tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(block("cmake", "find_package"))
    configured = run("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={tmp_path}/coc")
    assert configured.returncode == 0, configured.stderr
    assert run("cmake", "--build", tmp_path / "b").returncode == 0
    assert_agrees(tmp_path / "b/app", digits_site)


def test_a_regression_is_printed_as_its_numbers(regression_site: Site) -> None:
    found = regression_site.expected()
    done = run(CLASSIFY, regression_site.coc, *regression_site.pnm[:3])
    assert done.returncode == 0
    for n, line in enumerate(done.stdout.splitlines()[:-1]):
        a, b = found.logits[n]
        start = f"{regression_site.pnm[n]}: {a:.4f}, {b:.4f}, exit {found.exit[n]}, confidence "
        assert line.startswith(start), line


def test_what_cannot_be_done_is_one_line(digits_site: Site, colour_site: Site, tmp_path: Path) -> None:
    good, cut = digits_site.pnm[0], tmp_path / "cut.pgm"
    cut.write_bytes(good.read_bytes()[:-1])
    for words, told in (
        ((digits_site.coc,), "usage: classify MODEL.coc IMAGE.ppm [IMAGE.ppm ...]"),
        ((tmp_path / "no.coc", good), "no.coc: "),
        ((good, good), f"{good}: "),
        ((digits_site.coc, tmp_path / "no.pgm"), "no.pgm: cannot be opened"),
        ((digits_site.coc, digits_site.png[0]), ".png: not a binary PNM image"),
        ((digits_site.coc, cut), "cut.pgm: truncated"),
        ((digits_site.coc, colour_site.pnm[0]), ".ppm: not of the size or the channels"),
    ):
        done = run(CLASSIFY, *words)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert told in done.stderr
