"""`bootproof matrix`: a thin front over pytest, which collects, selects and runs the cases."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bootproof.harness import places
from bootproof.harness.case import Case
from bootproof.harness.cases import case_file, qemus, select
from bootproof.harness.cases.scenarios import SUFFIX, read_scenarios
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import disk_errors
from bootproof.harness.results import results
from bootproof.harness.suite.options import MatrixOptions
from bootproof.kernels import Fetcher, load_catalog, sources

SCENARIOS: Final = places.PACKAGES / "scenarios"
_CONFIG: Final = SCENARIOS / "matrix.ini"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cases run, in words that pytest has for that, and all that the session is told."""

    options: MatrixOptions
    # The user's files, in place of the default matrix.
    scenarios: tuple[Path, ...] = ()
    # Part of ids, as pytest's -k takes it.
    expression: str | None = None
    # The same of -m.
    markers: str | None = None
    # Whether the first case that is not as expected is the last one.
    stop_at_first: bool = False
    # Whether only what failed the last time runs.
    last_failed: bool = False


def run(selection: Selection) -> int:
    """Runs the selected cases of the user's files, or of the default matrix; gives the exit code.

    Raises UserError for a file, a filter or a shard that is wrong, before anything runs.
    """
    _check(selection, *selection.scenarios)
    files = selection.scenarios or sorted(SCENARIOS.glob(f"*{SUFFIX}"))
    claimed = (each.case for path in files for each in read_scenarios(path))
    cases = [*filter(select.filter_for(selection.options.only), claimed)]
    if not selection.options.list_only:
        _check_out(selection.options.out)
        qemus.check(cases, selection.options.qemu)
        if not selection.scenarios:
            Fetcher().fetch(entry.name for entry in load_catalog().default())
        fetch_for(cases)
    return _pytest(arguments(selection, *selection.scenarios), ktap=selection.options.ktap)


def run_cases(cases: Sequence[Case], selection: Selection) -> int:
    """Runs cases that were made by a program, in the same way; gives the command's exit code.

    They are kept in `options.out`, as the JSON file that pytest collects. `kernel_path` must be
    absolute; `expect.why` is shown as the reason of an expectation.
    """
    path = selection.options.out / f"generated{case_file.SUFFIX}"
    _check(selection, path)
    case_file.write_cases(path, cases)
    if not selection.options.list_only:
        _check_out(selection.options.out)
        fetch_for(cases)
    return _pytest(arguments(selection, path), ktap=selection.options.ktap)


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
    options = selection.options
    if options.baseline is not None:
        results.read(options.baseline)
    select.filter_for(options.only)
    qemus.paths(options.qemu)
    if options.costs is not None:
        select.read_costs(options.costs)


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
    options = selection.options
    args += replace(options, lines=not options.list_only).words()
    args += ["-q"] if options.list_only else []
    args += ["-k", selection.expression] if selection.expression else []
    args += ["-m", selection.markers] if selection.markers else []
    args += ["-x"] if selection.stop_at_first else []
    args += ["--last-failed", "--last-failed-no-failures=none"] if selection.last_failed else []
    args += ["-o", f"cache_dir={options.out / '.pytest_cache'}"]
    return args
