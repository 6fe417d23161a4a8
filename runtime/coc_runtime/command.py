"""What every command does around its work: one line for whatever goes wrong, whole work whoever reads."""

import argparse
import contextlib
import gc
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO, cast

from .errors import CocError
from .interrupts import Interrupts
from .text import encodable, one_line

MISTAKE = 2
INTERNAL_ERROR = 70
DEBUG = "COC_DEBUG"
"""Environment variable: where it is set, errors show their traceback, too."""
OURS = "coc_"
"""What the names of our packages begin with."""
NO_MEMORY = ("can't allocate memory", "bad_alloc", "Unable to allocate")
"""Words by which the messages of torch and of C++ libraries say that memory is short."""

Body = Callable[[Sequence[str] | None], int]


RARELY = (100_000, 20, 20)
"""Thresholds of garbage collection: objects until the young are searched, rounds until older ones are."""


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(MISTAKE, f"{self.prog}: error: {one_line(message)} (--help lists the options)\n")


def run(name: str, body: Body, arguments: Sequence[str] | None, *, extra: str, stopped: str = "") -> int:
    """The exit code of a command's body, or of what it raised, which is told in one line on stderr.

    arguments: None for the process's own command line. extra: what `pip install coc-deploy[...]` brings the
    packages that the command needs. stopped: what else to say when it was interrupted.
    """
    told = threading.Lock()

    def tell_stopped() -> None:
        if told.acquire(blocking=False):
            line = f"{name}: stopped{'; ' if stopped else ''}{stopped}\n"
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(line)
                sys.stderr.flush()

    with _collecting_rarely(), _streams() as (out, err), Interrupts(tell_stopped) as interrupts:
        try:
            return _attempt(name, body, arguments, extra, out, err)
        except KeyboardInterrupt:
            _debug()
            out.flush()
            tell_stopped()
            if arguments is None:
                interrupts.end()
            return interrupts.code


@contextlib.contextmanager
def _collecting_rarely() -> Iterator[None]:
    """Python's collector looks through all that is alive again and again while torch is imported and networks
    are built, a sixth of the time of a short command, and finds hardly a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _attempt(
    name: str, body: Body, arguments: Sequence[str] | None, extra: str, out: "_Stream", err: "_Stream"
) -> int:
    try:
        code = body(arguments)
        out.flush()
    except Exception as error:
        _debug()
        out.flush()
        line, code = _told(name, error, extra)
        err.write(f"{name}: {line}\n")
    if out.error is not None:
        err.write(f"{name}: error: its output cannot be written ({out.error.strerror or out.error})\n")
        code = code or MISTAKE
    return code


def _told(name: str, error: Exception, extra: str) -> tuple[str, int]:
    """An exception as one line, and the exit code."""
    text = one_line(str(error))
    if isinstance(error, CocError):
        return f"error: {text}", error.exit_code
    missing = one_line(error.name or "a package") if isinstance(error, ImportError) else OURS
    if not missing.startswith(OURS):
        state = "missing" if isinstance(error, ModuleNotFoundError) else f"broken ({text})"
        return f"error: {missing} is {state}: pip install 'coc-deploy[{extra}]'", MISTAKE
    if isinstance(error, MemoryError) or _lacks_memory(error):
        why = f" ({text[:200]})" if text else ""
        return f"error: not enough memory{why}: give it smaller or fewer images, or more memory", MISTAKE
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{one_line(os.fsdecode(error.filename))}: "
        advice = "check the path, its permissions and the space that is left"
        return f"error: {where}{error.strerror or text}: {advice}", MISTAKE
    what = f"internal error: {type(error).__name__}: {text[:300]}"
    return f"{what}: {_keep(name, error)}", INTERNAL_ERROR


def _lacks_memory(error: Exception) -> bool:
    """torch raises errors of its own for want of memory."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def _keep(name: str, error: Exception) -> str:
    """Keep an exception's traceback in a file for temporary ones; where it lies, in words."""
    lines = [f"{' '.join(sys.argv)}\n", f"Python {sys.version}\n", *traceback.format_exception(error)]
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(lines)
    except OSError:
        return f"please report it with the traceback that {DEBUG}=1 shows"
    return f"please report it with the traceback in {one_line(path)}"


def _debug() -> None:
    """Show the traceback of the exception being handled to who asks for it."""
    if os.environ.get(DEBUG):
        traceback.print_exc()


class _Stream:
    """Standard output or error: what its encoding lacks is escaped, and a reader that has read enough
    (`| head`) ends nothing.

    error: why the stream takes nothing more, unless its reader left.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._gone = stream, False
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if not self._gone:
            try:
                self._stream.write(encodable(text, self._stream.encoding or "utf-8"))
            except OSError as error:
                self._leave(error)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self._gone:
            try:
                self._stream.flush()
            except OSError as error:
                self._leave(error)

    def _leave(self, error: OSError) -> None:
        self._gone = True
        self.error = None if isinstance(error, BrokenPipeError) else error
        # Python would complain again when it flushes the stream at its end.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _streams() -> Iterator[tuple[_Stream, _Stream]]:
    """Standard output and error as `_Stream`s, flushed at the end."""
    out, err = (_Stream(stream or _nowhere()) for stream in (sys.stdout, sys.stderr))
    with contextlib.redirect_stdout(cast(TextIO, out)), contextlib.redirect_stderr(cast(TextIO, err)):
        try:
            yield out, err
        finally:
            out.flush()
            err.flush()


def _nowhere() -> TextIO:
    """Stands for a stream that was closed (`>&-`), which Python does not open."""
    return open(os.devnull, "w", encoding="utf-8")
