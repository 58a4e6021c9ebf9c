"""What a pytest session knows of its cases, in the process that the user looks at.

Every case's result arrives with its test's report, also from other processes. Shows a line for each
as it ends, and at the end hands all of it to bootproof.harness.report.files. Touches nothing in a
session without a case.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import shlex
import sys
import time
import uuid
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from bootproof.harness import VERSION, exitcode, typedjson
from bootproof.harness.errors import UserError
from bootproof.harness.host.stdout import OwnCommand, say
from bootproof.harness.judgement import ERROR
from bootproof.harness.report import changes as rendering
from bootproof.harness.report import files, job_annotations, ktap, terminal
from bootproof.harness.results import changes, results
from bootproof.harness.results.changes import Change, Kind
from bootproof.harness.results.kept import Kept
from bootproof.harness.results.results import CaseResult, Check, Part, Reference, Results, Run
from bootproof.harness.results.roles import Earlier
from bootproof.harness.suite import out, uncollected
from bootproof.harness.suite.items import CaseItem
from bootproof.harness.suite.live import AREA
from bootproof.harness.suite.options import (
    EXIT_CODE,
    NO_RESULT,
    OPTIONS,
    PROPERTY,
    REFERENCE_PROPERTY,
    SELECTED,
)
from bootproof.printable import safe

_GITHUB: Final = "GITHUB_ACTIONS"  # is "true" in a job of GitHub's


class MatrixSession:
    """A pytest plugin of one session."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._options = options = config.stash[OPTIONS]
        self._id = uuid.uuid4().hex
        self._lines, self._quiet = options.lines, options.quiet
        self._out = options.out.absolute()
        self._cases = Kept(self._out)
        self._checks: dict[str, Check] = {}
        # The SHA-256 of each kernel, by its name.
        self._kernels: dict[str, str] = {}
        self._references: dict[str, Reference] = {}
        # What is known of each test that has not ended yet, as it is shown.
        self._shown: dict[str, list[CaseResult | Check]] = {}
        self._ended: set[str] = set()
        self._ktap = sys.__stdout__ if options.ktap else None
        self._total = 0
        self._interrupted = False
        self._left_out: list[pytest.Item] = []
        self._of_cases: set[str] = set()
        self._baseline = None if options.baseline is None else results.read(options.baseline)
        self._before = Earlier(self._baseline.cases if self._baseline else ())
        self._threshold = options.threshold
        self._began = time.monotonic()
        self._started = datetime.datetime.now(datetime.UTC)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._left_out += items

    def _plan(self, items: Sequence[pytest.Item]) -> None:
        self._total = max(self._total, len(items))
        self._of_cases = {item.nodeid for item in items if isinstance(item, CaseItem)}
        if self._lines and self._left_out and items and not self._quiet:
            self._print(f"selected  {_selected(items, self._left_out)}")
        self._left_out.clear()

    @contextlib.contextmanager
    def _interruptible(self, session: pytest.Session) -> Iterator[None]:
        """A matrix that its user ends comes to its end, with what it knows and in its own words.

        Those of pytest are of a traceback, and of an option that no matrix has.
        """
        try:
            yield
        except session.Interrupted:  # by pytest itself: what could not be collected
            raise
        except KeyboardInterrupt:
            if not self._lines:
                raise
            self._interrupted = True
            session.items = []

    @pytest.hookimpl(wrapper=True)
    def pytest_collection(self, session: pytest.Session) -> Generator[None, object, object]:
        """What there is to do is known when all is collected: pytest_collection_finish is also told
        of a part, and of what is not selected.
        """
        with self._interruptible(session):
            done = yield
            self._plan(session.items)
            return done
        self._total = 0
        return None

    @pytest.hookimpl(wrapper=True)  # whatever else it is that runs them
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """From here on the results say that the run has not come to its end."""
        if self._lines or any(map(_proves, session.items)):
            if not self._lines:  # a matrix has done it
                try:
                    out.remove_old(self._out)
                except UserError as error:
                    raise pytest.UsageError(str(error)) from error
            if self._total:
                results.write(self.results(), self._out / results.RESULTS)
        with self._interruptible(session):
            return (yield)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        cases = list(_cases_of(report))
        for case in cases:
            before = self._cases.get(case.case)
            if before is None or before.as_expected:  # proved twice: the failure is what counts
                self._cases.add(case)
            self._note_kernel(case)
        self._references.update(_references_of(report))
        check = _check_of(report)
        shown = self._shown.setdefault(report.nodeid, [])
        shown += [item for case in cases for item in self._compared(case)]
        # A case that was proved says all about its test, unless the rest of the test failed too.
        explained = any(case.bad for case in cases) or report.passed
        if check is not None and not (cases and explained):
            ended = any(isinstance(item, CaseResult) for item in shown)
            check = replace(check, of_case=report.nodeid in self._of_cases and not ended)
            check = self._checks[check.name] = _together(self._checks.get(check.name), check)
            shown[:] = [*(item for item in shown if isinstance(item, CaseResult)), check]
        if report.when not in ("setup", "call", "teardown"):  # the process of the test has died
            self._end(report.nodeid)
        _slim(report)

    def _note_kernel(self, case: CaseResult) -> None:
        """Each process reads a kernel's file when it first needs it: make may have been there.

        Tests of other suites may build a kernel anew as they like.
        """
        if not self._lines:
            return
        name, sha256 = case.kernel.name, case.kernel.sha256
        first = sha256 and self._kernels.setdefault(name, sha256)
        if first != sha256:
            told = f"{name}: was replaced while its cases ran: some are of another kernel"
            both = f"SHA-256 {str(first)[:16]}… and {str(sha256)[:16]}…"
            self._checks[f"kernel {name}"] = Check(f"kernel {name}", ERROR, f"{told} ({both})", 0.0)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            text = f"{uncollected.reason(report)}\n{report.longreprtext}"
            self._checks[report.nodeid] = Check(report.nodeid, ERROR, text, 0.0)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._end(nodeid)
        if self._lines:  # and all that pytest itself would say of them at the end
            self._reporter.stats.clear()

    def _compared(self, case: CaseResult) -> list[CaseResult | Check]:
        """A case as it is beside the baseline, if there is one."""
        if self._baseline is None:
            return [case]
        change = changes.compare_case(self._before, case, self._threshold)
        return [item for item in changes.with_change(case, change) if item is not None]

    def _end(self, nodeid: str) -> None:
        """Shows what became of a test."""
        if nodeid in self._ended:
            return
        self._ended.add(nodeid)
        done, total = len(self._ended), max(len(self._ended), self._total)
        shown = self._shown.pop(nodeid, [])
        if self._ktap is not None:
            name = nodeid.rpartition("/")[2]
            if len(cases := [item for item in shown if isinstance(item, CaseResult)]) == 1:
                name = cases[0].name
            head = [ktap.header(total)] if done == 1 else []
            text = "\n".join([*head, ktap.result(done, name, shown)])
            print(text, file=self._ktap, flush=True)
        if self._lines and not self._quiet:
            for item in shown:
                self._print(terminal.line(item, done, total, colour=self._colour))

    def _print(self, text: str) -> None:
        area = self._config.stash.get(AREA, None)
        if area is None:
            print(text, flush=True)
        else:
            area.print(text)

    @property
    def _colour(self) -> bool:
        if self._lines:  # whose colours are no business of pytest's
            return bool(self._reporter.isatty)
        return self._config.get_terminal_writer().hasmarkup

    @property
    def _reporter(self) -> Any:
        return self._config.pluginmanager.get_plugin("terminalreporter")

    def results(self) -> Results:
        """All that is known so far, in an order that no host decides."""
        return Results(
            format=results.FORMAT,
            version=results.VERSION,
            bootproof=VERSION,
            started=self._started.strftime(results.STARTED),
            seconds=round(time.monotonic() - self._began, 3),
            complete=len(self._ended) >= self._total and (self._total > 0 or not self._interrupted),
            cases=self._cases.cases(),
            checks=tuple(check for _, check in sorted(self._checks.items())),
            references=self._references,
            run=self._run(),
        )

    def _run(self) -> Run:
        options, shard = self._options, self._options.shard
        return Run(
            id=self._id,
            shared_id=options.run_id,
            selection=self._selection(),
            selected=self._config.stash.get(SELECTED, ""),
            planned=self._total,
            shard=None if shard is None else Part(shard.number, shard.count),
        )

    def _selection(self) -> str:
        """What selects the same again, but for the part that a shard has of it."""
        option = self._config.option
        words = [f"only {word}" for word in self._options.only]
        words += [f"-k {shlex.quote(option.keyword)}"] if option.keyword else []
        words += [f"-m {shlex.quote(option.markexpr)}"] if option.markexpr else []
        words += ["--lf"] if getattr(option, "lf", False) else []
        return " ".join([self._options.command, *words])

    def _changes(self, run: Results) -> list[Change]:
        """What became of the cases since the baseline; a run that was cut short says less."""
        if self._baseline is None:
            return []
        all_ = changes.compare(self._baseline, run, self._threshold)
        return [change for change in all_ if run.complete or change.kind is not Kind.GONE]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """The exit code of the results, and of what became of them since the baseline."""
        run = self.results()
        codes = [run.exit_code] if self._lines else []  # elsewhere other tests may run without
        codes += [exitcode.INTERRUPTED] if self._interrupted else []
        if self._baseline is not None:
            codes.append(changes.exit_code(self._changes(run)))
        code = exitcode.worst(codes)
        if self._lines:
            self._config.stash[EXIT_CODE] = code
        elif code and session.exitstatus == pytest.ExitCode.OK:
            failed = code == exitcode.NOT_AS_EXPECTED
            session.exitstatus = (
                pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.USAGE_ERROR
            )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The grid of all cases, the failures, and the reports beside the run directories."""
        if not len(self._cases) and not (self._lines and self._checks):
            return
        run = self.results()
        compared = self._changes(run)
        try:
            written, unwritten = files.write(run, self._out, self._baseline, compared), None
        except UserError as error:  # what is known is told all the same
            written, unwritten = [], error
        self._show(terminalreporter, changes.judged(run, compared), compared)
        names = ", ".join(["run directories", *(path.name for path in written)])
        terminalreporter.write_line(f"{names}: {safe(str(self._out))}")
        if unwritten is not None:
            self._refused(unwritten)

    def _refused(self, error: UserError) -> None:
        """What the host refuses at the end is told last, and no failure of a guest is less for it.

        Raises it where nobody asks for our exit code.
        """
        if not self._lines:
            raise error
        say(str(error))
        codes = (self._config.stash[EXIT_CODE], exitcode.USAGE)
        self._config.stash[EXIT_CODE] = exitcode.worst(codes)

    def _show(
        self, terminalreporter: pytest.TerminalReporter, shown: Results, compared: Sequence[Change]
    ) -> None:
        write = terminalreporter.write
        write("\n")
        if not self._quiet:
            write(terminal.grid(shown, colour=self._colour))
        if self._lines:  # elsewhere pytest shows them
            write(terminal.failures(shown))
        if compared:
            write(rendering.render(compared))
        write(terminal.summary(shown, colour=self._colour))
        if os.environ.get(_GITHUB) == "true":
            write(OwnCommand(job_annotations.render(shown)))


def _slim(report: pytest.TestReport) -> None:
    """pytest keeps all reports to the end; what has been taken out of one is not kept twice."""
    report.user_properties = [
        each for each in report.user_properties if each[0] not in (PROPERTY, REFERENCE_PROPERTY)
    ]
    report.keywords = {}


def _proves(item: pytest.Item) -> bool:
    """Whether a test is going to have results of cases."""
    return isinstance(item, CaseItem) or "prove" in getattr(item, "fixturenames", ())


def _selected(ran: Sequence[pytest.Item], left_out: Sequence[pytest.Item]) -> str:
    """How much of what there is has been selected: `2 of 30 cases`."""
    counts = []
    for what, kind in (("cases", True), ("tests", False)):
        here, there = (
            sum(isinstance(item, CaseItem) is kind for item in items) for items in (ran, left_out)
        )
        counts += [f"{here} of {here + there} {what}"] if here + there else []
    return ", ".join(counts)


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
    properties = [*map(tuple, report.user_properties)]
    if report.failed and (report.when != "call" or (NO_RESULT, True) in properties):
        outcome = ERROR
    return Check(
        name=report.nodeid.rpartition("/")[2].removeprefix("::"),
        outcome=outcome,
        text=report.longreprtext if report.failed else _skip_reason(report),
        seconds=round(report.duration, 3),
    )


def _together(before: Check | None, check: Check) -> Check:
    """What is known of one test after another part of it: its tear-down is no test more."""
    if before is None:
        return check
    seconds = round(before.seconds + check.seconds, 3)
    if not before.bad:
        return replace(check, seconds=seconds)
    return replace(before, text=f"{before.text}\n{check.text}", seconds=seconds)


def _skip_reason(report: pytest.TestReport) -> str:
    if report.skipped and (known := getattr(report, "wasxfail", None)) is not None:
        return f"failed, as it is known to: {known}"
    where = report.longrepr
    return str(where[2]) if report.skipped and isinstance(where, tuple) else ""
