"""Whole runs of bare-metal guests on real QEMU: every verdict, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from bootproof.harness.course import Outcome, in_the_way
from bootproof.harness.errors import UserError
from bootproof.harness.expected import CodeAnywhere, CodeAt
from bootproof.harness.host import process
from bootproof.harness.observation import End, Observation
from bootproof.harness.qemu import watchdog
from bootproof.harness.qemu.gdbstub import GdbStub
from bootproof.harness.qemu.monitor import Monitor
from bootproof.harness.record.playback import open_recorded
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget, Placement
from bootproof.harness.verdict import Verdict
from bootproof.loader import bootimage
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch import Stub
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.table import ARCHITECTURES
from tests.builders.guests import (
    BUDGET,
    PSCI_SYSTEM_OFF,
    Arm64Program,
    Claim,
    Guest,
    X86Program,
    boot,
    flat32,
    flat64,
    machine,
    program,
)

ARCHES = ("x86_64", "aarch64")
PANIC = b"Kernel panic - not syncing: VFS: Unable to mount root fs"
PANICKED = b"[    1.234567] " + PANIC + b"\r\n[    1.234568] ---[ end " + PANIC + b" ]---\r\n"


def ended(outcome: Outcome) -> tuple[Verdict, End]:
    return outcome.judgement.verdict, outcome.observation.end


@pytest.fixture(autouse=True)
def _no_qemu_stays(impatient: None) -> Iterator[None]:
    yield
    assert [child.name() for child in psutil.Process().children(recursive=True)] == []


# --- how a guest ends --------------------------------------------------------------------------


def lockup(second: int) -> bytes:
    name = b"watchdog: BUG: soft lockup - CPU#0 stuck for %ds! [swapper/0:1]" % second
    return b"[%5d.000001] %s\r\n" % (second, name)


@pytest.mark.parametrize("arch", ARCHES)
def test_a_lockup_that_the_kernel_reports_again_and_again_ends_the_run(
    arch: str, tmp_path: Path
) -> None:
    said = lockup(26) + lockup(48) + lockup(74)
    outcome = boot(program(arch).say(said).spin(), tmp_path)
    assert ended(outcome) == (Verdict.STUCK, End.LOCKED_UP)
    assert "BUG: soft lockup - CPU#0 stuck for 74s! [swapper/0:1] (3 times)" in (
        outcome.judgement.reason
    )


@pytest.mark.parametrize("arch", ARCHES)
def test_a_panic_after_the_proof_is_told_and_ends_the_run(arch: str, tmp_path: Path) -> None:
    code = program(arch)
    claim = Claim(machine(arch), code.entry)
    guest = code.say(claim.text() + PANICKED).halt()
    outcome = boot(guest, tmp_path, expected=claim.expected)
    assert ended(outcome) == (Verdict.BOOTED, End.GUEST_HALTED)
    assert outcome.judgement.reason.endswith("; then kernel panic: VFS: Unable to mount root fs")
    assert [item.after_proof for item in outcome.judgement.complaints] == [True]


@pytest.mark.parametrize("arch", ARCHES)
def test_panic_then_halt(arch: str, tmp_path: Path) -> None:
    outcome = boot(program(arch).say(PANICKED).halt(), tmp_path)
    assert ended(outcome) == (Verdict.PANIC, End.GUEST_HALTED)
    assert outcome.judgement.reason == "kernel panic: VFS: Unable to mount root fs"


@pytest.mark.parametrize("arch", ARCHES)
def test_panic_then_reset_is_no_reset(arch: str, tmp_path: Path) -> None:
    # The end mark is not there: a panic with panic=-1 resets at once.
    outcome = boot(program(arch).say(b"[    0.5] " + PANIC + b"\r\n").reset(), tmp_path)
    assert ended(outcome) == (Verdict.PANIC, End.GUEST_RESET)


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize("arch", ARCHES)
def test_reset_without_a_word(arch: str, probe: bool, tmp_path: Path) -> None:
    """The event comes within the first millisecond, when a monitor might not listen yet."""
    outcome = boot(program(arch).reset(), tmp_path, probe=probe)
    assert ended(outcome) == (Verdict.CPU_RESET, End.GUEST_RESET)
    assert "before any console output: " in outcome.judgement.reason


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({}, ": the last instruction wrote to an I/O port, which may have asked for a reset"),
        ({"realtime": "asked for"}, ""),
        ({"cpus": 2}, ""),
    ],
)
def test_cause_of_a_reset_is_told_where_the_cpu_stands_at_it(
    changes: dict[str, Any], cause: str, tmp_path: Path
) -> None:
    """In real time it goes on until QEMU stops it; and of several CPUs it may be any."""
    on = replace(machine("x86_64"), **changes)
    outcome = boot(X86Program(2 * MIB).reset_by_port(), tmp_path, on=on)
    assert ended(outcome) == (Verdict.CPU_RESET, End.GUEST_RESET)
    assert outcome.judgement.reason.endswith(f"before any console output{cause}")


@pytest.mark.parametrize("arch", ARCHES)
def test_reset_names_the_last_line(arch: str, tmp_path: Path) -> None:
    outcome = boot(program(arch).say(b"one\r\nt\x1bwo\r\n\r\n").reset(), tmp_path)
    assert ended(outcome) == (Verdict.CPU_RESET, End.GUEST_RESET)
    assert r"after 't\x1bwo'" in outcome.judgement.reason


@pytest.mark.parametrize("arch", ARCHES)
def test_silent_halt(arch: str, tmp_path: Path) -> None:
    outcome = boot(program(arch).halt(), tmp_path)
    assert ended(outcome) == (Verdict.SILENT, End.PARKED)


def test_parked_where_qemu_sleeps(tmp_path: Path) -> None:
    """Without any timer QEMU itself waits: no CPU time passes by which to tell."""
    budget = Budget(parked_looks=4, cpu_seconds=0.6)
    outcome = boot(program("aarch64").halt(), tmp_path, budget=budget)
    assert ended(outcome) == (Verdict.SILENT, End.PARKED)


@pytest.mark.parametrize("arch", ARCHES)
def test_text_then_halt(arch: str, tmp_path: Path) -> None:
    outcome = boot(program(arch).say(b"one\ntwo").halt(), tmp_path)
    assert ended(outcome) == (Verdict.STUCK, End.PARKED)
    assert "'two'" in outcome.judgement.reason


@pytest.mark.parametrize("arch", ARCHES)
def test_loop_in_place_with_interrupts_off(arch: str, tmp_path: Path) -> None:
    """Found by its registers, long before it has used up a budget."""
    unlimited = replace(BUDGET, quiet_instructions=10**12)
    outcome = boot(program(arch).say(b"here\n").spin(), tmp_path, budget=unlimited)
    assert ended(outcome) == (Verdict.STUCK, End.LOOPING)


def test_exceptions_without_end(tmp_path: Path) -> None:
    """A QEMU that records does not answer then: the guest is run once more, without a record."""
    outcome = boot(Arm64Program(GIB + 2 * MIB).undefined(), tmp_path, budget=Budget())
    assert ended(outcome) == (Verdict.SILENT, End.LOOPING)
    assert "stuck at 0x200 (interrupts off): loops in place" in outcome.judgement.reason
    assert outcome.not_recorded == "QEMU does not answer while it records this guest"
    assert not (tmp_path / "replay.json").exists()
    # Both runs have been paid for, the first one with all that an answer may take.
    waited = watchdog._ANSWER_CPU_SECONDS
    assert outcome.costs.cpu_seconds > waited + outcome.observation.cpu_seconds


def test_record_that_grows_too_long_does_not_end_the_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "MOST_WRITTEN", 128 << 10)
    said = b"0123456789abcde\n" * 2500
    outcome = boot(program("x86_64").say(said).reset(), tmp_path, budget=Budget())
    assert ended(outcome) == (Verdict.CPU_RESET, End.GUEST_RESET)
    assert outcome.observation.transcript == said
    assert outcome.not_recorded in (
        "QEMU could not write all of its log: it was too long, or the disk was full",
        "the record is longer than 128 KiB",  # where the signal of the limit ended QEMU
    )
    with pytest.raises(UserError, match=r"no record of this run \(replay.json\); result.json says"):
        open_recorded(tmp_path)


@pytest.mark.parametrize(
    ("end", "code", "size", "why"),
    [
        (End.TOO_BUSY, None, 0, "QEMU does not answer while it records this guest"),
        (End.QEMU_EXITED, -signal.SIGXFSZ, 4096, "the record is longer than 4 KiB"),
        (End.QEMU_EXITED, -signal.SIGXFSZ, 4095, None),  # then it was another file
        (End.QEMU_EXITED, -signal.SIGKILL, 4096, None),
        (End.QEMU_EXITED, 0, 4096, None),
        (End.NO_ANSWER, None, 4096, None),  # asleep, or a channel that closed
        (End.HOST_IDLE, None, 4096, None),
        (End.HOST_STOPPED, None, 4096, None),
        (End.HOST_ENDED, None, 4096, None),
    ],
)
def test_guest_is_run_again_only_when_the_record_was_in_its_way(
    end: End,
    code: int | None,
    size: int,
    why: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "MOST_WRITTEN", 4096)
    (tmp_path / "replay.bin").write_bytes(bytes(size))
    assert in_the_way(Observation(b"text", end, exit_code=code), tmp_path) == why


def test_stopped_qemu_is_no_failure_of_the_guest(tmp_path: Path) -> None:
    outcome = boot(
        program("x86_64").say(b"running\n").count(),
        tmp_path,
        budget=Budget(),
        on_console=_once(lambda: _qemu_of_this_process().suspend()),
    )
    assert ended(outcome) == (Verdict.INCONCLUSIVE, End.HOST_STOPPED)
    reason = "QEMU was stopped by a signal or a debugger, after 'running'"
    assert outcome.judgement.reason == reason


@pytest.mark.parametrize("arch", ARCHES)
def test_busy_without_output(arch: str, tmp_path: Path) -> None:
    outcome = boot(program(arch).count(), tmp_path)
    assert ended(outcome) == (Verdict.SILENT, End.NO_PROGRESS)
    instructions = outcome.costs.instructions
    assert instructions is not None and instructions > BUDGET.quiet_instructions


@pytest.mark.parametrize("arch", ARCHES)
def test_endless_printing_uses_up_the_budget(arch: str, tmp_path: Path) -> None:
    small = Budget(instructions=30_000)
    outcome = boot(program(arch).say_for_ever(b"again and again\n"), tmp_path, budget=small)
    assert ended(outcome) == (Verdict.OVER_BUDGET, End.BUDGET)
    assert outcome.judgement.reason.startswith("still going at 0x")


@pytest.mark.parametrize("arch", ARCHES)
def test_endless_printing_reaches_the_console_limit(arch: str, tmp_path: Path) -> None:
    small = Budget(console_bytes=4_000, cpu_seconds=10)
    outcome = boot(program(arch).say_for_ever(b"again and again\n"), tmp_path, budget=small)
    assert ended(outcome) == (Verdict.CONSOLE_LIMIT, End.CONSOLE_LIMIT)
    assert (tmp_path / "console.log").stat().st_size < 10 * MIB


def test_more_seconds_are_more_of_silence_too() -> None:
    """Less of them in all leaves what a silent guest may use: it is over before that."""
    assert Budget().with_limits(None, 900).quiet_cpu_seconds == 300
    assert Budget().with_limits(None, 900).instructions == Budget().instructions
    assert Budget().with_limits(5, 3) == replace(Budget(), instructions=5, cpu_seconds=3)
    assert Budget.unlimited().with_limits(None, None) == Budget.unlimited()


def test_power_off_through_psci(tmp_path: Path) -> None:
    code = Arm64Program(GIB + 2 * MIB).say(b"bye\n").psci(PSCI_SYSTEM_OFF)
    outcome = boot(code, tmp_path)
    assert ended(outcome) == (Verdict.GUEST_SHUTDOWN_EARLY, End.GUEST_SHUTDOWN)
    assert outcome.judgement.reason == "the guest powered off after 'bye'"


# --- what QEMU does wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
def test_qemu_that_refuses_its_arguments(arch: str, tmp_path: Path) -> None:
    computer = replace(machine(arch), cpu="no-such-cpu")
    outcome = boot(program(arch).halt(), tmp_path, on=computer)
    assert ended(outcome) == (Verdict.QEMU_FAILED, End.QEMU_EXITED)
    assert outcome.judgement.reason.startswith("QEMU ended with exit code 1 before any console")
    assert "no-such-cpu" in outcome.judgement.reason
    assert outcome.costs.host_seconds < 30


def _qemu_of_this_process() -> psutil.Process:
    (child,) = psutil.Process().children(recursive=True)
    return child


def _once(action: Callable[[], None]) -> Callable[[bytes], None]:
    """A console listener that acts on the first output."""
    done: list[bytes] = []

    def listen(data: bytes) -> None:
        if not done:
            action()
        done.append(data)

    return listen


@pytest.mark.parametrize("arch", ARCHES)
def test_qemu_killed_from_outside(arch: str, tmp_path: Path) -> None:
    outcome = boot(
        program(arch).say(b"running\n").count(),
        tmp_path,
        budget=Budget(),
        on_console=_once(lambda: _qemu_of_this_process().kill()),
    )
    assert ended(outcome) == (Verdict.QEMU_FAILED, End.QEMU_EXITED)
    assert outcome.judgement.reason.startswith("QEMU was ended by signal 9 after 'r")
    assert outcome.observation.exit_code == -signal.SIGKILL


TOLD = "QEMU was told to end, and not by the guest, after 'running': "


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("arch", ARCHES)
def test_qemu_told_to_end_by_a_signal_is_no_power_off(
    arch: str, number: signal.Signals, tmp_path: Path
) -> None:
    """QEMU ends in order then, with exit code 0 and the event of a guest that powers off."""
    outcome = boot(
        program(arch).say(b"running\n").count(),
        tmp_path,
        budget=Budget(),
        on_console=_once(lambda: _qemu_of_this_process().send_signal(number)),
    )
    assert ended(outcome) == (Verdict.INCONCLUSIVE, End.HOST_ENDED)
    assert outcome.judgement.reason.startswith(TOLD)
    assert f"terminating on signal {number}" in outcome.judgement.reason


@pytest.mark.parametrize("command", ["quit", "system_reset"])
@pytest.mark.parametrize("probe", [True, False])
def test_qemu_told_to_end_on_its_monitor_is_no_reset(
    command: str, probe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monitors: list[Monitor] = []
    connect = Monitor.connect

    def connected(self: Monitor, *arguments: Any, **named: Any) -> None:
        monitors.append(self)
        connect(self, *arguments, **named)

    monkeypatch.setattr(Monitor, "connect", connected)
    outcome = boot(
        program("x86_64").say(b"running\n").count(),
        tmp_path,
        budget=Budget(),
        probe=probe,
        on_console=_once(lambda: monitors[0].execute(command)),
    )
    assert ended(outcome) == (Verdict.INCONCLUSIVE, End.HOST_ENDED)
    assert outcome.judgement.reason == f"{TOLD}nothing on stderr"


def test_qemu_told_to_end_before_the_entry_has_not_missed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to = GdbStub.run_to

    def told(self: GdbStub, address: int, given_up: Callable[[], bool]) -> bool:
        _qemu_of_this_process().terminate()
        return run_to(self, address, given_up)

    monkeypatch.setattr(GdbStub, "run_to", told)
    # Never at the entry: an exception level that this machine has not got.
    guest = Guest(program("aarch64").halt(), Arm64Registers(GIB + 2 * MIB, pstate=0x3C9))
    outcome = boot(guest, tmp_path)
    assert outcome.judgement.verdict is Verdict.INCONCLUSIVE
    assert "terminating on signal 15" in outcome.judgement.reason


def test_proof_that_was_given_outlasts_a_qemu_that_is_told_to_end(tmp_path: Path) -> None:
    code = program("x86_64")
    claim = Claim(machine("x86_64"), code.entry)
    seen = bytearray()

    def listen(data: bytes) -> None:
        seen.extend(data)
        if seen.endswith(claim.text()):
            _qemu_of_this_process().terminate()

    guest = code.say(claim.text()).count()
    outcome = boot(guest, tmp_path, expected=claim.expected, budget=Budget(), on_console=listen)
    assert ended(outcome) == (Verdict.BOOTED, End.HOST_ENDED)


def test_what_was_printed_before_qemu_died_is_read(tmp_path: Path) -> None:
    """All of the console file counts, also what came after the last look at it."""
    outcome = boot(
        program("x86_64").say_for_ever(b"again and again\n"),
        tmp_path,
        budget=Budget(),
        on_console=_once(lambda: _qemu_of_this_process().kill()),
    )
    assert outcome.observation.transcript == (tmp_path / "console.log").read_bytes()


# --- proofs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "halt"])
@pytest.mark.parametrize("arch", ARCHES)
def test_right_proof(arch: str, end: str, tmp_path: Path) -> None:
    code = program(arch)
    claim = Claim(machine(arch), code.entry)
    outcome = boot(getattr(code.say(claim.text()), end)(), tmp_path, expected=claim.expected)
    assert ended(outcome) == (Verdict.BOOTED, End.GUEST_RESET if end == "reset" else End.PROOF)
    reason = f"6.1.0-test proved its boot; kernel code at {code.entry:#x}"
    assert outcome.judgement.reason == reason
    assert outcome.judgement.evidence.proof == claim.text()[-66:-2].decode()


@pytest.mark.parametrize("arch", ARCHES)
def test_forged_proof(arch: str, tmp_path: Path) -> None:
    """The right form and all the right evidence, made without this case's nonce."""
    code = program(arch)
    claim = Claim(machine(arch), code.entry)
    forged = claim.text(nonce="fedcba9876543210fedcba9876543210")
    outcome = boot(code.say(forged).reset(), tmp_path, expected=claim.expected)
    assert outcome.judgement.verdict is Verdict.BOOTED_WRONG
    sentence = "the proof is not over this case's nonce and this evidence"
    assert outcome.judgement.reason == sentence


