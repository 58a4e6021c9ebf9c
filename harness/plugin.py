"""pytest options, fixtures and the table of results, over a library that works without pytest.

Does nothing in a test suite that neither uses the `prove` fixture nor names a file of cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from bootproof.harness.case import Case
from bootproof.harness.cases import case_file, scenarios, shard
from bootproof.harness.errors import UserError
from bootproof.harness.prove import Proven
from bootproof.harness.report import listing
from bootproof.harness.results.changes import THRESHOLD
from bootproof.harness.suite import items as case_items
from bootproof.harness.suite import live
from bootproof.harness.suite.inflight import InFlight
from bootproof.harness.suite.items import CaseItem
from bootproof.harness.suite.options import (
    BASELINE_OPTION,
    COMMAND_OPTION,
    COSTS_OPTION,
    JOBS_OPTION,
    KEEP_OPTION,
    KTAP_OPTION,
    LINES_OPTION,
    LIST_OPTION,
    MATRIX_COMMAND,
    ONLY_OPTION,
    OUT_OPTION,
    QEMU_OPTION,
    QUIET_OPTION,
    SCENARIOS_INI,
    SHARD_OPTION,
    THRESHOLD_OPTION,
)
from bootproof.harness.suite.session import MatrixSession

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
    group.addoption(
        COMMAND_OPTION,
        default=MATRIX_COMMAND,
        metavar="COMMAND",
        help="what runs a case again with -k, for reports",
    )
    group.addoption(LIST_OPTION, action="store_true", help="only print the cases and why")
    group.addoption(
        ONLY_OPTION,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only cases with this value; may be repeated",
    )
    group.addoption(
        SHARD_OPTION, type=_shard, metavar="N/OF", help="only this part of the cases: 1/4"
    )
    group.addoption(
        COSTS_OPTION, type=Path, metavar="FILE", help="a results.json, to balance shards by"
    )
    group.addoption(
        QEMU_OPTION,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a QEMU that cases may name; may be repeated",
    )
    parser.addini(
        SCENARIOS_INI,
        "scenario files to collect: patterns relative to the root directory",
        type="args",
        default=[],
    )
    group.addoption(LINES_OPTION, action="store_true", help="one line for each case as it ends")
    group.addoption(
        BASELINE_OPTION, type=Path, metavar="FILE", help="an earlier results.json to compare with"
    )
    group.addoption(
        THRESHOLD_OPTION,
        type=float,
        default=THRESHOLD,
        metavar="RATIO",
        help="change of an instruction count that is still the same",
    )
    group.addoption(KTAP_OPTION, action="store_true", help="KTAP on the process's own stdout")
    group.addoption(
        JOBS_OPTION,
        type=int,
        default=1,
        metavar="N",
        help="this many cases at once, in one process",
    )
    group.addoption(QUIET_OPTION, action="store_true", help="no lines and no grid")


def _shard(text: str) -> shard.Shard:
    try:
        return shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "short: the few cases that `bootproof test` runs")
    if not hasattr(config, "workerinput") and not config.getoption(LIST_OPTION):
        try:
            config.pluginmanager.register(MatrixSession(config))
        except UserError as error:
            raise pytest.UsageError(str(error)) from error
        _live(config)
        jobs: int = config.getoption(JOBS_OPTION)
        if jobs > 1:
            config.pluginmanager.register(InFlight(jobs))


def _live(config: pytest.Config) -> None:
    """Lines for what is in flight, on a terminal that gets lines for what has ended."""
    lines, quiet = config.getoption(LINES_OPTION), config.getoption(QUIET_OPTION)
    area = live.area(wanted=lines and not quiet and not config.getoption(KTAP_OPTION))
    if area is not None:
        config.stash[live.AREA] = area
        config.pluginmanager.register(area)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.File | None:
    """Only files that somebody named: a suite that names none sees nothing of this."""
    if not file_path.name.endswith((scenarios.SUFFIX, case_file.SUFFIX)):
        return None
    patterns: list[str] = parent.config.getini(SCENARIOS_INI)
    if not parent.session.isinitpath(file_path) and not any(
        file_path in parent.config.rootpath.glob(pattern) for pattern in patterns
    ):
        return None
    return case_items.collector(file_path, parent)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Filters and shards, after pytest's own selection."""
    try:
        case_items.choose(config, items)
        if config.getoption(LINES_OPTION):  # elsewhere other tests may run without
            case_items.check_emulators(config, items)
    except UserError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With the option to list, prints what would run, and runs nothing."""
    if not session.config.getoption(LIST_OPTION):
        return None
    cases = [item.listed for item in session.items if isinstance(item, CaseItem)]
    others = [item.nodeid for item in session.items if not isinstance(item, CaseItem)]
    print(listing.render(cases), *others, f"{len(cases)} cases, {len(others)} tests", sep="\n")
    return True


@pytest.fixture
def run_directory(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Where a run of the given name keeps its artifacts."""
    out: Path = request.config.getoption(OUT_OPTION)
    return lambda name: out.absolute() / name


@pytest.fixture(name="prove")
def prove_fixture(request: pytest.FixtureRequest) -> Prove:
    """Boots a case and fails the test unless it ends exactly as the case expects."""
    return lambda case: case_items.prove_case(request.node, case)


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """No progress letters where there are lines."""
    if not config.getoption(LINES_OPTION) or report.when != "call":
        return None
    return report.outcome, "", ""
