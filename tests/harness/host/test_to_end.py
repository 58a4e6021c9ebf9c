"""Programs that are asked something, and waiting for others: neither outlives the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.host.process import RUNNING
from bootproof.harness.host.to_end import run_to_end
from bootproof.harness.qemu.binary import qemu_version
from bootproof.kernels import waiting
from bootproof.kernels.cache import Cache

# Waits for what it has started, as a wrapper around a QEMU does.
WAITS = "echo said; sleep 600 & wait"


def test_what_it_says() -> None:
    done = run_to_end(["sh", "-c", "echo one; echo two >&2; cat; exit 3"], 60)
    assert (done.returncode, done.stdout, done.stderr) == (3, b"one\n", b"two\n")


def test_it_is_not_waited_for_longer_than_allowed() -> None:
    with pytest.raises(TimeoutError, match="has not ended after 0 s"):
        run_to_end(["sh", "-c", WAITS], 0.2)
    assert not _sleeping()


def test_a_qemu_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = tmp_path / "qemu-system-x86_64"
    qemu.write_text(f"#!/bin/sh\n{WAITS}\n")
    qemu.chmod(0o755)
    monkeypatch.setattr("bootproof.harness.qemu.binary.ANSWER_SECONDS", 1.0)
    with pytest.raises(UserError) as refused:
        qemu_version(str(qemu))
    assert str(refused.value) == f"{qemu}: cannot be run as QEMU: has not ended after 1 s"


@pytest.mark.parametrize("what", ["program", "lock", "pause"])
def test_a_thread_hears_that_all_is_being_ended(what: str, tmp_path: Path) -> None:
    cache, ended = Cache(tmp_path), threading.Event()
    waits: dict[str, Callable[[], object]] = {
        "program": lambda: run_to_end(["sh", "-c", WAITS], 600),
        "lock": lambda: cache.locked("a").__enter__(),
        "pause": lambda: waiting.pause(600),
    }

    def wait() -> None:
        with pytest.raises(KeyboardInterrupt):
            waits[what]()
        ended.set()

    with cache.locked("a"):
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        time.sleep(0.3)
        assert thread.is_alive()
        RUNNING.end()
        try:
            assert ended.wait(10)
        finally:
            RUNNING.begin()
    assert not _sleeping()


def _sleeping() -> list[psutil.Process]:
    return [each for each in psutil.Process().children(recursive=True) if each.name() == "sleep"]