CONTRADICTIONS: list[tuple[str, dict[str, str], str]] = [
    ("x86_64", {"cmdline": "quiet"}, "the command line is 'quiet', not 'console=ttyS0 "),
    ("aarch64", {"cpus": "2"}, "the guest has 2 CPUs, not 1"),
    ("x86_64", {"machine": "i686"}, "the guest is a i686, not x86_64"),
    (
        "x86_64",
        {"ram": "1000-9fbff", "memory": "512 kB"},
        "the guest sees RAM 0x1000-0x9fbff, not 0x1000-0x9fbff, 0x1",
    ),
    ("aarch64", {"memory": "32768 kB"}, "the guest has 32 MiB of memory in use, of 16 MiB"),
    ("x86_64", {"bootloader_type": "176"}, "bootloader_type is 176, not 255"),
    ("aarch64", {"request": "b"}, "the device tree is of request 'b', not 'a request'"),
]


@pytest.mark.parametrize(("arch", "lie", "sentence"), CONTRADICTIONS)
def test_single_contradiction(
    arch: str, lie: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    code = program(arch)
    claim = Claim(machine(arch), code.entry)
    outcome = boot(code.say(claim.text(**lie)).reset(), tmp_path, expected=claim.expected)
    assert outcome.judgement.verdict is Verdict.BOOTED_WRONG
    assert outcome.judgement.reason.startswith(sentence)
    assert "; " not in outcome.judgement.reason


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (CodeAt((0x400000, 0x410000)), "the kernel runs at 0x200000, not at 0x400000 or 0x410000"),
        (
            CodeAnywhere(0x400000, Range(0x200000, 4 * MIB)),
            "the kernel runs at 0x200000, which is not 0x400000-aligned in 0x200000-0x5fffff",
        ),
    ],
)
def test_code_at_another_address(
    wanted: CodeAt | CodeAnywhere, sentence: str, tmp_path: Path
) -> None:
    code = program("x86_64")
    claim = Claim(machine("x86_64"), code.entry)
    expected = replace(claim.expected, code=wanted)
    outcome = boot(code.say(claim.text()).reset(), tmp_path, expected=expected)
    assert outcome.judgement.verdict is Verdict.BOOTED_WRONG
    assert outcome.judgement.reason == sentence


