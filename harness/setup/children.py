"""Programs that the set-up runs, and what becomes of them when the set-up is told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from bootproof.harness.host import signals
from bootproof.harness.host.stdout import say


def run(
    command: Sequence[str | Path],
    *,
    stdout: int | IO[str] = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    inherits: Sequence[int] = (),
    to_its_end: bool = False,
) -> bool:
    """Runs a program and says whether it succeeded; `inherits` are file descriptors it keeps open.

    It has a process group of its own, so that a signal to us ends it at once, with all that it has
    started; with `to_its_end` it waits for its end instead. Raises KeyboardInterrupt afterwards,
    and OSError when the program cannot be started.
    """
    child = None
    try:
        with signals.held():
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                env={**os.environ, **(environment or {})},
                pass_fds=inherits,
                process_group=0,
            )
        return child.wait() == 0
    except KeyboardInterrupt:
        if child and to_its_end:
            say("ending as soon as dpkg is done")
        elif child:
            with contextlib.suppress(OSError):  # gone already, or another user's
                os.killpg(child.pid, signal.SIGTERM)
        if child:
            child.wait()
        raise
