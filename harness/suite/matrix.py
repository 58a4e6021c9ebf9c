"""`bootproof matrix`: a thin front over pytest, which collects, selects and runs the cases."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootproof.harness import places
from bootproof.harness.case import Case
from bootproof.harness.cases import case_file, qemus, select, shard
from bootproof.harness.cases.scenarios import SUFFIX, read_scenarios
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import disk_errors
from bootproof.harness.results import results
from bootproof.harness.results.changes import THRESHOLD
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
    SHARD_OPTION,
    THRESHOLD_OPTION,
)
from bootproof.kernels import Fetcher, load_catalog, sources

SCENARIOS: Final = places.PACKAGES / "scenarios"
_CONFIG: Final = SCENARIOS / "matrix.ini"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cases to run, and where their run directories go.

    `scenarios` are the user's files, in place of the default matrix. `only` are filters KEY=VALUE,
    `qemus` are NAME=PATH. `baseline` is an earlier results.json, `threshold` the part by which an
    instruction count may differ from it. `shard` is written 1/4; `costs` is a results.json to
    balance shards by.
    `command` is how the user would start the same matrix again.
    """

    out: Path
    scenarios: tuple[Path, ...] = ()
    expression: str | None = None
    markers: str | None = None
    only: tuple[str, ...] = ()
    shard: str | None = None
    costs: Path | None = None
    qemus: tuple[str, ...] = ()
    jobs: int = 2
    stop_at_first: bool = False
    only_list: bool = False
    last_failed: bool = False
    keep: str = "all"
    quiet: bool = False
    ktap: bool = False
    baseline: Path | None = None
    threshold: float = THRESHOLD
    command: str = MATRIX_COMMAND


def run(selection: Selection) -> int:
    """Runs the selected cases of the user's files, or of the default matrix; gives the exit code.

    Raises UserError for a file, a filter or a shard that is wrong, before anything runs.
    """
    _check(selection, *selection.scenarios)
    files = selection.scenarios or sorted(SCENARIOS.glob(f"*{SUFFIX}"))
    claimed = (found.case for path in files for found in read_scenarios(path))
    cases = [*filter(select.filter_for(selection.only), claimed)]
    if not selection.only_list:
        _check_out(selection.out)
        qemus.check(cases, selection.qemus)
        if not selection.scenarios:
            Fetcher().fetch(entry.name for entry in load_catalog().default())
        fetch_for(cases)
    return _pytest(arguments(selection, *selection.scenarios), ktap=selection.ktap)


def run_cases(cases: Sequence[Case], selection: Selection) -> int:
    """Runs cases that were made by a program, in the same way; gives the command's exit code.

    They are kept in `selection.out`, as the JSON file that pytest collects. `kernel_path` must be
    absolute; `expect.why` is shown as the reason of an expectation.
    """
    path = selection.out / f"generated{case_file.SUFFIX}"
    _check(selection, path)
    case_file.write_cases(path, cases)
    if not selection.only_list:
        _check_out(selection.out)
        fetch_for(cases)
    return _pytest(arguments(selection, path), ktap=selection.ktap)


def fetch_for(cases: Iterable[Case]) -> None:
    """Gets what the cases need from the catalogue, before many processes ask for it."""
    catalog = load_catalog()
    names: dict[str, None] = {}
    urls: dict[str, None] = {}
    for case in cases:
        names[catalog.busybox(case.arch).name] = None
        if case.kernel_path is None and case.kernel in catalog:
            names[case.kernel] = None
        elif sources.name_of_url(case.kernel_source):
            urls[case.kernel_source] = None
    Fetcher().fetch(names)
    for url in urls:
        sources.find(url)


def _check(selection: Selection, *files: Path) -> None:
    for path in files:
        if "[" in str(path) or "::" in str(path):
            raise UserError(f"{path}: a path with '[' or '::' means something else to pytest")
    if selection.baseline is not None:
        results.read(selection.baseline)
    select.filter_for(selection.only)
    qemus.paths(selection.qemus)
    if selection.shard is not None:
        try:
            shard.parse(selection.shard)
        except ValueError as error:
            raise UserError(f"{error} (--shard)") from error
    if selection.costs is not None:
        select.read_costs(selection.costs)


def _check_out(out: Path) -> None:
    """Raises UserError when nothing can be written there: said once, and before anything runs."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is no directory (--out)")
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()


class _Interruption:
    """pytest has one code for an interruption and for a file that could not be collected."""

    seen = False

    def pytest_keyboard_interrupt(self) -> None:
        self.seen = True


def _pytest(words: list[str], *, ktap: bool = False) -> int:
    """The exit code. Raises UserError when no case is selected."""
    import pytest

    interruption = _Interruption()
    with contextlib.ExitStack() as stack:
        if ktap:  # which then has stdout for itself
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        code = int(pytest.main(words, plugins=[interruption]))
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UserError("no case is selected; `bootproof matrix --list` shows what there is")
    return 130 if interruption.seen else _EXIT_CODES.get(code, 2)


# pytest's own codes: 0 passed, 1 failed, 2 interrupted or not collected, 3 internal, 4 usage.
_EXIT_CODES: Final = {0: 0, 1: 1}


def arguments(selection: Selection, *files: Path) -> list[str]:
    """The pytest command line for a selection of the cases in `files`, else of the default matrix.

    Nothing beside a file is read: neither a conftest.py nor pytest's own configuration.
    """
    args = [*map(str, files or [SCENARIOS]), f"--rootdir={SCENARIOS.parent}", "-c", str(_CONFIG)]
    args += ["--noconftest", "-p", places.PLUGIN, "--no-header", "-q"]
    args += ["--tb=no", "-rN"]  # bootproof.harness.suite.session tells what failed
    args += [f"{OUT_OPTION}={selection.out}", f"{KEEP_OPTION}={selection.keep}"]
    args += [f"{COMMAND_OPTION}={selection.command}"]
    args += [f"{ONLY_OPTION}={word}" for word in selection.only]
    args += [f"{QEMU_OPTION}={word}" for word in selection.qemus]
    args += [f"{SHARD_OPTION}={selection.shard}"] if selection.shard else []
    args += [f"{COSTS_OPTION}={selection.costs}"] if selection.costs else []
    args += [QUIET_OPTION] if selection.quiet else []
    args += [KTAP_OPTION] if selection.ktap else []
    args += [f"{THRESHOLD_OPTION}={selection.threshold!r}"]
    args += [f"{BASELINE_OPTION}={selection.baseline}"] if selection.baseline else []
    args += ["-k", selection.expression] if selection.expression else []
    args += ["-m", selection.markers] if selection.markers else []
    args += ["-x"] if selection.stop_at_first else []
    args += ["--last-failed", "--last-failed-no-failures=none"] if selection.last_failed else []
    args += ["-o", f"cache_dir={selection.out / '.pytest_cache'}"]
    if selection.only_list:
        return [*args, "-q", LIST_OPTION]
    return [*args, LINES_OPTION, f"{JOBS_OPTION}={selection.jobs}"]
