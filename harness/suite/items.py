"""Cases as pytest items: `-k`, `-n`, `-x`, `--lf` and markers work on them as on any test.

A scenario file, or a JSON file of cases, is collected when it is named on pytest's command line or
matches the ini option `bootproof_scenarios`; no other file is opened. The id of an item is made of
file, claim and case: `x86_64.toml::pvh[x86_64-6.1-cloud-amd64-elf-pvh-none]`.
"""

from __future__ import annotations

import contextlib
import hashlib
import shlex
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from _pytest._code.code import TerminalRepr, TracebackStyle

from bootproof.harness import typedjson
from bootproof.harness.case import Case
from bootproof.harness.cases import case_file, qemus, scenarios, select, shard
from bootproof.harness.errors import UserError
from bootproof.harness.host import rundir, signals
from bootproof.harness.host.files import is_root
from bootproof.harness.prepare import Lend, Options
from bootproof.harness.prove import Proven, prove
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.record import sharing
from bootproof.harness.record.sharing import Lender
from bootproof.harness.report import failure
from bootproof.harness.report.listing import Listed
from bootproof.harness.results.results import CaseResult
from bootproof.harness.suite.case_result import case_result
from bootproof.harness.suite.live import AREA, ELSEWHERE, PREPARING
from bootproof.harness.suite.options import OPTIONS, PROPERTY, SELECTED, Keep
from bootproof.harness.terms import Observer
from bootproof.kernels.errors import FetchError

if TYPE_CHECKING:
    from bootproof.harness.suite.cluster.client import Cluster

# Where a case has been booted already, by another thread.
BOOTING: Final = pytest.StashKey[Future[CaseResult]]()
# What their run directories are lent.
LENDER: Final = pytest.StashKey[Lender]()
# Where cases are booted, unless it is here.
CLUSTER: Final[pytest.StashKey[Cluster]] = pytest.StashKey()


def collector(path: Path, parent: pytest.Collector) -> pytest.File:
    """What collects the cases of a file."""
    if path.name.endswith(case_file.SUFFIX):
        return CaseFile.from_parent(parent, path=path)
    return ScenarioFile.from_parent(parent, path=path)


class ScenarioFile(pytest.File):
    """Claims, as TOML."""

    def collect(self) -> Iterable[CaseItem]:
        try:
            claims = scenarios.read_scenarios(self.path)
        except UserError as error:
            raise self.CollectError(str(error)) from error
        for claimed in claims:
            name = f"{claimed.claim}[{claimed.case.id}]"
            listed = Listed(claimed.case, claimed.claim, claimed.why)
            item = CaseItem.from_parent(self, name=name, listed=listed, line=claimed.line)
            if claimed.short:
                item.add_marker("short")
            yield item


class CaseFile(pytest.File):
    """Generated cases, as JSON."""

    def collect(self) -> Iterable[CaseItem]:
        try:
            cases = case_file.read_cases(self.path)
        except UserError as error:
            raise self.CollectError(str(error)) from error
        for case in cases:
            group = f"{case.kernel}, {case.format}, {case.protocol}"
            yield CaseItem.from_parent(self, name=f"case[{case.id}]", listed=Listed(case, group))


class CaseItem(pytest.Item):
    """One case: passes when it ends exactly as it expects."""

    def __init__(self, name: str, parent: pytest.File, *, listed: Listed, line: int = 1) -> None:
        # Given as text, so that what is in brackets is the same part of it when it is read back.
        super().__init__(name, parent, nodeid=f"{parent.nodeid}::{name}")
        self.listed = listed
        self._line = line

    @property
    def case(self) -> Case:
        return self.listed.case

    def on(self, qemu: str) -> CaseItem:
        """The same on another QEMU."""
        case = replace(self.case, qemu=qemu)
        name = f"{self.name.partition('[')[0]}[{case.id}]"
        listed = replace(self.listed, case=case)
        assert isinstance(self.parent, pytest.File)
        item = CaseItem.from_parent(self.parent, name=name, listed=listed, line=self._line)
        item.own_markers += self.own_markers
        item.keywords.update(dict.fromkeys((mark.name for mark in self.own_markers), True))
        return item

    def boot(self) -> CaseResult:
        """Boots the case, here or on the session's cluster; judges nothing of how it ended."""
        cluster = self.config.stash.get(CLUSTER, None)
        if cluster is None:
            return result_of(self, boot(self, self.case))
        asked = self.config.stash[OPTIONS]
        command = reproduce(self.name, asked.command)
        directory = asked.out.absolute() / self.case.id
        with _shown(self, self.case, ELSEWHERE):
            return cluster.boot(self.case, directory, command, keep_ram=asked.keep is Keep.ALL)

    def runtest(self) -> None:
        booting = self.stash.get(BOOTING, None)
        tell(self, self.boot() if booting is None else booting.result())

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: TracebackStyle | None = None
    ) -> str | TerminalRepr:
        """One line, not a traceback, for what is the environment's fault."""
        if isinstance(excinfo.value, UserError | FetchError):
            return f"{self.case.id}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, self._line - 1, self.name