def test_code_that_is_not_where_the_guest_says(tmp_path: Path) -> None:
    code = program("x86_64")
    claim = Claim(machine("x86_64"), code.entry)
    expected = replace(claim.expected, code=CodeAt((0x400000,)))
    text = claim.text(code="00400000-00400fff")  # nothing but zeros
    outcome = boot(code.say(text).reset(), tmp_path, expected=expected)
    assert outcome.judgement.verdict is Verdict.BOOTED_WRONG
    assert "not in RAM where the guest says it is" in outcome.judgement.reason


# --- the same guest again ----------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
def test_same_guest_same_bytes_same_instructions(arch: str, tmp_path: Path) -> None:
    """Twice through devices, once as a file; the boot image itself is never written to."""
    seen = []
    for number, placement in enumerate((Placement.DEVICES, Placement.DEVICES, Placement.MAPPED)):
        directory = tmp_path / str(number)
        directory.mkdir()
        guest = Guest(program(arch).say(b"abc\n" * 100).reset(), extra=_scattered(arch))
        image = guest.write(directory, machine(arch))
        before = _digest(directory)
        wanted = Claim(machine(arch), guest.program.entry).expected
        start = Start(image, machine(arch), wanted, placement, BUDGET)
        outcome = run(start, directory)
        assert _digest(directory) == before
        seen.append((outcome.observation.transcript, outcome.costs.instructions, outcome.judgement))
    assert seen[0][0] == b"abc\n" * 100
    assert seen[0] == seen[1]
    # What is staged is copied by the stub, but by the same instructions either way.
    assert seen[0] == seen[2]


