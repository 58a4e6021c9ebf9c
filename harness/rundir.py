"""The run directory: one boot, all that was made for it and all that came out of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from harness.errors import UserError
from harness.process import STDERR
from harness.realise import PIECES_DIRECTORY
from harness.reproduce import SCRIPT
from loader import bootimage

CONSOLE: Final = "console.log"
TRANSCRIPT: Final = "transcript.log"
RESULT: Final = "result.json"

_ARTIFACTS: Final = (
    *(bootimage.DESCRIPTION, bootimage.RAM, SCRIPT, "stub*.bin"),
    *(CONSOLE, TRANSCRIPT, RESULT, STDERR),
)


def make_fresh(directory: Path) -> None:
    """Makes `directory`, or empties it of an earlier run.

    Raises UserError when it holds anything that no run of ours made: that is never deleted.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(directory / PIECES_DIRECTORY, ignore_errors=True)
        ours = {p for p in directory.iterdir() if any(map(p.match, _ARTIFACTS))}
        foreign = sorted(set(directory.iterdir()) - ours)
        if foreign:
            raise UserError(
                f"{directory}: holds {foreign[0].name}, which no run has made; take another one"
            )
        for path in ours:
            path.unlink()
    except OSError as error:
        raise UserError(f"{error.filename or directory}: {error.strerror}") from error


def write_result(directory: Path, result: Mapping[str, Any]) -> None:
    """Writes result.json."""
    (directory / RESULT).write_text(json.dumps(result, indent=2) + "\n")


def drop_ram(directory: Path) -> None:
    """Removes the large part of a boot image; what is left still tells everything about the run."""
    (directory / bootimage.RAM).unlink(missing_ok=True)
