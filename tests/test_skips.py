"""A run tells what it skipped, and fails in CI for a reason that is not on the list."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import skips

HERE = Path(__file__).parent
TESTS = {
    "test_file.py": "import pytest\npytest.skip('no such tool', allow_module_level=True)\n",
    "test_one.py": (
        "import pytest\n"
        "def test_passes() -> None:\n    pass\n"
        "@pytest.mark.skip(reason='no pretrained weights in x')\n"
        "def test_allowed() -> None:\n    pass\n"
    ),
}


def run(folder: Path, *options: str, ci: bool) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(
        "import skips\ndef pytest_configure(config):\n    skips.install(config)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | (
        {"CI": "true"} if ci else {}
    )
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HERE), environment.get("PYTHONPATH")]))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        *options,
        str(folder),
    ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two workers"])
def test_an_unlisted_skip_fails_a_run_in_ci_alone(tmp_path: Path, workers: tuple[str, ...]) -> None:
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    here, ci = run(tmp_path, *workers, ci=False), run(tmp_path, *workers, ci=True)
    assert here.returncode == 0 and ci.returncode == 1, here.stdout + ci.stdout
    for done in (here, ci):
        assert "   1 no such tool  <- not in allowed_skips.txt" in done.stdout
        assert "   1 no pretrained weights in x\n" in done.stdout


def test_a_run_in_ci_with_listed_skips_alone_passes(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(TESTS["test_one.py"])
    done = run(tmp_path, ci=True)
    assert done.returncode == 0 and "not in" not in done.stdout, done.stdout


def test_every_line_of_the_list_is_explained() -> None:
    paragraphs = skips.ALLOWED.read_text().strip().split("\n\n")[1:]
    assert paragraphs and all(paragraph.startswith("# ") for paragraph in paragraphs)
