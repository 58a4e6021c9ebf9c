"""The files of a matrix run that others read, written beside the run directories."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.host.files import disk_errors
from bootproof.harness.report import junit, page, step_summary
from bootproof.harness.results import changes, results
from bootproof.harness.results.changes import Change
from bootproof.harness.results.results import RESULTS, Results

PAGE: Final = "report.html"
JUNIT: Final = "junit.xml"
NAMES: Final = (PAGE, JUNIT, RESULTS)
STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"  # names a file that a job may append to


def write(
    run: Results,
    directory: Path,
    baseline: Results | None = None,
    compared: Sequence[Change] = (),
) -> list[Path]:
    """Writes every report into `directory` and gives their paths. Raises UserError.

    `compared` is what became of the run's cases since `baseline`. The results themselves hold
    nothing of it: they are the run as it was.
    """
    shown = changes.judged(run, compared)
    texts = {PAGE: page.render(shown, baseline), JUNIT: junit.render(shown)}
    results.write(run, directory / RESULTS)
    for name, text in texts.items():
        results.write_text(directory / name, text)
    summary = os.environ.get(STEP_SUMMARY)
    if summary:
        with disk_errors(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
            file.write(step_summary.render(shown))
    return [directory / name for name in NAMES]
