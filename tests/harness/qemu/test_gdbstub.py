"""How QEMU's gdbstub is waited for; what it is asked is seen in whole runs."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bootproof.harness.host.incoming import Incoming
from bootproof.harness.qemu import gdbstub
from bootproof.harness.qemu.gdbstub import GdbStub, framed


def test_an_answer_is_taken_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guest stands still meanwhile: nothing else is looked at in between. Nor is there anything
    to wait for where the next answer has come with the one before.
    """
    monkeypatch.setattr(gdbstub, "_ANSWER_SECONDS", 60.0)
    ours, theirs = socket.socketpair()

    def answer() -> None:
        assert theirs.recv(100) == framed("D")
        theirs.sendall(b"+")
        time.sleep(0.1)  # QEMU says this by itself, and what follows a moment later
        theirs.sendall(2 * framed("OK"))

    with ours, theirs, ThreadPoolExecutor(1) as beside:
        answered = beside.submit(answer)
        stub = GdbStub(ours, lambda _seconds: pytest.fail("something else was looked at"))
        stub.detach()
        answered.result()
        monkeypatch.setattr(Incoming, "within", None)
        stub.detach()


def test_many_guests_have_many_descriptors() -> None:
    wanted = 3000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < wanted:
        pytest.skip(f"no more than {hard} descriptors are to be had here")
    ours, theirs = socket.socketpair()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        high = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with ours, theirs, socket.socket(fileno=high) as many:
        assert not Incoming(many).within(0)
        os.write(theirs.fileno(), b"x")
        assert Incoming(many).within(60)
