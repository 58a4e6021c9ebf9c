"""Gathers what a pytest session found, in the process that the user looks at.

Every case's result arrives with its test's report, also from other processes. Shows a line for each
as it ends, and at the end hands all of it to harness.report.files. Touches nothing in a session
without a case.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import VERSION, changes, results, typedjson
from harness.changes import Change
from harness.options import (
    BASELINE_OPTION,
    LINES_OPTION,
    OUT_OPTION,
    PROPERTY,
    QUIET_OPTION,
    THRESHOLD_OPTION,
)
from harness.report import changes as rendering
from harness.report import files, terminal
from harness.results import CaseResult, Check, Results


class Gatherer:
    """A pytest plugin of one session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lines = bool(config.getoption(LINES_OPTION))
        self._quiet = bool(config.getoption(QUIET_OPTION))
        self._out: Path = config.getoption(OUT_OPTION).absolute()
        self._cases: dict[str, CaseResult] = {}
        self._checks: dict[str, Check] = {}
        self._ended: set[str] = set()
        self._total = 0
        path: Path | None = config.getoption(BASELINE_OPTION)
        self._baseline = None if path is None else results.read(path)
        self._threshold: float = config.getoption(THRESHOLD_OPTION)
        self._changes: list[Change] = []
        self._began = time.monotonic()
        self._started = datetime.datetime.now(datetime.UTC)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = max(self._total, len(session.items))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: list[CaseResult | Check] = list(_cases_of(report))
        for case in found:
            assert isinstance(case, CaseResult)
            before = self._cases.get(case.case)
            if before is None or before.as_expected:  # proved twice: the failure is what counts
                self._cases[case.case] = case
        if not found or report.when != "call":
            check = _check_of(report)
            if check is None or (check.outcome == "passed" and found):
                return
            self._checks[f"{check.name} {report.when}"] = check
            found = [check]
        self._ended.add(report.nodeid)
        if self._lines and not self._quiet:
            self._show(found)

    def _show(self, found: list[CaseResult | Check]) -> None:
        writer = self._config.get_terminal_writer()
        done = len(self._ended)
        for item in found:
            text = terminal.line(
                item, done, max(done, self._total), colour=writer.hasmarkup and self._lines
            )
            print(text, flush=True)

    def results(self) -> Results:
        """All that has been gathered so far."""
        return Results(
            format=results.FORMAT,
            version=results.VERSION,
            bootproof=VERSION,
            started=self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(time.monotonic() - self._began, 3),
            complete=len(self._ended) >= self._total,
            cases=tuple(self._cases.values()),
            checks=tuple(self._checks.values()),
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Compares with the baseline; what became worse fails the session."""
        if self._baseline is None or session.exitstatus not in (0, 1):
            return
        self._changes = changes.compare(self._baseline, self.results(), self._threshold)
        code = changes.exit_code(self._changes)
        if session.exitstatus == 0 and code:
            session.exitstatus = 1 if code == 1 else pytest.ExitCode.USAGE_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The grid of all cases; the reports beside the run directories."""
        if not self._cases and not (self._lines and self._checks):
            return
        found = self.results()
        written = files.write(found, self._out)
        colour = self._config.get_terminal_writer().hasmarkup
        terminalreporter.write_line("")
        if not self._quiet:
            terminalreporter.write(terminal.grid(found, colour=colour))
        else:
            terminalreporter.write(terminal.summary(found, colour=colour))
        if self._changes:
            terminalreporter.write(rendering.render(self._changes))
        names = ", ".join(path.name for path in written)
        terminalreporter.write_line(f"run directories, {names}: {self._out}")


def _cases_of(report: pytest.TestReport) -> Iterator[CaseResult]:
    """What `prove` found in a test, out of the report of its call."""
    if report.when == "call":
        for name, value in report.user_properties:
            if name == PROPERTY:
                yield typedjson.from_json(CaseResult, value)


def _check_of(report: pytest.TestReport) -> Check | None:
    """A test without a case, or what went wrong around one; None for what is no news."""
    if report.when != "call" and report.passed:
        return None
    outcome: Any = report.outcome
    if report.failed and report.when != "call":
        outcome = "error"
    return Check(
        name=report.nodeid.rpartition("/")[2],
        outcome=outcome,
        text=report.longreprtext if report.failed else _skip_reason(report),
        seconds=round(report.duration, 3),
    )


def _skip_reason(report: pytest.TestReport) -> str:
    found = report.longrepr
    return str(found[2]) if report.skipped and isinstance(found, tuple) else ""
