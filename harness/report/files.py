"""The files of a matrix run that others read, written beside the run directories."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness import results
from harness.report import page
from harness.results import RESULTS, Results

PAGE: Final = "report.html"


def write(found: Results, directory: Path, baseline: Results | None = None) -> list[Path]:
    """Writes every report into `directory` and gives their paths. Raises UserError."""
    paths = [directory / name for name in (RESULTS, PAGE)]
    results.write(found, paths[0])
    results.write_text(paths[1], page.render(found, baseline))
    return paths
