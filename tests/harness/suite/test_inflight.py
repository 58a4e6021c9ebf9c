"""Many cases at once in one process: each as it would be alone, and little memory for all."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.memory import TARGET, harness_memory
from bootproof.harness.case import Case, Expectation
from bootproof.harness.results import results
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.suite.inflight import Growing, Threads
from bootproof.harness.terms import Budget
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests.builders.guests import Claim, Guest, X86Program, machine, program
from tests.builders.processes import LOAD, bootproof_matrix, started, vmlinux, vmlinux_with_text

CASES = 16


def start(directory: Path, cases: list[Case], *words: str) -> subprocess.Popen[str]:
    """A matrix of these cases, 16 at once."""
    return started([*bootproof_matrix(directory, cases, jobs=CASES), *words], directory)


def test_sixteen_cases_in_flight_stay_under_150_mib(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).say(b"hello\n").count()))
    cases = [
        Case("x86_64", f"k{n}", "elf", "linux64", memory=32 * MIB, kernel_path=str(kernel))
        for n in range(CASES)
    ]
    process = start(tmp_path, cases)
    most, at_once = 0, 0
    try:
        for _ in range(600):
            size, qemus = harness_memory(process.pid)
            most, at_once = max(most, size), max(at_once, qemus)
            ready = [*tmp_path.glob("out/*/console.log")]
            if at_once == CASES and sum(path.stat().st_size > 0 for path in ready) == CASES:
                break
            assert process.poll() is None
            threading.Event().wait(0.1)
    finally:
        process.terminate()
        said = process.communicate()[0]
    assert at_once == CASES, said
    assert 20 * MIB < most < TARGET


def test_results_are_those_of_cases_run_alone(tmp_path: Path) -> None:
    """All verdicts, counts and exit codes; a failure among them fails the whole."""
    kernels = {}
    for name, code in (
        ("resets", X86Program(LOAD).say(b"one\n").reset()),
        ("halts", X86Program(LOAD).say(b"two\n").halt()),
        ("panics", X86Program(LOAD).say(b"Kernel panic - not syncing: x\r\n").reset()),
    ):
        kernels[name] = tmp_path / name
        kernels[name].write_bytes(vmlinux_with_text(code))
    wanted = {"resets": Verdict.CPU_RESET, "halts": Verdict.STUCK, "panics": Verdict.PANIC}
    cases = [
        Case(
            *("x86_64", f"{name}-{n}", "elf", "linux64"),
            memory=32 * MIB,
            kernel_path=str(path),
            expect=Expectation(wanted[name], why="a test"),
        )
        for name, path in kernels.items()
        for n in range(1 if name == "halts" else 3)  # which takes two CPU seconds to be told
    ]
    process = start(tmp_path, cases)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "7 of 7 cases as expected" in re.sub(r"\s+", " ", said)
    found = results.read(tmp_path / "out" / "results.json")
    for name in kernels:
        same = [case for case in found.cases if f"-{name}-" in case.case]
        assert {case.verdict for case in same} == {wanted[name].value}
        if name != "halts":  # a halted guest is left when somebody looks
            assert len({case.instructions for case in same}) == 1


def test_what_takes_longest_begins_first(tmp_path: Path) -> None:
    """However the file has them: else the last case runs alone on many CPUs. Those that are refused
    go on beside the guests.
    """
    kernel, broken = tmp_path / "vmlinux", tmp_path / "broken"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    broken.write_bytes(vmlinux(X86Program(LOAD).reset())[:200])
    refused, resets = (
        Expectation(verdict, why="a test") for verdict in (Verdict.LOAD_REFUSED, Verdict.CPU_RESET)
    )
    kinds = {
        "broken": {"kernel_path": str(broken), "expect": refused},
        "fast": {"kernel_path": str(kernel), "expect": resets, "profile": "fast"},
        "whole": {"kernel_path": str(kernel), "expect": resets},
    }
    cases = [
        Case("x86_64", f"{name}-{n}", "elf", "linux64", memory=32 * MIB, **words)  # type: ignore[arg-type]
        for name, words in kinds.items()
        for n in range(8)  # more than are under way at once
    ]
    process = started(bootproof_matrix(tmp_path, cases, jobs=2), tmp_path)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    began = {
        name: sorted(path.stat().st_mtime for path in tmp_path.glob(f"out/*{name}-*/{file}"))
        for name, file in (("whole", "boot.json"), ("fast", "boot.json"), ("broken", "result.json"))
    }
    assert [len(times) for times in began.values()] == [8, 8, 8]
    assert began["whole"][3] < began["fast"][0] and began["whole"][-1] < began["fast"][-4]
    assert began["broken"][0] < began["whole"][-1] and began["fast"][3] < began["broken"][-1]


CROWD_TESTS = """
import threading
from functools import partial
from pathlib import Path

import pytest

from bootproof.harness.host.process import QemuProcess
from bootproof.harness.host.together import at_once

OUT = Path({out!r})

@pytest.mark.crowd
def test_crowd(tmp_path):
    assert (OUT / "another").exists() and len([*OUT.glob("*/result.json")]) == 4
    meet = threading.Barrier(4)

    def guest(directory):
        directory.mkdir()
        with QemuProcess(["sleep", "600"], directory):
            meet.wait(60)

    at_once([partial(guest, tmp_path / str(number)) for number in range(4)], 4)

def test_another():
    (OUT / "another").touch()
