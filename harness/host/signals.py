"""How a process of ours ends when it is told to: once, cleaned up, and with everything below it.

Owns the signals. The first SIGINT, SIGTERM or SIGHUP becomes a KeyboardInterrupt, so that every
`with` ends what it began; later ones are ignored, since they could only keep that from being done,
and it takes a few seconds at most. What SIGKILL leaves is the kernel's part: see
bootproof.harness.host.confined.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received: list[int] = []
_held: list[None] = []
_put_off: list[None] = []
_worker_of: list[int] = []


def obey_signals() -> Mapping[signal.Signals, Any]:
    """To be called from the main thread; gives what was done on them before.

    A signal that is ignored already stays so (nohup). Inside of what obeys them already, nothing
    is forgotten of what that has to hear of.
    """
    if not obeyed():
        _received.clear()
        _put_off.clear()
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    return before


def obeyed() -> bool:
    """Whether we are inside of something that obeys signals: a scenario calls commands."""
    return any(signal.getsignal(number) is _interrupt for number in _SIGNALS)


def tell_again() -> None:
    """Raises KeyboardInterrupt if a signal has come: what is around a part is to end as well."""
    if _received:
        raise KeyboardInterrupt


def obey_no_more(before: Mapping[signal.Signals, Any]) -> None:
    """Puts back what was done on signals; after one of them, nothing is done until the end."""
    if not _received:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    _received.append(number)
    if not _held:
        raise KeyboardInterrupt
    _put_off.append(None)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Puts an interruption off to the end of the block: for what breaks when it comes anywhere."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    _held.append(None)
    try:
        yield
    finally:
        _held.pop()
        if _put_off and not _held:
            _put_off.clear()
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
    from bootproof.harness.host import confined  # brings ctypes in

    if not _worker_of:
        _worker_of.append(os.getppid())
        obey_signals()
        confined.die_with(os.getppid())
