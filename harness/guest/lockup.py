"""Whether a kernel that says it is locked up will ever go on. Pure: console text in, an answer out.

A soft lockup or an RCU stall is told after some 20 seconds of the guest's time, and may be over a
moment later. Who is told of it again and again is not coming back: the kernel repeats a lockup
after about as long again, a stall after three times as long (kernel/watchdog.c,
kernel/rcu/tree_stall.h).
"""

from __future__ import annotations

import re
from typing import Final

from bootproof.harness.guest import kernellog

_REPORT: Final = re.compile(
    rb"^(?:"
    + kernellog.SECOND
    + rb")?(?:(?:NMI )?watchdog: (?:BUG: soft lockup |(?:CPU\d+: )?Watchdog detected hard LOCKUP )"
    + rb"|(?:rcu: )?INFO: \w{1,40} (?:self-)?detected (?:expedited )?stalls? on )",
    re.MULTILINE,
)
_LASTS: Final = 45  # seconds of the guest from the first report to one that ends the run
_FORGOTTEN: Final = 100  # seconds without a report: what was told before was over
_LONGEST: Final = 1 << 20  # bytes without an end of a line that are looked at again
_REPORTS: Final = 3  # where the kernel does not stamp its messages


class LockupReports:
    """Follows a console, and remembers what was said of lockups."""

    def __init__(self) -> None:
        self._read = 0
        self._unstamped = 0
        self._first: int | None = None
        self._last = 0

    def lasting(self, transcript: bytes | bytearray) -> bool:
        """Whether the lines that came since it was asked last say that a lockup goes on."""
        self._read = max(self._read, len(transcript) - _LONGEST)
        end = transcript.rfind(b"\n", self._read) + 1
        reports = list(_REPORT.finditer(transcript, self._read, max(end, self._read)))
        self._read = max(end, self._read)
        return any(self._goes_on(report[1]) for report in reports)

    def _goes_on(self, stamp: bytes | None) -> bool:
        if stamp is None:
            self._unstamped += 1
            return self._unstamped >= _REPORTS
        second = int(stamp)
        if self._first is None or second - self._last > _FORGOTTEN:
            self._first = second
        self._last = second
        return second - self._first >= _LASTS
