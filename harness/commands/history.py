"""`bootproof history`: how every case changed over the results.json files below a directory."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named
from bootproof.harness.errors import UserError
from bootproof.harness.exitcode import OK
from bootproof.harness.host.stdout import say
from bootproof.printable import safe

if TYPE_CHECKING:
    from bootproof.harness.results.results import Results

_MOST_RUNS: Final = 1000
_MOST_FILES: Final = 1_000_000  # a run with its run directories has some thousands


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory", metavar="DIR", type=named, help="holds results.json files at any depth"
    )
    parser.add_argument(
        "--out", type=named, metavar="FILE", help="the page (default: DIR/history.html)"
    )


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.harness.host.files import write_given
    from bootproof.harness.report import history_page
    from bootproof.harness.report.files import OURS_PAGE
    from bootproof.harness.results import history, results

    directory = arguments.directory
    paths = [*_paths(directory)]
    if len(paths) > _MOST_RUNS:
        raise UserError(f"{directory}: holds {len(paths)} runs, at most {_MOST_RUNS} are shown")
    runs = [*_read(paths)]
    if not runs:
        raise UserError(f"{directory}: holds no {results.RESULTS}")
    trends = history.trends(runs)
    page = arguments.out or directory / "history.html"
    write_given(page, history_page.render(trends).encode(), OURS_PAGE)
    print(history_page.text(trends), end="")
    print(safe(str(page)))
    return OK


def _paths(directory: Path) -> Iterator[Path]:
    """The files that may hold a run's results: those of that name, then others right here."""
    from bootproof.harness.cases import case_file
    from bootproof.harness.host.files import files_below
    from bootproof.harness.results import results

    others: list[Path] = []
    found: list[Path] = []
    for where, _, names in files_below(directory, _MOST_FILES):
        found += [where / name for name in names if name == results.RESULTS]
        if where == directory:
            others = [where / name for name in names if name.endswith(".json")]
    yield from sorted(path for path in found if path.is_file())
    for path in sorted(others):
        if path.name != results.RESULTS and not path.name.endswith(case_file.SUFFIX):
            yield path


def _read(paths: Sequence[Path]) -> Iterator[Results]:
    """What can be read; a file of results that is damaged is refused, not left out."""
    from bootproof.harness.results import results

    for path in paths:
        try:
            yield results.read(path)
        except results.NoResults:
            if path.name == results.RESULTS:
                raise
            say(f"{path}: left out, it is another program's file")


COMMAND: Final = Command(
    "how the cases changed over many runs", "history nightly-results/", _run, _add_options
)
