"""pytest options, fixtures and the table of results, over a library that works without pytest.

Does nothing in a test suite that neither uses the `prove` fixture nor names a file of cases.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.case import Case
from bootproof.harness.cases import case_file, qemus, scenarios
from bootproof.harness.errors import UserError
from bootproof.harness.prove import Proven
from bootproof.harness.report import listing
from bootproof.harness.suite import beside, live, uncollected
from bootproof.harness.suite import items as case_items
from bootproof.harness.suite.inflight import CROWD, InFlight
from bootproof.harness.suite.items import CaseItem
from bootproof.harness.suite.options import (
    NO_RESULT,
    OPTION,
    OPTIONS,
    SCENARIOS_INI,
    MatrixOptions,
    read,
)
from bootproof.harness.suite.session import MatrixSession
from bootproof.loader.address import counted

Prove = Callable[[Case], Proven]


def pytest_addoption(parser: pytest.Parser) -> None:
    keys = ", ".join(field.name for field in fields(MatrixOptions))
    parser.getgroup("bootproof").addoption(
        OPTION,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"how cases run and what is shown; may be repeated; keys: {keys}",
    )
    parser.addini(
        SCENARIOS_INI,
        "scenario files to collect: patterns relative to the root directory",
        type="args",
        default=[],
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "short: the few cases that `bootproof test` runs")
    config.addinivalue_line("markers", f"{CROWD}: has many guests at once, and runs last")
    config.addinivalue_line("markers", f"{beside.BESIDE}: may run in a thread, as cases do")
    try:
        options = config.stash[OPTIONS] = read(config.getoption(OPTION))
        if hasattr(config, "workerinput") or options.list_only:
            return
        config.pluginmanager.register(MatrixSession(config))
    except UserError as error:
        raise pytest.UsageError(str(error)) from error
    # Lines for what is in flight, on a terminal that gets lines for what has ended.
    area = live.area(wanted=options.lines and not options.quiet and not options.ktap)
    if area is not None:
        config.stash[live.AREA] = area
        config.pluginmanager.register(area)
    if options.cluster is not None:
        _use_cluster(config, options)
    elif options.jobs > 1:
        config.pluginmanager.register(InFlight(options.jobs))
        config.pluginmanager.register(beside.Hearing())


def _use_cluster(config: pytest.Config, options: MatrixOptions) -> None:
    from bootproof.harness.suite.cluster import client

    assert options.cluster is not None
    try:
        cluster = client.connect(options.cluster, qemus.paths(options.qemu))
    except UserError as error:
        raise pytest.UsageError(str(error)) from error
    config.stash[case_items.CLUSTER] = cluster
    config.add_cleanup(cluster.close)
    config.pluginmanager.register(InFlight(cluster.slots))


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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Marks a test that came to no result: only what it asserts itself is a failure."""
    failed = (AssertionError, pytest.fail.Exception, pytest.skip.Exception)
    if call.excinfo is not None and not call.excinfo.errisinstance(failed):
        item.user_properties.append((NO_RESULT, True))


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """The QEMUs that all cases run on, then pytest's own selection, then filters and shards."""
    try:
        case_items.multiply(config, items)
    except UserError as error:
        raise pytest.UsageError(str(error)) from error
    yield
    try:
        case_items.choose(config, items)
        if case_items.CLUSTER in config.stash:
            cases = [item.case for item in items if isinstance(item, CaseItem)]
            config.stash[case_items.CLUSTER].check(cases)
        else:  # elsewhere other tests may run without any but those that were named
            lines = config.stash[OPTIONS].lines
            case_items.check_emulators(config, items, only_named=not lines)
    except UserError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """With the option to list, prints what would run, and runs nothing."""
    if not session.config.stash[OPTIONS].list_only:
        return None
    if session.testsfailed:  # what cannot be read, and would be left out of the list
        reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        raise pytest.UsageError("; ".join(map(uncollected.reason, reporter.stats["error"])))
    cases = [item.listed for item in session.items if isinstance(item, CaseItem)]
    others = [item.nodeid for item in session.items if not isinstance(item, CaseItem)]
    told = f"{counted(len(cases), 'case')}, {counted(len(others), 'test')}"
    print(listing.render(cases), *others, told, sep="\n")
    return True


@pytest.fixture
def run_directory(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Where a run of the given name keeps its artifacts."""
    return beside.run_directories(request.node)


@pytest.fixture(name="prove")
def prove_fixture(request: pytest.FixtureRequest) -> Prove:
    """Boots a case and fails the test unless it ends exactly as the case expects."""
    return lambda case: case_items.prove_case(request.node, case)


def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport, config: pytest.Config
) -> tuple[str, str, str] | None:
    """No progress letters where there are lines."""
    if not config.stash[OPTIONS].lines:
        return None
    return report.outcome if report.when == "call" else "", "", ""
