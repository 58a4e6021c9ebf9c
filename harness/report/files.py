"""The files of a matrix run that others read, written beside the run directories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from bootproof.harness.host.files import disk_errors
from bootproof.harness.report import junit, page, step_summary
from bootproof.harness.results import results
from bootproof.harness.results.results import RESULTS, Results

PAGE: Final = "report.html"
JUNIT: Final = "junit.xml"
STEP_SUMMARY: Final = "GITHUB_STEP_SUMMARY"  # names a file that a job may append to


def write(found: Results, directory: Path, baseline: Results | None = None) -> list[Path]:
    """Writes every report into `directory` and gives their paths. Raises UserError."""
    made = {PAGE: page.render(found, baseline), JUNIT: junit.render(found)}
    results.write(found, directory / RESULTS)
    for name, text in made.items():
        results.write_text(directory / name, text)
    summary = os.environ.get(STEP_SUMMARY)
    if summary:
        with disk_errors(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
            file.write(step_summary.render(found))
    return [directory / name for name in (PAGE, JUNIT, RESULTS)]
