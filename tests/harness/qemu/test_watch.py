"""What a watch does at its edges; tests/harness/test_run.py has the endings of real guests."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest

from bootproof.harness.guest import logbuffer
from bootproof.harness.host.process import QemuProcess
from bootproof.harness.observation import End
from bootproof.harness.qemu.console import ConsoleFile
from bootproof.harness.qemu.monitor import Monitor
from bootproof.harness.qemu.watch import SHUTDOWNS, Watch
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from bootproof.loader.memory import GuestMemory
from tests.builders.guests import Claim, Guest, live, machine, program


def _console(directory: Path) -> IO[bytes]:
    return (directory / "console.log").open("a+b")


@contextmanager
def watching(command: list[str], directory: Path) -> Iterator[tuple[Watch, QemuProcess]]:
    """A watch on any program, whose monitor never says a word."""
    ours, theirs = socket.socketpair()
    with (
        theirs,
        QemuProcess(command, directory) as process,
        Monitor(ours) as monitor,
        _console(directory) as file,
        GuestMemory([(0, MIB)]) as ram,
    ):
        console = ConsoleFile(file.fileno(), time.sleep, process.ended)
        dump_format = machine("x86_64").arch.dump
        yield Watch(process, monitor, console, Budget(), dump_format, ram), process


def test_console_is_read_to_its_end_when_qemu_is_gone(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_bytes(b"last words")
    with watching(["true"], tmp_path) as (watch, _):
        ending = watch.unanswered(None)
    assert (ending.end, ending.usage.console_bytes) == (End.QEMU_EXITED, 10)


def test_qemu_that_only_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching(["sleep", "60"], tmp_path) as (watch, process):
        wait = process.wait
        monkeypatch.setattr(process, "wait", lambda seconds: wait(0.1))
        assert watch.unanswered(None).end is End.NO_ANSWER
        monkeypatch.undo()


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_after_its_proof_a_guest_has_a_budget_of_its_own(arch: str, tmp_path: Path) -> None:
    code = program(arch)
    claim = Claim(machine(arch), code.entry)
    image = Guest(code.say(claim.text()).count()).write(tmp_path, machine(arch))
    budget = replace(Budget(), proven_instructions=10_000_000)
    start = Start(image, machine(arch), claim.expected, budget=budget)
    outcome = run(start, tmp_path)
    assert outcome.judgement.verdict is Verdict.BOOTED
    assert outcome.observation.end is End.PROOF
    assert outcome.costs.instructions is not None
    assert 10_000_000 < outcome.costs.instructions < 2_000_000_000


@pytest.mark.parametrize(
    "echo",
    [
        b"[    0.0] Command line: ---[ end Kernel panic\r\n",
        b"[    0.0] Command line: -- bootproof: proof " + b"0" * 64 + b"\r\n",
    ],
)
def test_echo_of_a_command_line_ends_nothing(echo: bytes, tmp_path: Path) -> None:
    """Neither at once, nor by the small budget that a guest has after its proof."""
    claim = Claim(machine("x86_64"), program("x86_64").entry)
    code = program("x86_64").say(echo).count()
    image = Guest(code).write(tmp_path, machine("x86_64"))
    budget = Budget(instructions=50_000_000, proven_instructions=1_000_000)
    outcome = run(Start(image, machine("x86_64"), claim.expected, budget=budget), tmp_path)
    assert outcome.judgement.verdict is Verdict.OVER_BUDGET


@pytest.mark.parametrize(
    ("log", "end", "in_log"),
    [
        (b"[ 0.0] Linux version 6\n", End.PROOF, False),
        (b"[ 1.0] Kernel panic - not syncing: real\n", End.GUEST_HALTED, True),
        (b"", End.GUEST_HALTED, None),
    ],
)
def test_the_log_tells_whose_a_panic_after_the_proof_is(
    log: bytes, end: End, in_log: bool | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program that shows what another boot said does not end its own."""
    monkeypatch.setattr(logbuffer, "read", lambda _ram: log)
    claim = Claim(machine("x86_64"), program("x86_64").entry)
    code = program("x86_64").say(b"[ 0.0] Linux version 6\r\n" + claim.text())
    code.say(b"Kernel panic - not syncing: x\r\n---[ end Kernel panic\r\n").count()
    image = Guest(code).write(tmp_path, machine("x86_64"))
    budget = replace(Budget(), proven_instructions=10_000_000)
    start = Start(image, machine("x86_64"), claim.expected, budget=budget)
    seen = run(start, tmp_path).observation
    assert (seen.end, seen.panic_in_log) == (end, in_log)


@pytest.mark.parametrize("late", [0.0, 1.0])
def test_output_keeps_a_guest_alive(
    late: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted is instructions without output, not all of them; nor is a guest quiet whose
    output we are late to read, on a busy host.
    """
    read, begins = ConsoleFile._take, time.monotonic() + late

    def read_late(console: ConsoleFile, size: int) -> bytes:
        return read(console, size) if time.monotonic() > begins else b""

    monkeypatch.setattr(ConsoleFile, "_take", read_late)
    code = program("x86_64").say_for_ever(b"tick\n")
    image = Guest(code).write(tmp_path, machine("x86_64"))
    budget = Budget(quiet_instructions=1_000_000, console_bytes=512 << 10)
    start = Start(image, machine("x86_64"), Claim(machine("x86_64"), 0).expected, budget=budget)
    outcome = run(start, tmp_path)
    assert outcome.observation.end is End.CONSOLE_LIMIT


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_cause_of_an_end_is_known(arch: str, tmp_path: Path) -> None:
    """Asked of this QEMU itself: its own schema lists them."""
    with live(Guest(program(arch).halt()), machine(arch), tmp_path) as guest:
        schema = {entity["name"]: entity for entity in _schema(guest.monitor)}
    members = schema[schema["SHUTDOWN"]["arg-type"]]["members"]
    (reason,) = (member["type"] for member in members if member["name"] == "reason")
    assert set(schema[reason]["values"]) <= SHUTDOWNS.keys()
    ends = {cause: end for cause, end in SHUTDOWNS.items() if end is not End.HOST_ENDED}
    assert ends == {
        "guest-shutdown": End.GUEST_SHUTDOWN,
        "guest-reset": End.GUEST_RESET,
        "guest-panic": End.GUEST_HALTED,
    }


def _schema(monitor: Monitor) -> list[dict[str, Any]]:
    found = monitor.execute("query-qmp-schema")
    assert isinstance(found, list)
    return found


PANIC = b"Kernel panic - not syncing: no reason\n"


@pytest.mark.parametrize(
    ("logs", "ends"),
    [
        ([b"", b""], [False, False]),
        ([PANIC, PANIC], [False, True]),
        ([b"", PANIC, PANIC], [False, False, True]),
    ],
)
def test_a_panic_may_still_be_on_its_way_to_the_console(
    logs: list[bytes], ends: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log buffer has it first: a guest stopped in between ends elsewhere each time."""
    left = list(logs)
    monkeypatch.setattr(logbuffer, "read", lambda _ram: left.pop(0))
    monkeypatch.setattr(logbuffer, "holds", lambda *_: True)
    with watching(["true"], tmp_path) as (watch, _):
        assert [watch.panicked_unheard(1.0) for _ in logs] == ends
