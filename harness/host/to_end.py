"""Programs that are asked something, and end by themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from bootproof.kernels import waiting


def run_to_end(words: Sequence[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    """What a program says that ends by itself. Raises OSError when it cannot be started,
    TimeoutError when it has not ended after so many seconds, and KeyboardInterrupt when all that
    runs is being ended; it is ended then, with all that it has started.
    """
    until = time.monotonic() + seconds
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    ) as process:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    out, err = process.communicate(timeout=waiting.LOOK_SECONDS)
                    return subprocess.CompletedProcess(words, process.returncode, out, err)
                waiting.look()
                if time.monotonic() > until:
                    raise TimeoutError(f"has not ended after {seconds:.0f} s")
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
