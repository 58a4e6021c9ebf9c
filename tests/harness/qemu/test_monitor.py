"""QMP with real QEMU: events, figures, and a QEMU that goes away."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bootproof.harness.host import signals
from bootproof.harness.qemu.monitor import Event, Monitor, MonitorError
from tests.builders.guests import Guest, live, machine, program


def test_events_and_figures(tmp_path: Path) -> None:
    with live(Guest(program("aarch64").reset()), machine("aarch64"), tmp_path) as running:
        monitor = running.monitor
        found: list[Event] = []
        for _ in range(500):
            monitor.wait(0.01)
            found += monitor.events()
            if any(event.name == "SHUTDOWN" for event in found):
                break
        (shutdown,) = [event for event in found if event.name == "SHUTDOWN"]
        assert shutdown.data == {"guest": True, "reason": "guest-reset"}
        assert monitor.events() == []
        count = monitor.instructions()
        assert count is not None and 10 < count < 1000
        assert monitor.instructions() == count
        assert "PC=" in monitor.registers() and "\r" not in monitor.registers()


def test_an_event_ends_the_wait_for_one(tmp_path: Path) -> None:
    with live(Guest(program("aarch64").reset()), machine("aarch64"), tmp_path) as running:
        monitor = running.monitor
        while not any(event.name == "SHUTDOWN" for event in monitor.events()):
            assert monitor.listen(3600)
        monitor.execute("system_reset")
        assert monitor.listen(3600) and monitor.listen(3600)  # until somebody asks for it
        assert monitor.events()


def test_command_that_qemu_refuses(tmp_path: Path) -> None:
    with (
        live(Guest(program("x86_64").count()), machine("x86_64"), tmp_path) as running,
        pytest.raises(MonitorError, match=r"^QMP no-such-command: "),
    ):
        running.monitor.execute("no-such-command")


def test_an_answer_that_comes_too_late_is_nobodys(tmp_path: Path) -> None:
    with live(Guest(program("x86_64").count()), machine("x86_64"), tmp_path) as running:
        with pytest.raises(MonitorError, match=r"^QMP query-qmp-schema: no answer$"):
            running.monitor.execute("query-qmp-schema", seconds=0)
        running.monitor.wait(0.5)
        assert "running" in running.monitor.execute("query-status")


def test_qemu_that_goes_away(tmp_path: Path) -> None:
    with live(Guest(program("x86_64").count()), machine("x86_64"), tmp_path) as running:
        os.kill(running.process.pid, 9)
        running.process.wait(10)
        with pytest.raises(MonitorError, match=r"^QMP query-status: "):
            for _ in range(10):
                running.monitor.execute("query-status")


@pytest.mark.parametrize(
    "greeting",
    [
        *(b"", b"this is no QMP\r\n", b'{"QMP": 1}\r\n', b"\xff\xfe\n", b"[]\n", b"\n"),
        *(b"[" * 100_000 + b"\n", b'{"QMP": {}}\n{"error": 1, "id": 1}\n', b'{"id": 1}\n'),
    ],
)
def test_no_greeting(greeting: bytes) -> None:
    ours, theirs = socket.socketpair()
    with Monitor(ours) as monitor, theirs:
        theirs.sendall(greeting)
        theirs.close()
        with pytest.raises(MonitorError, match="no greeting from QEMU"):
            monitor.connect(10)
        assert not monitor.connected


def test_greeting_that_never_comes() -> None:
    ours, theirs = socket.socketpair()
    with (
        Monitor(ours) as monitor,
        theirs,
        pytest.raises(MonitorError, match="no greeting from QEMU"),
    ):
        monitor.connect(0.05)


def test_nothing_stays_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        ours, theirs = socket.socketpair()
        with Monitor(ours) as monitor, theirs:
            monitor.wait(0.001)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


class Interruption:
    """A signal at one line of the monitor: the `number`th traced."""

    def __init__(self, number: int) -> None:
        self._left = number

    @property
    def came(self) -> bool:
        return self._left <= 0

    def trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not frame.f_code.co_filename.endswith("monitor.py"):
            return None
        if event in ("line", "return") and not self.came:
            self._left -= 1
            if self.came:
                signal.raise_signal(signal.SIGINT)
        return self.trace


def interrupted_at(number: int) -> bool:
    """False when there are not so many lines."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signals.obey_signals()
    ours, theirs = socket.socketpair()
    interruption = Interruption(number)
    with theirs, contextlib.suppress(KeyboardInterrupt), Monitor(ours) as monitor:
        try:
            sys.settrace(interruption.trace)
            monitor.wait(0.0001)
            monitor.wait(0.0001)
        finally:
            sys.settrace(None)
        if interruption.came:
            raise AssertionError("the interruption was lost")
    assert ours.fileno() < 0
    return interruption.came


def test_interrupted_at_any_line(recwarn: pytest.WarningsRecorder) -> None:
    """Nothing but a KeyboardInterrupt, once, and nothing stays open or pending."""
    before = signals.obey_signals()
    try:
        number = 1
        while interrupted_at(number):
            number += 1
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)
    assert number > 20
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
