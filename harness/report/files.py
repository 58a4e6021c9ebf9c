"""The files of a matrix run that others read, written beside the run directories."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.host.files import Ours, refuse_foreign, write_through
from bootproof.harness.report import junit, page, step_summary
from bootproof.harness.results import changes, results
from bootproof.harness.results.changes import Change
from bootproof.harness.results.results import RESULTS, Results

PAGE: Final = "report.html"
JUNIT: Final = "junit.xml"
OURS_PAGE: Final = re.compile(rb" \xc2\xb7 bootproof</title>").search
_OURS: Final[Mapping[str, Ours]] = {
    PAGE: OURS_PAGE,
    JUNIT: re.compile(rb"<testsuites [^>]*\bname=\"bootproof\"").search,
    RESULTS: results.OURS,
}
NAMES: Final = tuple(_OURS)
STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"  # names a file that a job may append to


def refuse_others(directory: Path) -> None:
    """Raises UserError when a report would replace another program's file."""
    for name, ours in _OURS.items():
        refuse_foreign(directory / name, ours)


def write(
    run: Results,
    directory: Path,
    baseline: Results | None = None,
    compared: Sequence[Change] = (),
) -> list[Path]:
    """Writes every report into `directory` and gives their paths.

    Raises UserError, and has written nothing where it would replace another program's file.

    `compared` is what became of the run's cases since `baseline`. The results themselves hold
    nothing of it: they are the run as it was.
    """
    refuse_others(directory)
    shown = changes.judged(run, compared)
    results.write(run, directory / RESULTS)
    texts = {PAGE: page.parts(shown, baseline), JUNIT: junit.parts(shown)}
    for name, text in texts.items():
        results.write_text(directory / name, text, _OURS[name])
    summary = os.environ.get(STEP_SUMMARY)
    if summary:
        try:
            write_through(Path(summary), step_summary.render(shown).encode(), append=True)
        except OSError as error:
            raise UserError(f"{summary}: {error.strerror} ({STEP_SUMMARY})") from error
    return [directory / name for name in NAMES]