"""


def test_a_crowd_comes_when_all_else_has_ended_and_takes_no_turns(tmp_path: Path) -> None:
    kernel, out = tmp_path / "vmlinux", tmp_path / "out"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    resets = Expectation(Verdict.CPU_RESET, why="a test")
    words = {"memory": 32 * MIB, "kernel_path": str(kernel), "expect": resets}
    cases = [Case("x86_64", f"k{n}", "elf", "linux64", **words) for n in range(4)]  # type: ignore[arg-type]
    (tmp_path / "test_crowd.py").write_text(CROWD_TESTS.format(out=str(out)))
    command = bootproof_matrix(tmp_path, cases, jobs=2)
    process = started([*command, str(tmp_path / "test_crowd.py")], tmp_path)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "4 of 4 cases and 2 of 2 other tests as expected" in re.sub(r"\s+", " ", said)


def test_failure_stops_the_others_when_asked_to(tmp_path: Path) -> None:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).say(b"one\n").reset()))
    endless = tmp_path / "endless"
    endless.write_bytes(vmlinux(X86Program(LOAD).say_for_ever(b"again and again\n")))
    cases = [
        Case("x86_64", name, "elf", "linux64", memory=32 * MIB, kernel_path=str(path))
        for name, path in (("fails", kernel), ("never", endless))
    ]
    process = start(tmp_path, cases, "-x")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == 1, said
    assert "NOT AS EXPECTED" in said.upper()


def test_runs_in_threads_cost_little_each(tmp_path: Path) -> None:
    """Of the library, too: 16 runs in this process."""
    computer = machine("x86_64")
    code = program("x86_64").say(b"hello\n" * 100).reset()
    claim = Claim(computer, code.entry)
    directories = [tmp_path / str(number) for number in range(CASES)]
    seen: list[tuple[Verdict, int | None]] = []

    def one(directory: Path) -> None:
        directory.mkdir()
        image = Guest(code).write(directory, computer)
        outcome = run(Start(image, computer, claim.expected, budget=Budget()), directory)
        seen.append((outcome.judgement.verdict, outcome.costs.instructions))

    before = psutil.Process().memory_full_info().uss
    threads = [threading.Thread(target=one, args=(directory,)) for directory in directories]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, psutil.Process().memory_full_info().uss)
        threads[0].join(0.1)
    assert len(seen) == CASES and len(set(seen)) == 1
    assert most - before < 64 * MIB


def test_a_thread_that_still_judges_is_interrupted() -> None:
    """The end of its QEMU does not end it: what it reads may be long."""
    threads, ended, working = Threads(), threading.Event(), threading.Event()

    def judge() -> None:
        with contextlib.suppress(KeyboardInterrupt), threads.here():
            working.set()
            while True:
                sum(range(100))
        ended.set()

    threading.Thread(target=judge, daemon=True).start()
    assert working.wait(60)
    threads.end(0.01)
    assert ended.wait(60)


def test_threads_that_end_by_themselves_are_waited_for() -> None:
    threads, working, go_on = Threads(), threading.Event(), threading.Event()
    seen: list[str] = []

    def judge() -> None:
        with threads.here():
            working.set()
            go_on.wait(60)
            seen.append("judged")

    threading.Thread(target=judge).start()
    assert working.wait(60)
    go_on.set()
    threads.end(60)
    assert seen == ["judged"]


def test_an_end_does_not_wait_for_another_process(tmp_path: Path) -> None:
    """Which has what a case needs of the cache, and may have it for as long as it likes."""
    kernel, cache = tmp_path / "vmlinux.gz", tmp_path / "cache"
    unpacked = vmlinux(X86Program(LOAD).reset())
    kernel.write_bytes(gzip.compress(unpacked))
    resets = Expectation(Verdict.CPU_RESET, why="a test")
    case = Case(
        *("x86_64", "k", "elf", "linux64"),
        memory=32 * MIB,
        kernel_path=str(kernel),
        expect=resets,
    )
    words = bootproof_matrix(tmp_path, [case], jobs=2)
    process = started(words, tmp_path, BOOTPROOF_CACHE=str(cache))
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 0, said
    made = (path for path in cache.glob("derived/*/*") if path.read_bytes() == unpacked)
    entry = next(made).parent
    shutil.rmtree(entry)
    lock = cache / "locks" / entry.name
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = started(words, tmp_path, BOOTPROOF_CACHE=str(cache))
        while not any(file.path == str(lock) for file in opened(process.pid)):
            assert process.poll() is None
            threading.Event().wait(0.05)
        process.terminate()
        said = process.communicate(timeout=20)[0]
    assert process.returncode == 143, said
    assert "Traceback" not in said


def opened(pid: int) -> Sequence[Any]:
    """The files that a process has open."""
    return psutil.Process(pid).open_files()


def test_threads_grow_with_the_room_and_begin_what_came_first() -> None:
    """What is left is never begun where it is given up; what raises is said to who asks."""
    begun: queue.SimpleQueue[int] = queue.SimpleQueue()
    gate, room = threading.Event(), [1]
    pool = Growing(lambda: room[0])

    def job(number: int) -> int:
        begun.put(number)
        assert gate.wait(30)
        return 1 // number

    futures = [pool.submit(job, number) for number in range(5)]
    pool.grow()
    assert begun.get(timeout=30) == 0
    room[0] = 3
    pool.grow()
    assert {begun.get(timeout=30), begun.get(timeout=30)} == {1, 2}
    pool.shutdown(wait=False, cancel_futures=True)
    gate.set()
    pool.shutdown()
    assert begun.empty()
    assert isinstance(futures[0].exception(), ZeroDivisionError)
    assert [future.result() for future in futures[1:3]] == [1, 0]
    assert all(future.cancelled() for future in futures[3:])
