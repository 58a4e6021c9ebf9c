"""Gathers what a pytest session found, in the process that the user looks at.

Every case's result arrives with its test's report, also from other processes. Shows a line for each
as it ends, and at the end hands all of it to bootproof.harness.report.files. Touches nothing in a
session without a case.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness import VERSION
from bootproof.harness.report import changes as rendering
from bootproof.harness.report import files, ktap, terminal
from bootproof.harness.results import changes, results, typedjson
from bootproof.harness.results.changes import Change
from bootproof.harness.results.results import CaseResult, Check, Reference, Results
from bootproof.harness.suite.live import AREA
from bootproof.harness.suite.options import (
    BASELINE_OPTION,
    KTAP_OPTION,
    LINES_OPTION,
    OUT_OPTION,
    PROPERTY,
    QUIET_OPTION,
    REFERENCE_PROPERTY,
    THRESHOLD_OPTION,
)


class Gatherer:
    """A pytest plugin of one session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._lines = bool(config.getoption(LINES_OPTION))
        self._quiet = bool(config.getoption(QUIET_OPTION))
        self._out: Path = config.getoption(OUT_OPTION).absolute()
        self._cases: dict[str, CaseResult] = {}
        self._checks: dict[str, Check] = {}
        self._told: dict[str, list[CaseResult | Check]] = {}
        self._references: dict[str, Reference] = {}
        self._ended: set[str] = set()
        self._ktap = sys.__stdout__ if config.getoption(KTAP_OPTION) else None
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
        found = list(_cases_of(report))
        for case in found:
            before = self._cases.get(case.case)
            if before is None or before.as_expected:  # proved twice: the failure is what counts
                self._cases[case.case] = case
        self._references.update(_references_of(report))
        check = _check_of(report)
        told = self._told.setdefault(report.nodeid, [])
        told += found
        # A case that was proved says all about its test, unless the rest of the test failed too.
        explained = any(not case.as_expected for case in found) or report.passed
        if check is not None and not (found and explained):
            self._checks[f"{check.name} {report.when}"] = check
            told.append(check)
        if report.when not in ("setup", "call", "teardown"):  # the process of the test has died
            self._end(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._checks[report.nodeid] = Check(report.nodeid, "error", report.longreprtext, 0.0)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._end(nodeid)

    def _end(self, nodeid: str) -> None:
        """Shows what became of a test."""
        if nodeid in self._ended:
            return
        self._ended.add(nodeid)
        done, total = len(self._ended), max(len(self._ended), self._total)
        told = self._told.pop(nodeid, [])
        if self._ktap is not None:
            one = told[0] if len(told) == 1 else None
            name = one.case if isinstance(one, CaseResult) else nodeid.rpartition("/")[2]
            head = [ktap.header(total)] if done == 1 else []
            text = "\n".join([*head, ktap.result(done, name, told)])
            print(text, file=self._ktap, flush=True)
        if self._lines and not self._quiet:
            for item in told:
                self._print(terminal.line(item, done, total, colour=self._colour))

    def _print(self, text: str) -> None:
        area = self._config.stash.get(AREA, None)
        if area is None:
            print(text, flush=True)
        else:
            area.print(text)

    @property
    def _colour(self) -> bool:
        return self._config.get_terminal_writer().hasmarkup

    def results(self) -> Results:
        """All that has been gathered so far, in an order that no host decides."""
        return Results(
            format=results.FORMAT,
            version=results.VERSION,
            bootproof=VERSION,
            started=self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=round(time.monotonic() - self._began, 3),
            complete=len(self._ended) >= self._total,
            cases=tuple(case for _, case in sorted(self._cases.items())),
            checks=tuple(check for _, check in sorted(self._checks.items())),
            references=self._references,
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
        """The grid of all cases, the failures, and the reports beside the run directories."""
        if not self._cases and not (self._lines and self._checks):
            return
        found = self.results()
        written = files.write(found, self._out, self._baseline)
        write = terminalreporter.write
        write("\n" if self._quiet else "\n" + terminal.grid(found, colour=self._colour))
        if self._lines:  # elsewhere pytest shows them
            write(terminal.failures(found))
        if self._changes:
            write(rendering.render(self._changes))
        write(terminal.summary(found, colour=self._colour))
        names = ", ".join(path.name for path in written)
        terminalreporter.write_line(f"run directories, {names}: {self._out}")


def _cases_of(report: pytest.TestReport) -> Iterator[CaseResult]:
    """What `prove` found in a test, out of the report of its call."""
    if report.when == "call":
        for name, value in report.user_properties:
            if name == PROPERTY:
                yield typedjson.from_json(CaseResult, value)


def _references_of(report: pytest.TestReport) -> Iterator[tuple[str, Reference]]:
    """The reference boots of a comparison, by the case that they are beside."""
    if report.when == "call":
        for name, value in report.user_properties:
            if name == REFERENCE_PROPERTY and isinstance(value, dict):
                yield value["case"], typedjson.from_json(Reference, value["reference"])


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
