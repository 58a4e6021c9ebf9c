"""The files of a matrix run that others read, written beside the run directories."""

from __future__ import annotations

from pathlib import Path

from harness import results
from harness.results import RESULTS, Results


def write(found: Results, directory: Path) -> list[Path]:
    """Writes every report into `directory` and gives their paths. Raises UserError."""
    path = directory / RESULTS
    results.write(found, path)
    return [path]