def _scattered(arch: str) -> dict[int, bytes]:
    """Data at several places; on aarch64 also where QEMU puts its own device tree."""
    base = GIB if arch == "aarch64" else 0
    places = (0, 0x80000, 4 * MIB, 15 * MIB) if base else (0x20000, 4 * MIB, 15 * MIB)
    return {base + place: bytes([place >> 16 & 0xFF or 1]) * 0x3001 for place in places}


def _digest(directory: Path) -> str:
    return hashlib.sha256((directory / bootimage.RAM).read_bytes()).hexdigest()


@pytest.mark.parametrize("make", [flat32, flat64])
def test_probe_finds_cpu_and_ram_as_asked(make: Any, tmp_path: Path) -> None:
    guest = Guest(program("x86_64").say(b"on\n").halt(), make(2 * MIB), _scattered("x86_64"))
    outcome = boot(guest, tmp_path)
    assert outcome.observation.probe is not None
    assert outcome.observation.probe.clean
    assert outcome.observation.transcript == b"on\n"


def test_probe_finds_an_entry_that_is_not_reached(tmp_path: Path) -> None:
    """An exception level that this machine has not got: the stub's own registers are undefined."""
    guest = Guest(program("aarch64").halt(), Arm64Registers(GIB + 2 * MIB, pstate=0x3C9))
    outcome = boot(guest, tmp_path, budget=replace(BUDGET, entry_cpu_seconds=0.5))
    assert ended(outcome) == (Verdict.ENTRY_NOT_REACHED, End.NOT_ENTERED)


