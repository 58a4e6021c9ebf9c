"""`bootproof matrix`: a thin front over pytest, which collects, selects and runs the cases."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kernels import Fetcher, load_catalog

OUT_OPTION: Final = "--bootproof-out"
KEEP_OPTION: Final = "--bootproof-keep"
LINES_OPTION: Final = "--bootproof-lines"
SCENARIOS: Final = Path(__file__).resolve().parent.parent / "scenarios"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which cases to run, and where their run directories go."""

    out: Path
    expression: str | None = None
    markers: str | None = None
    workers: str = "2"
    stop_at_first: bool = False
    only_list: bool = False
    keep: str = "all"


def run(selection: Selection) -> int:
    """Runs the selected cases; the exit code is 0, 1, 2 or 130 as documented for the command."""
    import pytest

    if not selection.only_list:
        Fetcher().fetch(entry.name for entry in load_catalog().default())
    code = pytest.main(arguments(selection))
    return _EXIT_CODES.get(int(code), 2)


# pytest's own codes: 0 passed, 1 failed, 2 interrupted, 3 internal, 4 usage, 5 nothing selected.
_EXIT_CODES: Final = {0: 0, 1: 1, 2: 130, 3: 2, 4: 2, 5: 2}


def arguments(selection: Selection) -> list[str]:
    """The pytest command line for a selection."""
    args = [str(SCENARIOS), f"--rootdir={SCENARIOS.parent}", "--no-header", "-q", LINES_OPTION]
    args += [f"{OUT_OPTION}={selection.out}", f"{KEEP_OPTION}={selection.keep}"]
    args += ["-k", selection.expression] if selection.expression else []
    args += ["-m", selection.markers] if selection.markers else []
    args += ["-x"] if selection.stop_at_first else []
    if selection.only_list:
        return [*args, "--collect-only"]
    return [*args, "-n", selection.workers, "-p", "no:cacheprovider"]
