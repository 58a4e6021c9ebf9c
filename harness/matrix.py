"""`bootproof matrix`: a thin front over pytest, which collects, selects and runs the cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness import case_file
from harness.case import Case
from harness.options import (
    COMMAND_OPTION,
    KEEP_OPTION,
    LINES_OPTION,
    MATRIX_COMMAND,
    OUT_OPTION,
)
from kernels import Fetcher, Kind, load_catalog

SCENARIOS: Final = Path(__file__).resolve().parent.parent / "scenarios"
_CONFIG: Final = SCENARIOS.parent / "pyproject.toml"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cases to run, and where their run directories go. `command` is how the user would
    start the same matrix again.
    """

    out: Path
    expression: str | None = None
    markers: str | None = None
    workers: str = "2"
    stop_at_first: bool = False
    only_list: bool = False
    keep: str = "all"
    command: str = MATRIX_COMMAND


def run(selection: Selection) -> int:
    """Runs the selected cases of the default matrix; gives the command's exit code."""
    if not selection.only_list:
        Fetcher().fetch(entry.name for entry in load_catalog().default())
    return _pytest(arguments(selection))


def run_cases(cases: Sequence[Case], selection: Selection) -> int:
    """Runs cases that were made by a program, in the same way; gives the command's exit code.

    They are kept in `selection.out`, as the JSON file that pytest collects. `kernel_path` must be
    absolute; `expect.why` is shown as the reason of an expectation.
    """
    path = selection.out / f"generated{case_file.SUFFIX}"
    case_file.write_cases(path, cases)
    if not selection.only_list:
        fetch_for(cases)
    return _pytest(arguments(selection, path))


def fetch_for(cases: Iterable[Case]) -> None:
    """Gets what the cases need from the catalogue, before many processes ask for it."""
    catalog = load_catalog()
    names: dict[str, None] = {}
    for case in cases:
        names[catalog.busybox(case.arch).name] = None
        source = case.kernel_source
        if source in catalog and catalog[source].kind is Kind.KERNEL:
            names[source] = None
    Fetcher().fetch(names)


def _pytest(words: list[str]) -> int:
    import pytest

    return _EXIT_CODES.get(int(pytest.main(words)), 2)


# pytest's own codes: 0 passed, 1 failed, 2 interrupted, 3 internal, 4 usage, 5 nothing selected.
_EXIT_CODES: Final = {0: 0, 1: 1, 2: 130, 3: 2, 4: 2, 5: 2}


def arguments(selection: Selection, *files: Path) -> list[str]:
    """The pytest command line for a selection of the cases in `files`, else of the default matrix.

    Nothing beside a file is read: neither a conftest.py nor pytest's own configuration.
    """
    args = [*map(str, files or [SCENARIOS]), f"--rootdir={SCENARIOS.parent}", "-c", str(_CONFIG)]
    args += ["--noconftest", "-p", "harness.plugin", "--no-header", "-q", LINES_OPTION]
    args += [f"{COMMAND_OPTION}={selection.command}"]
    args += [f"{OUT_OPTION}={selection.out}", f"{KEEP_OPTION}={selection.keep}"]
    args += ["-k", selection.expression] if selection.expression else []
    args += ["-m", selection.markers] if selection.markers else []
    args += ["-x"] if selection.stop_at_first else []
    if selection.only_list:
        return [*args, "--collect-only"]
    return [*args, "-n", selection.workers, "-p", "no:cacheprovider"]
