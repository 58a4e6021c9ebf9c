"""Sessions with real QEMU: how they start and end, whoever ends them, and that nothing stays."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.host.files import NOBODY, is_root
from bootproof.harness.host.rundir import CONSOLE, RUN_LOG
from bootproof.harness.observation import Budget, End, Placement
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.placement import guest_ram, place_image, write
from bootproof.harness.qemu.session import Session
from bootproof.harness.qemu.watch import Ending, Watch
from bootproof.loader import bootimage
from tests.builders.guests import Guest, Program, machine, program

BUDGET = Budget(quiet_instructions=20_000_000)


@contextmanager
def session(
    code: Program, directory: Path, on: Machine | None = None, **options: Any
) -> Iterator[Session]:
    computer = on or machine(code.arch)
    image = Guest(code).write(directory, computer)
    with bootimage.open_ram(image, directory) as memory:
        placed = place_image(image, memory, computer, Placement.DEVICES)
        write(placed, memory, directory)
        with (
            guest_ram(memory, computer.banks, mapped=False) as ram,
            Session(
                *(computer, placed.launch, ram, directory), **({"budget": BUDGET} | options)
            ) as started,
        ):
            yield started


def go_on(session: Session, watch: Watch) -> Ending:
    session.monitor.execute("cont")
    return watch.until_the_end()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_from_start_to_end(arch: str, tmp_path: Path) -> None:
    files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with session(program(arch).say(b"hello\n").reset(), tmp_path, with_gdb=False) as running:
        if is_root():
            assert tmp_path.stat().st_uid == NOBODY
        seen, ending = running.observe(lambda watch: go_on(running, watch))
        assert running.process.ended()
    assert (seen.end, seen.transcript, seen.exit_code) == (End.GUEST_RESET, b"hello\n", None)
    assert seen.instructions == ending.usage.instructions is not None
    assert running.timed_transcript().endswith("] hello\n")
    assert (tmp_path / CONSOLE).read_bytes() == b"hello\n" and (tmp_path / RUN_LOG).exists()
    assert tmp_path.stat().st_uid == os.geteuid()
    assert len(os.listdir("/proc/self/fd")) == files  # noqa: PTH208
    assert psutil.Process().children(recursive=True) == []


def test_stands_at_the_entry(tmp_path: Path) -> None:
    code = program("x86_64").say(b"hello\n").reset()
    with session(code, tmp_path) as running:

        def steps(watch: Watch) -> Ending:
            assert running.run_to(code.entry, watch.given_up) == (True, running_at(running))
            return watch.stop(End.ENTERED)

        seen, ending = running.observe(steps)
    assert (seen.end, seen.transcript) == (End.ENTERED, b"")
    assert ending.place is not None and ending.place.pc == code.entry


def running_at(running: Session) -> object:
    return running.machine.arch.dump.parse(running.monitor.registers(), {})


def test_without_a_gdbstub(tmp_path: Path) -> None:
    with session(program("x86_64").reset(), tmp_path, with_gdb=False) as running:
        with pytest.raises(AssertionError, match="without a gdbstub"):
            assert running.gdb
        assert "-gdb" not in psutil.Process(running.process.pid).cmdline()


def test_qemu_that_is_not_there(tmp_path: Path) -> None:
    computer = machine("x86_64")
    computer = replace(computer, qemu=replace(computer.qemu, path="/no/such/qemu"))
    with (
        session(program("x86_64").reset(), tmp_path, computer) as running,
        pytest.raises(UserError, match=r"QEMU cannot be started: setpriv: .*/no/such/qemu"),
    ):
        running.observe(lambda watch: go_on(running, watch))
    assert tmp_path.stat().st_uid == os.geteuid()


def test_start_that_fails_leaves_the_directory_ours(tmp_path: Path) -> None:
    (tmp_path / CONSOLE).write_text("of another run")
    with (
        pytest.raises(UserError, match=r"console\.log: File exists"),
        session(program("x86_64").reset(), tmp_path),
    ):
        raise AssertionError
    assert tmp_path.stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGTERM, End.HOST_ENDED), (signal.SIGKILL, End.QEMU_EXITED)]
)
def test_ended_while_nobody_listens(number: int, end: End, tmp_path: Path) -> None:
    """What QEMU says of its end is there, but has not been read when its channels break."""
    with session(program("x86_64").count(), tmp_path) as running:

        def steps(watch: Watch) -> Ending:
            os.kill(running.process.pid, number)
            running.process.wait(30)
            running.gdb.detach()
            return watch.until_the_end()

        seen, _ = running.observe(steps)
    assert (seen.end, seen.exit_code) == (end, -9 if number == signal.SIGKILL else None)
