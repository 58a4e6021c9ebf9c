"""Which lockups end a run: those that the kernel reports again after a long time of the guest."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from bootproof.harness.guest.lockup import LockupReports

SOFT = "watchdog: BUG: soft lockup - CPU#0 stuck for {}s! [swapper/0:1]"
STALL = "rcu: INFO: rcu_sched self-detected stall on CPU"
HARD = "NMI watchdog: Watchdog detected hard LOCKUP on cpu 0"


def report(second: int, text: str = SOFT) -> bytes:
    return f"[{second:5}.000001] {text.format(second)}\r\n".encode()


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([report(26)], False),
        ([report(26), report(48)], False),  # a loop of a minute: it boots after all
        ([report(26), report(48), report(74)], True),
        ([report(26) + report(48) + report(74)], True),
        ([report(21, STALL), report(84, STALL)], True),
        ([report(21, STALL), report(26), report(66, HARD)], True),
        ([report(26), report(400)], False),  # another one
        ([report(26), report(74).rstrip(b"\n")], False),  # not said to its end yet
        ([b"[   1.0] Linux\r\n" + report(26)[:9], report(26)[9:], report(74)], True),
        ([SOFT.encode() + b"\n"] * 2, False),
        ([SOFT.encode() + b"\n"] * 3, True),
        ([b"[ 9.0] x: " + SOFT.encode() + b"\n"] * 3, False),
    ],
)
def test_a_lockup_that_lasts_ends_the_run(parts: list[bytes], wanted: bool) -> None:
    reports, said = LockupReports(), bytearray()
    found = []
    for part in parts:
        said += part
        found.append(reports.lasting(said))
    assert found == [False] * (len(parts) - 1) + [wanted]


def test_what_was_read_is_not_read_again() -> None:
    seconds = []
    for size in (2000, 4000):
        reports, said = LockupReports(), bytearray()
        began = time.process_time()
        for number in range(size):
            said += b"[    1.0] a line that says nothing of it %d\r\n" % number
            reports.lasting(said)
        seconds.append(time.process_time() - began)
    assert all(later < 4 * earlier + 0.05 for earlier, later in pairwise(seconds))