SLEEPS: Final = {  # with nothing that would wake the CPU
    "x86_64": b"\xfa\xf4\xeb\xfd",  # cli; hlt; jmp to it
    "aarch64": bytes.fromhex("7f2003d5 ffffff17"),  # wfi; b to it
    "riscv64": bytes.fromhex("73005010 6ff0dfff"),  # wfi; j to it
}


@pytest.mark.parametrize(
    ("arch", "realtime"), [*((arch, "") for arch in SLEEPS), ("aarch64", "asked for")]
)
def test_probe_does_not_wait_for_a_cpu_that_sleeps_before_the_entry(
    arch: str, realtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what it executes, which is nothing: it uses no CPU time that could run out. In real time
    nobody counts that, and it has to sleep for longer.
    """
    architecture = ARCHITECTURES[arch]

    def sleeping(*asked: Any) -> Stub:
        made: Stub = architecture.stub(*asked)
        return replace(made, code=SLEEPS[arch])

    changed = {arch: replace(architecture, stub=sleeping)}
    monkeypatch.setattr("bootproof.harness.qemu.placement.ARCHITECTURES", changed)
    budget = Budget(
        parked_cpu_seconds=0.3, entry_cpu_seconds=60.0, idle_seconds=15.0, entry_looks=40
    )
    on = replace(machine(arch), realtime=realtime)
    outcome = boot(program(arch).halt(), tmp_path, on=on, budget=budget)
    assert ended(outcome) == (Verdict.ENTRY_NOT_REACHED, End.NOT_ENTERED)
    assert outcome.costs.cpu_seconds < 30


# --- nothing is left behind --------------------------------------------------------------------


@pytest.mark.parametrize("placement", Placement)
def test_only_artifacts_stay(placement: Placement, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(0o700)
    directory = closed / "run"
    directory.mkdir()
    boot(program("aarch64").say(b"hello\n").reset(), directory, placement=placement)
    found = {path.name for path in directory.iterdir()}
    artifacts = {"boot.json", "ram.img", "console.log", "transcript.log", "qemu.sh", "stub0.bin"}
    assert found == artifacts | {"qemu.stderr", "replay.bin", "replay.json"}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    everything = (directory, *directory.iterdir())
    assert {path.lstat().st_uid for path in everything} == {os.geteuid()}


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    counts = []
    for number, computer in enumerate(
        [machine("x86_64"), machine("x86_64"), replace(machine("x86_64"), cpu="no-such-cpu")]
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        boot(program("x86_64").reset(), directory, on=computer)
        counts.append(len(list(Path("/proc/self/fd").iterdir())))
    assert counts == [counts[0]] * 3
