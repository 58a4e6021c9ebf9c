"""Becomes the program it is told to, with limits that hold before that program's first instruction.

    python -I confined.py PARENT BYTES PROGRAM ARGUMENTS…

Run as a script in a process of its own, by harness.process only. The process dies with the thread
that started it (PARENT is the process it belongs to), writes no file longer than BYTES and leaves
no core dump. Knows nothing of QEMU; imports nothing of ours, so that it starts quickly.

Sources: prctl(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    parent, most_bytes, *command = arguments
    die_with(int(parent))
    limit(resource.RLIMIT_FSIZE, int(most_bytes))
    limit(resource.RLIMIT_CORE, 0)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec keeps that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


def limit(kind: int, most: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(kind, (most, most))


def die_with(parent: int) -> None:
    """Has this process killed when the thread that started it ends; at once when it has already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
