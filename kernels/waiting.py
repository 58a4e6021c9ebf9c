"""Waiting for others, which ends when whoever waits is to end.

A thread hears of no signal, and one that waits inside of the system does not hear of its
interruption either. Knows nothing of who is to end, or why.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from typing import Final

LOOK_SECONDS: Final = 0.05  # between two looks

_hopeless: list[Callable[[], bool]] = []


def give_up_when(hopeless: Callable[[], bool]) -> None:
    """From now on, waiting is given up when `hopeless` says so."""
    _hopeless.append(hopeless)


def look() -> None:
    """Raises KeyboardInterrupt when waiting is to be given up."""
    if any(hopeless() for hopeless in _hopeless):
        raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Lets time pass. Raises KeyboardInterrupt when given up."""
    until = time.monotonic() + seconds
    look()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
        look()


def for_lock(descriptor: int) -> None:
    """Waits until a file can be locked, by nobody else. Raises OSError, and KeyboardInterrupt when
    given up: flock(2) would be woken, but by nothing else.
    """
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause(LOOK_SECONDS)
        else:
            return