def multiply(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Every case that names no QEMU, once for each that was given to all. Raises UserError."""
    words = config.stash[OPTIONS].qemu
    if not words:
        return
    names = qemus.axis((item.case for item in items if isinstance(item, CaseItem)), words)
    items[:] = [
        each
        for item in items
        for each in (
            [item.on(name) for name in names]
            if names and isinstance(item, CaseItem) and item.case.qemu is None
            else [item]
        )
    ]


def choose(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves in `items` what the filters let pass, of that this shard's part.

    Raises UserError for options that mean nothing, and when two cases have one id, since their run
    directories would be one.
    """
    first: dict[str, pytest.Item] = {}
    for item in items:
        if isinstance(item, CaseItem):
            other = first.setdefault(item.case.id, item)
            if other is not item:
                both = f"{item.path} and of {other.path}"
                raise UserError(f"{item.case.id}: is a case of {both}; give one of them a label")
    options = config.stash[OPTIONS]
    if options.only:
        passes = select.filter_for(options.only)
        _keep(config, items, lambda item: isinstance(item, CaseItem) and passes(item.case))
    ids = "\n".join(sorted(map(_name, items))).encode(errors="surrogateescape")
    config.stash[SELECTED] = hashlib.sha256(ids).hexdigest()
    if part := options.shard:
        known = select.read_costs(options.costs) if options.costs else {}
        shards = shard.distribute({_name(item): _cost(item, known) for item in items}, part.count)
        if shards and part.number not in shards.values():
            raise UserError(shard.empty(part, shards))
        _keep(config, items, lambda item: shards[_name(item)] == part.number)


def longest_first(config: pytest.Config, items: Iterable[pytest.Item]) -> list[CaseItem]:
    """The cases among them, in the order that leaves no CPU idle: those with the longest boots
    first, so that none is left alone at the end, and spread among them those without a guest.
    """
    options = config.stash[OPTIONS]
    told = options.costs or options.baseline
    known = select.read_costs(told) if told else {}
    cases = sorted(
        (item for item in items if isinstance(item, CaseItem)),
        key=lambda item: -_cost(item, known),
    )
    guests = [item for item in cases if select.boots(item.case)]
    others = [item for item in cases if not select.boots(item.case)]
    places = {item: (n + 1) / len(part) for part in (guests, others) for n, item in enumerate(part)}
    return sorted(cases, key=lambda item: places[item])


def _name(item: pytest.Item) -> str:
    return item.case.id if isinstance(item, CaseItem) else item.nodeid


def _cost(item: pytest.Item, known: Mapping[str, int]) -> int:
    return select.cost(item.case, known) if isinstance(item, CaseItem) else select.BOOT_COST


def check_emulators(
    config: pytest.Config, items: Iterable[pytest.Item], *, only_named: bool
) -> None:
    """Raises UserError when a case that boots has no QEMU: said once, and before anything runs."""
    given = qemus.paths(config.stash[OPTIONS].qemu)
    cases = (item.case for item in items if isinstance(item, CaseItem))
    for case in cases:
        if case.qemu is None and (only_named or not select.boots(case)):
            continue
        if case.qemu is None or case.qemu in given:
            find_qemu(case.arch, given.get(case.qemu or ""))


def _keep(
    config: pytest.Config, items: list[pytest.Item], kept: Callable[[pytest.Item], bool]
) -> None:
    gone = [item for item in items if not kept(item)]
    items[:] = [item for item in items if kept(item)]
    if gone:
        config.hook.pytest_deselected(items=gone)


def prove_case(item: pytest.Item, case: Case) -> Proven:
    """Boots a case, hands the result to the reports, and fails unless it is as expected."""
    proven = boot(item, case)
    tell(item, result_of(item, proven))
    return proven


def boot(item: pytest.Item, case: Case) -> Proven:
    """Boots a case as the session's options say. Raises as bootproof.harness.prove."""
    if hasattr(item.config, "workerinput"):
        signals.become_worker()
    asked = item.config.stash[OPTIONS]
    options = Options(qemus=qemus.paths(asked.qemu), lend=_lend(item.config))
    with _shown(item, case, PREPARING) as observer:
        options = replace(options, observer=observer)
        return prove(case, asked.out.absolute() / case.id, options)


def _lend(config: pytest.Config) -> Lend | None:
    """What the session's cases are lent, where all of RAM is kept and QEMU cannot write to it."""
    asked = config.stash[OPTIONS]
    if asked.keep is not Keep.ALL or not is_root():
        return None
    return config.stash.setdefault(LENDER, Lender(asked.out.absolute() / sharing.STORE)).lend


def _shown(item: pytest.Item, case: Case, stage: str) -> AbstractContextManager[Observer | None]:
    """A case that is under way, where that is shown; gives what is to be told of its guest."""
    area = item.config.stash.get(AREA, None)
    return contextlib.nullcontext() if area is None else area.case(case.id, stage)


def reproduce(test: str, command: str) -> str:
    """The command that runs one test of a matrix again: no other has this name."""
    return f"{command} -k {shlex.quote(test)}"


def result_of(item: pytest.Item, proven: Proven) -> CaseResult:
    """What is kept of a boot when it is over."""
    return case_result(proven, reproduce(item.name, item.config.stash[OPTIONS].command))


def tell(item: pytest.Item, result: CaseResult) -> None:
    """Hands a result to the reports, and fails unless it is as expected."""
    item.user_properties.append((PROPERTY, typedjson.to_json(result)))
    if not result.as_expected:
        pytest.fail(failure.text(result), pytrace=False)
    asked, directory = item.config.stash[OPTIONS], Path(result.directory)
    if asked.keep is Keep.FAILED:
        rundir.drop_ram(directory)
    else:
        sharing.share(directory, asked.out.absolute() / sharing.STORE)
