"""How a process of ours ends when it is told to: once, cleaned up, and with everything below it.

Owns the signals. The first SIGINT, SIGTERM or SIGHUP becomes a KeyboardInterrupt, so that every
`with` ends what it began; later ones are ignored, since they could only keep that from being done,
and it takes a few seconds at most. What SIGKILL leaves is the kernel's part: see
harness.host.confined.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any, Final

from harness.host import confined

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []
_worker_of: list[int] = []


def obey_signals() -> Mapping[signal.Signals, Any]:
    """To be called from the main thread; gives what was done on them before.

    A signal that is ignored already stays so (nohup).
    """
    _received.clear()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    return before


def obey_no_more(before: Mapping[signal.Signals, Any]) -> None:
    """Puts back what was done on signals; after one of them, nothing is done until the end."""
    if not _received:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    _received.append(number)
    raise KeyboardInterrupt


def exit_code(interrupted: int) -> int:
    """The exit code after an interruption: `interrupted`, or what a shell says of the signal."""
    number = _received[0] if _received else signal.SIGINT
    return interrupted if number == signal.SIGINT else 128 + number


def signal_name() -> str:
    """The signal that interrupted us."""
    return signal.Signals(_received[0] if _received else signal.SIGINT).name


def become_worker() -> None:
    """Makes a worker of pytest-xdist obey signals once, and die with the pytest it works for.

    Of itself it would wait for seconds after that was killed.
    """
    if not _worker_of:
        _worker_of.append(os.getppid())
        obey_signals()
        confined.die_with(os.getppid())
