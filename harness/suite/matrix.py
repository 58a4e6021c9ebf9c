"""`bootproof matrix`: a thin front over pytest, which collects, selects and runs the cases."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bootproof.dataclass import dataclass
from bootproof.harness import exitcode, places
from bootproof.harness.case import Case
from bootproof.harness.cases import case_file, qemus, schema, select
from bootproof.harness.cases.scenarios import SUFFIX, read_scenarios
from bootproof.harness.errors import UserError
from bootproof.harness.results import results
from bootproof.harness.suite import out
from bootproof.harness.suite.options import EXIT_CODE, MatrixOptions
from bootproof.kernels import scratch, sources
from bootproof.kernels.catalog import load_catalog
from bootproof.kernels.fetch import Fetcher
from bootproof.printable import one_line

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
    cases = [*claimed]
    qemus.axis(cases, selection.options.qemu)
    with _begun(selection) as begun:
        if not begun.options.list_only:
            if not begun.scenarios:
                Fetcher().fetch(entry.name for entry in load_catalog().default())
            fetch_for(filter(select.filter_for(begun.options.only), cases))
        return _pytest(arguments(begun, *begun.scenarios), begun)


def run_cases(cases: Sequence[Case], selection: Selection) -> int:
    """Runs cases that were made by a program, in the same way; gives the command's exit code.

    They are kept in `options.out`, as the JSON file that pytest collects. `kernel_path` must be
    absolute; `expect.why` is shown as the reason of an expectation.
    """
    _check(selection, selection.options.out)
    qemus.axis(cases, selection.options.qemu)
    with _begun(selection) as begun, scratch.directory() as nowhere:
        place = nowhere if begun.options.list_only else begun.options.out
        path = place / f"generated{case_file.SUFFIX}"
        case_file.write_cases(path, cases)
        if not begun.options.list_only:
            fetch_for(cases)
        return _pytest(arguments(begun, path), begun)


@contextlib.contextmanager
def _begun(selection: Selection) -> Iterator[Selection]:
    """The directory of the run is its own in here, and has no results of another one."""
    if selection.options.list_only:
        yield selection
        return
    with out.begun(selection.options) as options:
        yield replace(selection, options=options)


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


@contextlib.contextmanager
def only_our_environment() -> Iterator[None]:
    """What the user's environment says to pytest has no say in a matrix."""
    users = {name: value for name, value in os.environ.items() if name.startswith(PYTESTS)}
    for name in users:
        del os.environ[name]
    os.environ[_NO_OTHER_PLUGINS] = "1"
    try:
        yield
    finally:
        del os.environ[_NO_OTHER_PLUGINS]
        os.environ.update(users)


PYTESTS: Final = "PYTEST_"
"""How the variables begin that pytest obeys."""
_NO_OTHER_PLUGINS: Final = "PYTEST_DISABLE_PLUGIN_AUTOLOAD"


def _nothing_by(selection: Selection) -> str:
    """That no case is left, and by which of the user's words."""
    expression = selection.expression
    by = [] if expression is None else [f"-k {one_line(shlex.quote(expression))}"]
    filters = (one_line(word).partition("=") for word in selection.options.only)
    by += [f"{schema.FILTERS.get(key, key)} {value}" for key, _, value in filters]
    by += ["--lf (nothing of it failed the last time)"] if selection.last_failed else []
    which = f" by {' and '.join(by)}" if by else ""
    return f"no case is selected{which}; `bootproof matrix --list` shows what there is"


class _Ending:
    """How a session ended: pytest has one code for all that failed, and none of ours, and a word of
    its own before what is wrong with a user's words.
    """

    code: int | None = None
    wrong: str | None = None
    interrupted = False

    @pytest.hookimpl(wrapper=True)
    def pytest_cmdline_main(self) -> Generator[None, object, object]:
        try:
            return (yield)
        except pytest.UsageError as error:
            self.wrong = " ".join(map(str, error.args))
            return pytest.ExitCode.USAGE_ERROR

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """By its user, before it was under way: pytest says so of what it cannot collect, too."""
        self.interrupted = excinfo.type is KeyboardInterrupt

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        self.code = config.stash.get(EXIT_CODE, None)


def _pytest(words: list[str], selection: Selection) -> int:
    """The exit code. Raises UserError for words that are wrong, and when no case is selected."""
    ending = _Ending()
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_our_environment())
        if selection.options.ktap:  # which then has stdout for itself
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        code = int(pytest.main(words, plugins=[ending]))
    if ending.wrong is not None:
        raise UserError(ending.wrong)
    if ending.interrupted or ending.code == exitcode.INTERRUPTED:
        return exitcode.INTERRUPTED
    if code == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UserError(_nothing_by(selection))
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return exitcode.USAGE
    return code if ending.code is None else ending.code


def arguments(selection: Selection, *files: Path) -> list[str]:
    """The pytest command line for a selection of the cases in `files`, else of the default matrix.

    Nothing beside a file is read: neither a conftest.py nor pytest's own configuration.
    """
    args = [*map(str, files or [SCENARIOS]), f"--rootdir={SCENARIOS.parent}", "-c", str(_CONFIG)]
    args += ["--noconftest", "-p", places.PLUGIN, "--no-header", "-q", "--color=no"]
    options = selection.options
    # bootproof.harness.suite.session tells what failed, and how many passed; a list, of nothing.
    args += ["--tb=no", "-rN", "-q"]
    args += replace(options, lines=not options.list_only).words()
    args += ["-k", selection.expression] if selection.expression else []
    args += ["-m", selection.markers] if selection.markers else []
    args += ["-x"] if selection.stop_at_first else []
    args += ["--last-failed", "--last-failed-no-failures=none"] if selection.last_failed else []
    if options.list_only and not selection.last_failed:
        return [*args, "-p", "no:cacheprovider"]  # which would leave something
    args += ["-o", f"cache_dir={options.out / '.pytest_cache'}"]
    return args
