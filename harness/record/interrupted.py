"""The result of a run that its user ended: not a word on the guest, only how far it was.

Owns what result.json says then; the interruption itself goes on to whoever handles it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bootproof.harness.host import signals
from bootproof.harness.host.files import open_regular
from bootproof.harness.host.rundir import CONSOLE, write_result
from bootproof.harness.text import last_line, quoted
from bootproof.harness.verdict import Verdict

_TAIL: Final = 4096


@contextlib.contextmanager
def noted(directory: Path, about: Mapping[str, Any]) -> Iterator[None]:
    """Writes result.json, `about` first, when what is done inside is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        last = last_line(_console(directory))
        where = f"after {quoted(last)}" if last else "before any console output"
        reason = f"ended by {signals.signal_name()} {where}"
        verdict = {"verdict": Verdict.INTERRUPTED.value, "reason": reason, "code": None}
        write_result(directory, {**about, **verdict, "console": CONSOLE})
        raise


def _console(directory: Path) -> bytes:
    """The end of the console file: of a regular file of that very name."""
    try:
        with open_regular(directory / CONSOLE) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read()
    except OSError:  # QEMU was not started yet
        return b""
