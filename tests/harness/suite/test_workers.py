"""Boots at the same time, in threads or in workers of pytest, ended from outside in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bootproof.harness.case import Case
from bootproof.loader.address import MIB
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, bootproof_matrix, started, vmlinux


class Matrix:
    """Two boots that never end: as the matrix runs them, or in workers of pytest-xdist."""

    def __init__(self, directory: Path, *, workers: bool) -> None:
        self._workers = workers
        kernel = directory / "vmlinux"
        kernel.write_bytes(vmlinux(X86Program(LOAD).say_for_ever(b"again and again\n")))
        self._directory = directory
        self._cases = [
            Case("x86_64", f"never-{n}", "elf", "linux64", memory=32 * MIB, kernel_path=str(kernel))
            for n in range(2)
        ]
        self._process: subprocess.Popen[str] | None = None
        self.family: list[psutil.Process] = []

    def start(self) -> subprocess.Popen[str]:
        """Returns when both guests are running."""
        jobs = 1 if self._workers else 2
        words = bootproof_matrix(self._directory, self._cases, jobs=jobs)
        words += ["-p", "xdist", "-n", "2"] if self._workers else []
        process = started(words, self._directory)
        self._process = process
        deadline = time.monotonic() + 120
        while not all(console.exists() and console.stat().st_size for console in self.consoles):
            assert time.monotonic() < deadline and process.poll() is None, self.output()
            time.sleep(0.05)
        self.family = psutil.Process(process.pid).children(recursive=True)
        assert sum(each.name() == "qemu-system-x86_64" for each in self.family) == 2
        return process

    @property
    def consoles(self) -> list[Path]:
        return [self._directory / "out" / case.id / "console.log" for case in self._cases]

    def output(self) -> str:
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        return self._process.communicate()[0]

    def end(self) -> None:
        for each in self.family:
            if each.is_running():
                each.kill()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()


@pytest.fixture(params=["threads", "workers"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Matrix]:
    started = Matrix(tmp_path, workers=request.param == "workers")
    yield started
    started.end()


def test_killed_pytest_takes_workers_and_qemus_with_it(running: Matrix) -> None:
    process = running.start()
    process.kill()
    process.wait()
    # Of themselves the workers would wait for seven seconds.
    assert psutil.wait_procs(running.family, timeout=3)[1] == []


@pytest.mark.parametrize(
    ("number", "times", "whole_group", "code"),
    [
        (signal.SIGINT, 1, True, 130),
        (signal.SIGINT, 2, True, 130),
        (signal.SIGTERM, 1, False, 143),
        (signal.SIGTERM, 2, True, 143),
        (signal.SIGHUP, 1, True, 129),
    ],
)
def test_interrupted_matrix_leaves_nothing(
    number: signal.Signals, times: int, whole_group: bool, code: int, running: Matrix
) -> None:
    process = running.start()
    for _ in range(times):
        (os.killpg if whole_group else os.kill)(process.pid, number)
        time.sleep(0.05)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert psutil.wait_procs(running.family, timeout=3)[1] == []
    assert "Traceback" not in said
    for console in running.consoles:
        assert not (console.parent / "devices").exists()
        result = console.parent / "result.json"
        assert not result.exists() or json.loads(result.read_text())["verdict"] == "interrupted"
        assert console.parent.lstat().st_uid == os.geteuid()


@pytest.mark.parametrize("running", ["workers"], indirect=True)
def test_killed_worker_takes_its_qemu_with_it(running: Matrix) -> None:
    running.start()
    for each in running.family:
        if each.name() == "qemu-system-x86_64":
            parent = each.parent()
            assert parent is not None
            parent.kill()
    qemus = [each for each in running.family if each.name() == "qemu-system-x86_64"]
    assert psutil.wait_procs(qemus, timeout=10)[1] == []
