"""How long a QEMU that says nothing is waited for: the process is real, only time is ours."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootproof.harness.host.process import QemuProcess
from bootproof.harness.observation import End
from bootproof.harness.qemu import watchdog
from bootproof.harness.qemu.watchdog import Watchdog


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watchdog, "TURNS", clock)
    return clock


@pytest.fixture
def asleep(tmp_path: Path) -> Iterator[QemuProcess]:
    with QemuProcess(["sleep", "600"], tmp_path) as process:
        settled(process, "S")
        yield process


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[QemuProcess]:
    with QemuProcess(["sh", "-c", "while :; do :; done"], tmp_path) as process:
        yield process


def settled(process: QemuProcess, state: str) -> None:
    deadline = time.monotonic() + 60
    while process._states() != {state}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def looks(waiting: Watchdog, clock: Clock, count: int, apart: float) -> bool:
    for _ in range(count):
        clock.now += apart
        if waiting.gives_up(False):
            return True
    return False


def test_stopped_by_a_signal(asleep: QemuProcess, clock: Clock) -> None:
    os.kill(asleep.pid, signal.SIGSTOP)
    settled(asleep, "T")
    waiting = Watchdog(asleep, 120)
    assert not looks(waiting, clock, 9, 0.6)
    assert looks(waiting, clock, 1, 0.6)
    assert waiting.end is End.HOST_STOPPED


def test_stopped_for_a_moment(asleep: QemuProcess, clock: Clock) -> None:
    waiting = Watchdog(asleep, 120)
    for _ in range(3):
        os.kill(asleep.pid, signal.SIGSTOP)
        settled(asleep, "T")
        assert not looks(waiting, clock, 9, 0.6)
        os.kill(asleep.pid, signal.SIGCONT)
        settled(asleep, "S")
        assert not looks(waiting, clock, 1, 0.6)
    assert waiting.end is None


def test_looks_are_some_time_apart(asleep: QemuProcess, clock: Clock) -> None:
    os.kill(asleep.pid, signal.SIGSTOP)
    settled(asleep, "T")
    waiting = Watchdog(asleep, 120)
    assert not looks(waiting, clock, 40, 0.1)


def test_asleep_without_an_answer(asleep: QemuProcess, clock: Clock) -> None:
    waiting = Watchdog(asleep, 120)
    assert not looks(waiting, clock, 1, 1) and not looks(waiting, clock, 1, 119)
    assert looks(waiting, clock, 1, 2)
    assert waiting.end is End.NO_ANSWER


def test_wants_to_run_and_is_given_nothing(
    asleep: QemuProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asleep, "asleep", lambda: False)
    waiting = Watchdog(asleep, 120)
    assert not looks(waiting, clock, 1, 1)
    assert looks(waiting, clock, 1, 121)
    assert waiting.end is End.HOST_IDLE


def test_slow_host_is_waited_for(busy: QemuProcess, clock: Clock) -> None:
    """A hundredth of a second of CPU time an hour is progress."""
    waiting = Watchdog(busy, 3600)
    for _ in range(5):
        used = busy.cpu_seconds()
        while busy.cpu_seconds() <= used:
            time.sleep(0.01)
        assert not looks(waiting, clock, 1, 3599)
    assert waiting.end is None


def test_busy_without_an_answer(busy: QemuProcess, clock: Clock) -> None:
    """CPU time that passes while one answer is waited for; what passed before does not count."""
    used = [100.0]
    busy.cpu_seconds = lambda: used[0]  # type: ignore[method-assign]
    waiting = Watchdog(busy, 120)
    clock.now += 1
    assert not waiting.gives_up(False)
    for passed, over in ((3, False), (1.9, False), (0.2, True)):
        used[0] += passed
        clock.now += 1
        assert waiting.gives_up(True) is over
    assert waiting.end is End.TOO_BUSY


def test_answer_begins_anew(busy: QemuProcess, clock: Clock) -> None:
    used = [100.0]
    busy.cpu_seconds = lambda: used[0]  # type: ignore[method-assign]
    waiting = Watchdog(busy, 120)
    for _ in range(5):
        used[0] += 4
        clock.now += 1
        assert not waiting.gives_up(False)
        used[0] += 4
        clock.now += 1
        assert not waiting.gives_up(True)


def test_told_to_end_and_hangs(asleep: QemuProcess, clock: Clock) -> None:
    told = [False]
    waiting = Watchdog(asleep, 120, lambda: told[0])
    assert not looks(waiting, clock, 20, 0.6)
    told[0] = True
    assert not looks(waiting, clock, 9, 0.6)
    assert looks(waiting, clock, 1, 0.6)
    assert waiting.end is End.HOST_ENDED


def test_told_to_end_and_takes_its_time(busy: QemuProcess, clock: Clock) -> None:
    waiting = Watchdog(busy, 120, lambda: True)
    assert not looks(waiting, clock, 40, 0.6)
