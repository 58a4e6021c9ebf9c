"""`bootproof report` and `bootproof history`: results.json files in, text and reports out."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.report import changes as rendering
from bootproof.harness.report import files, history_page
from bootproof.harness.results import changes, results
from bootproof.harness.results import history as trends
from bootproof.harness.results.results import RESULTS

_MOST_RUNS: Final = 1000


def report(runs: Sequence[Path], out: Path | None, *, merge: bool, threshold: float) -> int:
    """Compares two runs, or writes the reports of one or of several shards; the exit code.

    Raises UserError.
    """
    found = [results.read(path) for path in runs]
    if len(found) == 2 and not merge:
        different = changes.compare(found[0], found[1], threshold)
        print(rendering.render(different), end="")
        if out is not None:
            _write(found[1], out, found[0])
        return changes.exit_code(different)
    if len(found) > 2 and not merge:
        raise UserError(f"{len(found)} runs: give two to compare, or --merge for shards of one run")
    if out is None:
        raise UserError("reports are written to a directory: name it with --out")
    whole = results.merged(found, map(str, runs)) if merge else found[0]
    _write(whole, out, None)
    return 0 if whole.good else 1


def _write(found: results.Results, out: Path, baseline: results.Results | None) -> None:
    for path in files.write(found, out, baseline):
        print(path)


def history(directory: Path, out: Path | None) -> int:
    """Shows how every case changed over the results.json files below a directory; the exit code.

    Raises UserError.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: is no directory")
    paths = sorted(path for path in directory.rglob(RESULTS) if path.is_file())
    paths += sorted(path for path in directory.glob("*.json") if path.name != RESULTS)
    if len(paths) > _MOST_RUNS:
        raise UserError(f"{directory}: holds {len(paths)} runs, at most {_MOST_RUNS} are shown")
    runs = [*_runs(paths)]
    if not runs:
        raise UserError(f"{directory}: holds no {RESULTS}")
    found = trends.trends(runs)
    page = out or directory / "history.html"
    results.write_text(page, history_page.render(found))
    print(history_page.text(found), end="")
    print(page)
    return 0


def _runs(paths: Sequence[Path]) -> Iterator[results.Results]:
    """What can be read; a file of results that is damaged is refused, not left out."""
    for path in paths:
        try:
            yield results.read(path)
        except results.NoResults:
            if path.name == RESULTS:
                raise
            print(f"bootproof: {path}: left out, it is another program's file", file=sys.stderr)
