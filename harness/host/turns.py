"""How many QEMUs of this process run at once, and whose turn is next.

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

    The main thread gets the next one: until its test has ended, nobody hears of other results. A
    thread that has a turn may start more than one QEMU: waiting for itself would never end.
    """

    def __init__(self) -> None:
        self._most: int | None = None
        self._taken = 0
        self._main_waits = False
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
        main = threading.current_thread() is threading.main_thread()
        self._main_waits = self._main_waits or main
        try:
            self._changed.wait_for(lambda: hopeless() or self._free(main))
        finally:
            if main:
                self._main_waits = False
                self._changed.notify_all()
        if hopeless():
            raise KeyboardInterrupt

    def _free(self, main: bool) -> bool:
        if self._most is None:
            return True
        return self._taken < self._most and (main or not self._main_waits)

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


TURNS: Final = Turns()
