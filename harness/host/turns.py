"""How many guests of this process run at once, and whose turn is next.

A matrix has more cases under way than guests: what one has to do before its QEMU and after it does
not leave a CPU idle. Without a limit nobody waits. To wait for one's turn is no cost of one's own:
`clock` leaves it out.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final


class Turns:
    """The turns of the threads of one process.

    A thread that has a turn may start more than one QEMU: waiting for itself would never end.
    """

    def __init__(self) -> None:
        self._most: int | None = None
        self._taken = 0
        self._waiting = 0  # of those that do not come last
        self._changed = threading.Condition()
        self._mine = _OfThread()

    @contextlib.contextmanager
    def at_most(self, count: int) -> Iterator[None]:
        """Lets no more than `count` threads have a turn at once."""
        self._most = count
        try:
            yield
        finally:
            self._most = None
            self.wake()

    def come_last(self) -> None:
        """From now on this thread gets a turn only when none of the others waits for one."""
        self._mine.last = True

    def take(self, hopeless: Callable[[], bool]) -> None:
        """Waits for this thread's turn. Raises KeyboardInterrupt when `hopeless` says so."""
        if self._mine.qemus == 0:
            began = time.monotonic()
            with self._changed:
                self._wait(hopeless)
                self._taken += 1
            self._mine.waited += time.monotonic() - began
        self._mine.qemus += 1

    def _wait(self, hopeless: Callable[[], bool]) -> None:
        first = not self._mine.last
        self._waiting += first
        try:
            self._changed.wait_for(lambda: hopeless() or self._free(first))
        finally:
            self._waiting -= first
            self._changed.notify_all()
        if hopeless():
            raise KeyboardInterrupt

    def _free(self, first: bool) -> bool:
        if self._most is None:
            return True
        return self._taken < self._most and (first or not self._waiting)

    def give_back(self) -> None:
        """Ends what `take` began, in the same thread."""
        self._mine.qemus -= 1
        if self._mine.qemus == 0:
            with self._changed:
                self._taken -= 1
                self._changed.notify_all()

    def wake(self) -> None:
        """Has everyone who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def clock(self) -> float:
        """Seconds of wall time, as time.monotonic, without those that this thread has waited."""
        return time.monotonic() - self._mine.waited


class _OfThread(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.qemus = 0
        self.waited = 0.0
        self.last = False


TURNS: Final = Turns()
