"""pytest options, fixtures and the table of results, over a library that works without pytest.

Does nothing in a test suite that does not use the `prove` fixture.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from harness import rundir
from harness.case import Case
from harness.matrix import KEEP_OPTION, LINES_OPTION, OUT_OPTION
from harness.prove import Proven, prove
from harness.report import terminal
from harness.report.terminal import Row

RESULTS: Final = "results.json"
_PROPERTY: Final = "bootproof"

Prove = Callable[[Case], Proven]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bootproof")
    group.addoption(OUT_OPTION, type=Path, default=Path("build/matrix"), help="run directories")
    group.addoption(
        KEEP_OPTION,
        choices=("all", "failed"),
        default="all",
        help="of which cases guest RAM is kept",
    )
    group.addoption(LINES_OPTION, action="store_true", help="one line for each case as it ends")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "short: the few cases that `bootproof test` runs")
    if config.getoption(LINES_OPTION) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Lines())


class _Lines:
    """Prints one line for each case as it ends, in the process that the user looks at."""

    def __init__(self) -> None:
        self._total = 0
        self._done = 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self._total = len(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._total = max(self._total, len(session.items))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and not report.failed:
            return
        self._done += 1
        row = _row_of(report)
        place = f"[{self._done:3}/{self._total}]"
        if row is None:
            text = f"{report.outcome:<22} {report.nodeid.rpartition('::')[2]}"
        else:
            mark = "" if row.as_expected else "   NOT AS EXPECTED"
            text = f"{row.verdict:<14} {row.seconds:5.1f} s {row.case}{mark}"
        print(f"{place} {text}", flush=True)


@pytest.fixture
def run_directory(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Where a run of the given name keeps its artifacts."""
    out: Path = request.config.getoption(OUT_OPTION)
    return lambda name: out.absolute() / name


@pytest.fixture(name="prove")
def prove_fixture(
    request: pytest.FixtureRequest, run_directory: Callable[[str], Path]
) -> Iterator[Prove]:
    """Boots a case and fails the test unless it ends exactly as the case expects."""
    keep: str = request.config.getoption(KEEP_OPTION)

    def prove_case(case: Case) -> Proven:
        proven = prove(case, run_directory(case.id))
        problem = terminal.problem(case, proven)
        request.node.user_properties.append((_PROPERTY, _row(case, proven, problem).to_json()))
        if problem is not None:
            pytest.fail(terminal.failure(case, proven, problem), pytrace=False)
        if keep == "failed":
            rundir.drop_ram(proven.directory)
        return proven

    yield prove_case


def _row(case: Case, proven: Proven, problem: str | None) -> Row:
    outcome = proven.outcome
    return Row(
        case=case.id,
        arch=case.arch,
        kernel=case.kernel,
        claim=case.id.removeprefix(f"{case.arch}-{case.kernel}-"),
        verdict=proven.verdict.value,
        as_expected=problem is None,
        seconds=proven.host_seconds,
        harness_seconds=proven.host_seconds - (outcome.costs.qemu_seconds if outcome else 0.0),
        instructions=outcome.costs.instructions if outcome else None,
    )


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """No progress letters where there are lines."""
    if not config.getoption(LINES_OPTION) or report.when != "call":
        return None
    return report.outcome, "", ""


def _row_of(report: pytest.TestReport | pytest.CollectReport) -> Row | None:
    if not isinstance(report, pytest.TestReport):
        return None
    found = dict(report.user_properties).get(_PROPERTY)
    return Row.from_json(found) if isinstance(found, dict) else None


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """The grid of all cases, and results.json beside the run directories."""
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if getattr(report, "when", None) == "call"
    ]
    rows = [row for row in map(_row_of, reports) if row is not None]
    if not rows:
        return
    out: Path = config.getoption(OUT_OPTION)
    out.mkdir(parents=True, exist_ok=True)
    results = {"version": 1, "cases": [row.to_json() for row in rows]}
    (out / RESULTS).write_text(json.dumps(results, indent=2) + "\n")
    terminalreporter.write_line("")
    terminalreporter.write(terminal.grid(rows))
    terminalreporter.write_line(f"run directories and {RESULTS}: {out.absolute()}")
