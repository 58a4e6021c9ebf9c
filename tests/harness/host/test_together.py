"""Two guests at once, which end together when their user has had enough of them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from bootproof.harness.host import signals
from bootproof.harness.host.process import RUNNING, QemuProcess
from bootproof.harness.host.together import at_once, together


def test_both_run_at_once_and_each_gives_its_own() -> None:
    meet = threading.Barrier(2)

    def one() -> str:
        meet.wait(60)
        return "one"

    def other() -> int:
        meet.wait(60)
        return 2

    assert together(one, other) == ("one", 2)


def test_what_fails_is_raised_when_both_have_ended() -> None:
    ended = list[str]()

    def fails() -> None:
        raise ValueError("one")

    def goes_on() -> None:
        time.sleep(0.1)
        ended.append("other")

    with pytest.raises(ValueError, match="one"):
        together(fails, goes_on)
    assert ended == ["other"]


def test_as_many_run_at_once_as_may_and_no_more() -> None:
    meet, now, most = threading.Barrier(3), list[int](), list[int]()

    def boot(number: int) -> int:
        now.append(number)
        most.append(len(now))
        meet.wait(60)
        now.remove(number)
        meet.wait(60)
        return number

    assert at_once([partial(boot, number) for number in range(6)], 3) == [*range(6)]
    assert max(most) == 3


def test_what_two_have_ended_begins_when_both_say_so() -> None:
    """The boots of a test, and the matrix that it is part of."""
    seen = list[bool]()
    for change in (RUNNING.end, RUNNING.end, RUNNING.begin, RUNNING.begin):
        change()
        seen.append(RUNNING.ending)
    assert seen == [True, True, True, False]


def test_an_interruption_ends_both(tmp_path: Path) -> None:
    running = list[int]()

    def endless(directory: Path) -> Callable[[], None]:
        directory.mkdir()

        def run() -> None:
            with QemuProcess(["sleep", "600"], directory) as process:
                running.append(process.pid)
                while not process.ended():
                    time.sleep(0.01)

        return run

    def interrupt() -> None:
        while len(running) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    before = signals.obey_signals()
    try:
        with pytest.raises(KeyboardInterrupt):
            together(endless(tmp_path / "one"), endless(tmp_path / "other"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not any(map(psutil.pid_exists, running))
