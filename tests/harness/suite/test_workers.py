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
from bootproof.harness.results import results
from bootproof.loader.address import MIB
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, bootproof_matrix, started, vmlinux


class Matrix:
    """Two boots that never end: as the matrix runs them, or in workers of pytest-xdist."""

    def __init__(self, directory: Path, *, workers: bool) -> None:
        self._workers = workers
        kernel = directory / "vmlinux"
        kernel.write_bytes(vmlinux(X86Program(LOAD).say(b"it goes on\n").count()))
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
    assert "Traceback" not in said and "KeyboardInterrupt" not in said
    for console in running.consoles:
        assert not (console.parent / "devices").exists()
        result = console.parent / "result.json"
        assert not result.exists() or json.loads(result.read_text())["verdict"] == "interrupted"
        assert console.parent.lstat().st_uid == os.geteuid()


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_has_ended_before_an_interruption_is_told(jobs: int, tmp_path: Path) -> None:
    """In our words: pytest's own are about a traceback and an option of another command."""
    programs = {"a-end": X86Program(LOAD).reset(), "never": X86Program(LOAD).say_for_ever(b"on\n")}
    cases = []
    for name, program in programs.items():
        (tmp_path / name).write_bytes(vmlinux(program))
        kernel = str(tmp_path / name)
        cases.append(Case("x86_64", name, "elf", "linux64", memory=32 * MIB, kernel_path=kernel))
    process = started(bootproof_matrix(tmp_path, cases, jobs=jobs), tmp_path)
    console = tmp_path / "out" / cases[1].id / "console.log"
    found = results.RESULTS
    deadline = time.monotonic() + 120
    assert process.stdout is not None
    line = process.stdout.readline()
    while not (console.exists() and console.stat().st_size):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, line.split()[2]) == (130, "cpu-reset"), told
    assert "0 of 1 cases as expected in " in told and ": 1 not as expected, not complete; " in told
    assert told.splitlines()[-2:] == [
        f"run directories, report.html, junit.xml, {found}: {tmp_path / 'out'}",
        "bootproof: interrupted",
    ]
    written = results.read(tmp_path / "out" / found)
    assert ([case.name for case in written.cases], written.complete) == ([cases[0].id], False)


@pytest.mark.parametrize(
    "moment",
    ["make_collect_report", "itemcollected", "collection_modifyitems", "collection_finish"],
)
def test_an_interruption_while_cases_are_collected(moment: str, tmp_path: Path) -> None:
    """What there was to do is not known yet: there are no results that tell of a part of it."""
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux(X86Program(LOAD).reset()))
    cases = [
        Case("x86_64", name, "elf", "linux64", kernel_path=str(path)) for name in ("one", "other")
    ]
    (tmp_path / "now.py").write_text(_INTERRUPTS.format(moment=moment))
    words = [*bootproof_matrix(tmp_path, cases), "-p", "now", "-k", "other"]
    process = started(words, tmp_path)
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, told.strip()) == (130, "bootproof: interrupted")
    assert not (tmp_path / "out" / results.RESULTS).exists()


def test_an_interruption_of_a_command_inside_a_test_ends_the_matrix(tmp_path: Path) -> None:
    """The next one would be ignored: nobody could end it any more."""
    (tmp_path / "test_command.py").write_text(_COMMAND)
    words = bootproof_matrix(tmp_path, [])
    process = started([*words, str(tmp_path / "test_command.py")], tmp_path)
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, told.strip().splitlines()[-1]) == (130, "bootproof: interrupted")
    assert "went on" not in told


def test_what_has_ended_beside_a_test_that_is_interrupted_is_told(tmp_path: Path) -> None:
    """Its thread has it, and pytest was to hear of it after the test."""
    (tmp_path / "vmlinux").write_bytes(vmlinux(X86Program(LOAD).reset()))
    case = Case("x86_64", "ends", "elf", "linux64", kernel_path=str(tmp_path / "vmlinux"))
    result = tmp_path / "out" / case.id / "result.json"
    (tmp_path / "test_waits.py").write_text(_WAITS.format(result=str(result)))
    words = bootproof_matrix(tmp_path, [case], jobs=2)
    process = started([*words, str(tmp_path / "test_waits.py")], tmp_path)
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "] FAILED cpu-reset" in told and "bootproof: interrupted" in told
    written = results.read(tmp_path / "out" / results.RESULTS)
    assert ([case.name for case in written.cases], written.complete) == ([case.id], False)


_WAITS = """
import os, pathlib, signal, time, pytest

@pytest.fixture
def held():
    yield

def test_that_waits(held):
    while not pathlib.Path({result!r}).exists():
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGINT)
"""


_COMMAND = """
import os, signal
from bootproof.harness import cli
from bootproof.harness.commands import Command

def interrupted(arguments):
    os.kill(os.getpid(), signal.SIGINT)

def test_command():
    cli.COMMANDS["check"] = Command("", "", interrupted)
    code = cli.main(["check"])
    raise AssertionError(f"went on after {code}")
"""


_INTERRUPTS = """
import os, signal
def pytest_{moment}():
    os.kill(os.getpid(), signal.SIGINT)
"""


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
