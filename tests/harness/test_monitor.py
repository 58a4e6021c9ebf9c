"""QMP with real QEMU: events, figures, and a QEMU that goes away."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from harness.monitor import Event, Monitor, MonitorError
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


def test_command_that_qemu_refuses(tmp_path: Path) -> None:
    with (
        live(Guest(program("x86_64").count()), machine("x86_64"), tmp_path) as running,
        pytest.raises(MonitorError, match=r"^QMP no-such-command: "),
    ):
        running.monitor.execute("no-such-command")


def test_qemu_that_goes_away(tmp_path: Path) -> None:
    with live(Guest(program("x86_64").count()), machine("x86_64"), tmp_path) as running:
        os.kill(running.process.pid, 9)
        running.process.wait(10)
        with pytest.raises(MonitorError, match=r"^QMP query-status: "):
            for _ in range(10):
                running.monitor.execute("query-status")


@pytest.mark.parametrize("greeting", [b"", b"this is no QMP\r\n", b'{"QMP": 1}\r\n', b"\xff\xfe\n"])
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
