"""A pytest plugin: a run says what it skipped; in CI a skip that allowed_skips.txt does not list fails it.

Without this a tool that is no longer installed would make tests disappear while the run stays green.
"""

import fnmatch
import os
from collections import Counter
from pathlib import Path

import pytest

ALLOWED = Path(__file__).with_name("allowed_skips.txt")


def allowed_reasons(text: str) -> list[str]:
    """Patterns of fnmatch, one a line; lines that start with # explain the ones below them."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def is_allowed(reason: str, patterns: list[str]) -> bool:
    """Whether a skip's reason matches one of the patterns, whatever the case of its letters."""
    return any(fnmatch.fnmatchcase(reason.lower(), pattern.lower()) for pattern in patterns)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why something was skipped: pytest keeps (file, line, "Skipped: reason")."""
    longrepr = report.longrepr
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return " ".join(text.removeprefix("Skipped: ").split())


class Skips:
    """Counts the reasons of skipped tests and files, of all workers together."""

    def __init__(self, strict: bool, patterns: list[str]) -> None:
        self.strict, self.patterns = strict, patterns
        self.counts: Counter[str] = Counter()
        self.files: set[tuple[str, str]] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self.counts[reason_of(report)] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.files.add((report.nodeid, reason_of(report)))  # every worker collects every file

    def reasons(self) -> Counter[str]:
        """Number of tests and whole files that were skipped, by reason."""
        return self.counts + Counter(reason for _, reason in self.files)

    def refused(self) -> list[str]:
        """Reasons that are not allowed."""
        return sorted(reason for reason in self.reasons() if not is_allowed(reason, self.patterns))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.strict and self.refused() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        refused = self.refused()
        if not self.reasons():
            return
        terminalreporter.section("skipped")
        for reason, count in sorted(self.reasons().items()):
            mark = f"  <- not in {ALLOWED.name}" if reason in refused else ""
            terminalreporter.write_line(f"{count:4} {reason}{mark}")
        if refused and self.strict:
            terminalreporter.write_line(
                f"in CI skips that tests/{ALLOWED.name} does not list fail: install what they need, or add a "
                "line that says why they may be skipped"
            )


def install(config: pytest.Config) -> None:
    """Register the plugin in the process that reports; workers of pytest-xdist only run tests."""
    if not hasattr(config, "workerinput"):
        patterns = allowed_reasons(ALLOWED.read_text())
        config.pluginmanager.register(Skips(bool(os.environ.get("CI")), patterns), "skips")
