"""What all commands share: one line for whatever goes wrong, work that survives its readers, and Ctrl-C."""

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from coc_runtime import CocError, command
from coc_runtime.text import encodable, one_line
from conftest import TinyRun

PATIENCE = 120
COMMANDS = ("coc_deploy", "coc_export", "coc_bench", "coc_study")

BODY = """
import signal, sys, time
from coc_runtime import command, interrupts

def body(arguments):
{body}

sys.exit(command.run("coc-test", body, None, extra="compile", stopped="start it again"))
"""


def raising(error: BaseException) -> Callable[[Sequence[str] | None], int]:
    def body(_: Sequence[str] | None) -> int:
        raise error

    return body


class Differs(CocError):
    exit_code = 1


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CocError("a.toml: no\nsuch \udce9 key"), 2, r"error: a.toml: no\nsuch \xe9 key"),
        (Differs("other logits"), 1, "error: other logits"),
        (ModuleNotFoundError("", name="optuna"), 2, "error: optuna is missing: pip install 'coc-deploy[x]'"),
        (ImportError("no libc", name="torch"), 2, "error: torch is broken (no libc): pip install"),
        (MemoryError(), 2, "error: not enough memory: give it smaller"),
        (RuntimeError("[enforce fail] can't allocate memory: 9 bytes"), 2, "error: not enough memory ("),
        (OSError(errno.ENOSPC, "No space left", "a\nb"), 2, r"error: a\nb: No space left: check the path"),
        (PermissionError(errno.EACCES, "Denied", b"\xff"), 2, r"error: \xff: Denied: check"),
        (KeyError("width"), 70, "internal error: KeyError: 'width': please report it with the traceback in "),
        (ModuleNotFoundError("no", name="coc_bench.x"), 70, "internal error: ModuleNotFoundError"),
    ],
)
def test_whatever_a_command_raises_is_told_in_one_line(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run("coc-test", raising(error), [], extra="x") == code
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and captured.err.endswith("\n")
    assert captured.err.startswith(f"coc-test: {line}")


def test_the_traceback_of_an_internal_error_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    command.run("coc-test", raising(KeyError("width")), [], extra="x")
    found = re.search(r"traceback in (\S+\.txt)$", capsys.readouterr().err)
    assert found is not None
    kept = Path(found[1])
    assert "Traceback (most recent call last)" in kept.read_text() and "KeyError: 'width'" in kept.read_text()
    kept.unlink()


def test_who_asks_for_it_sees_the_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(command.DEBUG, "1")
    assert command.run("coc-test", raising(CocError("wrong")), [], extra="x") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):" and lines[-1] == "coc-test: error: wrong"


def test_a_wrong_option_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.Parser(prog="coc-test").parse_args(["--no\nsuch"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(r"coc-test: error: unrecognized arguments: --no\nsuch (")


def test_names_are_shown_as_one_line_and_fit_every_encoding() -> None:
    assert one_line("a\n\tb\x1b \u00fc\udcff") == r"a\n\tb\x1b " + "\u00fc" + r"\xff"
    assert encodable("a\n\u00fc\udcff") == "a\n\u00fc\\xff"
    assert encodable("a\n\u00fc\udcff", "ascii") == "a\n\\xfc\\xff"


def start(body: str, stdout: int = subprocess.PIPE) -> "subprocess.Popen[str]":
    """A command of its own process, with the usual signals, that has this indented body."""
    return subprocess.Popen(
        [sys.executable, "-c", BODY.format(body=body)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_reader_that_leaves_ends_nothing(tmp_path: Path) -> None:
    process = start(
        f"""
    for line in range(100_000):
        print("line", line)
    open({str(tmp_path / "kept")!r}, "w").close()
    print("all", flush=True)
    return 0
"""
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "line 0\n"
    process.stdout.close()
    assert process.wait(PATIENCE) == 0
    assert (tmp_path / "kept").exists() and process.stderr.read() == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_finds_no_space_is_told_and_the_work_is_done(tmp_path: Path) -> None:
    body = f"    print('lost', flush=True)\n    open({str(tmp_path / 'kept')!r}, 'w').close()\n    return 0\n"
    with open("/dev/full", "w") as full:
        process = start(body, full.fileno())
    _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and (tmp_path / "kept").exists()
    assert told == f"coc-test: error: its output cannot be written ({os.strerror(errno.ENOSPC)})\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "wait",
    [
        "time.sleep(600)",
        "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 2 * 10**9)",  # no step of Python for minutes
        """
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass
""",
    ],
    ids=["python", "c", "swallowed"],
)
def test_a_signal_ends_a_command_in_one_line_whatever_it_does(
    wait: str, number: signal.Signals, code: int
) -> None:
    process = start(f"    print('begun', flush=True)\n    {wait}\n")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, told = process.communicate(timeout=PATIENCE)
    assert (process.returncode, told) == (code, "coc-test: stopped; start it again\n")


def test_a_second_ctrl_c_does_not_wait_for_the_end_of_the_first() -> None:
    process = start(
        """
    interrupts.GRACE = 600
    try:
        print("begun", flush=True)
        time.sleep(600)
    finally:
        print("leaving", flush=True)
        time.sleep(600)
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "leaving\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=PATIENCE)
    assert (process.returncode, told) == (130, "coc-test: stopped; start it again\n")


def test_an_export_whose_reader_leaves_writes_its_files(tiny_run: TinyRun, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "coc_export", str(tiny_run.model), "--images", "2"]
    words += ["--out", str(tmp_path / "m.onnx"), "--out", str(tmp_path / "m.coc")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(PATIENCE) == 0 and process.stderr.read() == ""
    names = ["m.coc", "m.coc.report.json", "m.md", "m.onnx", "m.report.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_command_leaves_the_signals_of_a_program_that_calls_it_as_they_were() -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert command.run("coc-test", raising(KeyboardInterrupt()), [], extra="x") == 130
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("package", COMMANDS)
def test_every_command_is_a_module_that_runs(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", package, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: coc-"), done.stderr
