"""Whether to go on waiting for a QEMU that says nothing.

A host may be as slow as it likes: as long as QEMU wants to run and is given any CPU time at all,
its answer is waited for. Looks at the process only; wall time counts nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from bootproof.harness.host.process import QemuProcess
from bootproof.harness.host.turns import TURNS
from bootproof.harness.observation import End
from bootproof.harness.qemu.monitor import LOOK_SECONDS

_ANSWER_CPU_SECONDS: Final = 5.0  # of QEMU; any answer takes it milliseconds
_STOPPED_LOOKS: Final = 10  # a debugger that attaches stops a process for a moment
# QEMU 7.2 that is told to end while it carries out a command may wait for that for ever.
_ENDING_LOOKS: Final = 10


class Watchdog:
    """Waiting for one QEMU. `end` says why it was given up, None as long as it was not."""

    def __init__(
        self,
        process: QemuProcess,
        idle_seconds: float,
        told_to_end: Callable[[], bool] = lambda: False,
    ) -> None:
        """`told_to_end` says whether QEMU has announced its end: if it then sleeps, it hangs."""
        self._process = process
        self._idle_seconds = idle_seconds
        self._told_to_end = told_to_end
        self._cpu_seconds = -1.0
        self._asked_at: float | None = None
        self._moved_at = self._looked_at = TURNS.clock()
        self._stopped = 0
        self._ending = 0
        self.end: End | None = None

    def gives_up(self, waiting: bool) -> bool:
        """Looks at QEMU, if the last look is not too short ago.

        `waiting` says that an answer has been waited for since the last time it was not.
        """
        now = TURNS.clock()
        if not waiting:
            self._asked_at = None
        if self.end is None and now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self.end = self._look(now)
        return self.end is not None

    def _look(self, now: float) -> End | None:
        self._stopped = self._stopped + 1 if self._process.stopped() else 0
        if self._stopped >= _STOPPED_LOOKS:
            return End.HOST_STOPPED
        hangs = self._told_to_end() and self._process.asleep()
        self._ending = self._ending + 1 if hangs else 0
        if self._ending >= _ENDING_LOOKS:
            return End.HOST_ENDED
        used = self._process.cpu_seconds()
        if used > self._cpu_seconds:
            self._cpu_seconds, self._moved_at = used, now
        if self._asked_at is None:
            self._asked_at = used
        if used - self._asked_at > _ANSWER_CPU_SECONDS:
            return End.TOO_BUSY
        if now - self._moved_at <= self._idle_seconds:
            return None
        return End.NO_ANSWER if self._process.asleep() else End.HOST_IDLE
