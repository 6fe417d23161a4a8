"""Limits have one home: the C header and the tables of docs/format.md are written from it, coc.h agrees."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from coc_runtime import coclayout, limits
from coc_runtime.ops.row import ROW

ROOT = Path(__file__).parents[2]
GENERATE = ROOT / "runtime/generate.py"


def generate(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, root / "runtime/generate.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_is_written_from_the_limits_is_up_to_date() -> None:
    done = generate("--check")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("runtime/coc_runtime/limits.py", "MAX_OPERATORS = 4096", "MAX_OPERATORS = 4095"),
        ("runtime/native/coc_limits.h", "COC_MAX_SIZE 65535", "COC_MAX_SIZE 65536"),
        ("docs/format.md", "| `MAX_SHIFT` | 7 |", "| `MAX_SHIFT` | 8 |"),
        (
            "docs/format.md",
            "| 3 | u8 | stride, down where it is another across | 1 to 255 |",
            "| 3 | u8 | stride, down where it is another across | 1 to 256 |",
        ),
    ],
)
def test_a_changed_limit_is_noticed_and_written_anew(file: str, old: str, new: str, tmp_path: Path) -> None:
    for path in ("runtime/generate.py", "runtime/native/coc_limits.h", "docs/format.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes((ROOT / path).read_bytes())
    for source in (ROOT / "runtime/coc_runtime").rglob("*.py"):
        copy = tmp_path / source.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    assert generate("--check", root=tmp_path).returncode == 0
    text = (tmp_path / file).read_text()
    assert text.count(old) == 1
    (tmp_path / file).write_text(text.replace(old, new))
    assert "is out of date" in generate("--check", root=tmp_path).stdout
    assert generate(root=tmp_path).returncode == 0
    assert generate("--check", root=tmp_path).returncode == 0


def test_the_public_header_states_the_same_limits() -> None:
    text = (ROOT / "runtime/native/coc.h").read_text()
    stated = {name: int(value) for name, value in re.findall(r"#define COC_(MAX_\w+) (\d+)", text)}
    assert stated == {
        "MAX_EXITS": limits.MAX_EXITS,
        "MAX_CLASSES": limits.MAX_CHANNELS,
        "MAX_THREADS": limits.MAX_THREADS,
    }


def test_the_sizes_of_structures_are_those_of_their_layouts() -> None:
    sizes = [layout.size for layout in (coclayout.HEADER, ROW, coclayout.SEGMENT)]
    assert sizes == [limits.HEADER_BYTES, limits.OPERATOR_BYTES, limits.SEGMENT_BYTES]


def test_no_other_file_states_a_limit_of_the_same_name() -> None:
    names = [name for name in vars(limits) if name.isupper()]
    assert len(names) > 20
    again = re.compile(rf"^(?:#define (?:COC_)?)?({'|'.join(names)})\b", re.MULTILINE)
    homes = ("limits.py", "coc_limits.h", "coc.h")
    stated = [
        (path.name, name)
        for path in sorted((ROOT / "runtime").rglob("*.*"))
        if path.suffix in (".py", ".c", ".h") and path.name not in homes
        for name in again.findall(path.read_text())
    ]
    assert not stated
