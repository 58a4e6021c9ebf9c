"""Cases as pytest items: `-k`, `-n`, `-x`, `--lf` and markers work on them as on any test.

A file of cases is collected when it is named on pytest's command line. The id of an item is the
file, the claim and the case: `x86_64.toml::pvh[x86_64-6.1-cloud-amd64-elf-pvh-none]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from _pytest._code.code import TerminalRepr, TracebackStyle

from harness import case_file, ending, rundir
from harness.case import Case
from harness.errors import UserError
from harness.options import COMMAND_OPTION, KEEP_OPTION, OUT_OPTION, PROPERTY
from harness.prove import Proven, prove
from harness.report import terminal
from kernels.errors import FetchError, FetchErrors


def collector(path: Path, parent: pytest.Collector) -> pytest.File | None:
    """What collects the cases of a file named on the command line; None for other files."""
    if not parent.session.isinitpath(path):
        return None
    if path.name.endswith(case_file.SUFFIX):
        return CaseFile.from_parent(parent, path=path)
    return None


class CaseFile(pytest.File):
    """Generated cases, as JSON."""

    def collect(self) -> Iterable[CaseItem]:
        try:
            cases = case_file.read_cases(self.path)
        except UserError as error:
            raise self.CollectError(str(error)) from error
        for case in cases:
            yield CaseItem.from_parent(self, name=f"case[{case.id}]", case=case)


class CaseItem(pytest.Item):
    """One case: passes when it ends exactly as it expects."""

    def __init__(self, *, case: Case, **others: object) -> None:
        super().__init__(**others)  # type: ignore[arg-type]
        self.case = case

    def runtest(self) -> None:
        prove_case(self, self.case)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: TracebackStyle | None = None
    ) -> str | TerminalRepr:
        """One line, not a traceback, for what is the environment's fault."""
        if isinstance(excinfo.value, UserError | FetchError | FetchErrors):
            return f"{self.case.id}: {excinfo.value}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


def prove_case(item: pytest.Item, case: Case) -> Proven:
    """Boots a case, hands the result to the reports, and fails unless it is as expected."""
    if hasattr(item.config, "workerinput"):
        ending.become_worker()
    out: Path = item.config.getoption(OUT_OPTION)
    proven = prove(case, out.absolute() / case.id)
    problem = terminal.problem(case, proven)
    row = terminal.row(case, proven, problem)
    item.user_properties.append((PROPERTY, row.to_json()))
    if problem is not None:
        command: str = item.config.getoption(COMMAND_OPTION)
        pytest.fail(terminal.failure(case, proven, problem, command), pytrace=False)
    if item.config.getoption(KEEP_OPTION) == "failed":
        rundir.drop_ram(proven.directory)
    return proven
