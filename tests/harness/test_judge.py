"""The rules of verdicts, one line of a table each; tests/harness/test_run.py has them for real."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from bootproof.harness import course
from bootproof.harness.expected import CodeAnywhere, CodeAt, CodeInside, Expected, ExpectedHandover
from bootproof.harness.guest.complaints import Kind
from bootproof.harness.judge import judge
from bootproof.harness.observation import Difference, End, Observation, Place, Probe, TextCheck
from bootproof.harness.qemu.watch import Ending
from bootproof.harness.start import Start
from bootproof.harness.terms import Usage
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.rules import Grade, RuleFinding
from tests import ROOT
from tests.builders.guests import Claim, machine

X86 = Claim(machine("x86_64"), 2 * MIB)
PANIC = b"[ 1.0] Kernel panic - not syncing: VFS: no root\r\nmore\r\n"


def verdict(transcript: bytes, end: End, **seen: Any) -> tuple[Verdict, str]:
    judgement = judge(X86.expected, Observation(transcript, end, **seen))
    return judgement.verdict, judgement.reason


# --- a console that is not whole ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("transcript", "end", "wanted"),
    [
        (X86.text(), End.GUEST_RESET, Verdict.INCONCLUSIVE),  # an oops may have come before it
        (X86.text(cpus="2"), End.GUEST_RESET, Verdict.INCONCLUSIVE),
        (b"", End.PARKED, Verdict.INCONCLUSIVE),
        (b"text", End.GUEST_RESET, Verdict.INCONCLUSIVE),
        (b"text", End.BUDGET, Verdict.INCONCLUSIVE),
        (PANIC, End.GUEST_RESET, Verdict.PANIC),
        (b"text", End.CONSOLE_LIMIT, Verdict.CONSOLE_LIMIT),
    ],
)
def test_what_the_console_does_not_show_proves_nothing_when_some_is_lost(
    transcript: bytes, end: End, wanted: Verdict
) -> None:
    found, reason = verdict(transcript, end, console_lost=True)
    assert found is wanted
    assert ("the host had no room" in reason) is (wanted is Verdict.INCONCLUSIVE)


def test_what_the_entry_probe_saw_needs_no_console() -> None:
    broken = (Probe(REACHED, findings=(VIOLATION,)), Probe(REACHED, differences=(OTHER_X0,)))
    for probe in (Probe(None, "elsewhere"), *broken):
        found, _ = verdict(b"text", End.NOT_ENTERED, console_lost=True, probe=probe)
        assert found is verdict(b"text", End.NOT_ENTERED, probe=probe)[0]
        assert found is not Verdict.INCONCLUSIVE


# --- in the host's time ------------------------------------------------------------------------

CLOCKLESS = b"[    0.000000] tsc: Marking TSC unstable due to could not calculate TSC khz\r\n"
TIMER = (
    b"[ 0.1] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug\r\n"
)


@pytest.mark.parametrize(
    ("transcript", "log", "end", "wanted"),
    [
        (CLOCKLESS, b"", End.BUDGET, Verdict.OVER_BUDGET),
        (CLOCKLESS, b"", End.NO_PROGRESS, Verdict.STUCK),
        (b"", CLOCKLESS, End.NO_PROGRESS, Verdict.SILENT),
        (TIMER, b"", End.GUEST_RESET, Verdict.PANIC),
    ],
)
def test_a_kernel_without_a_clock_may_be_the_hosts_doing_in_real_time_only(
    transcript: bytes, log: bytes, end: End, wanted: Verdict
) -> None:
    assert verdict(transcript, end, log=log)[0] is wanted
    found, reason = verdict(transcript, end, log=log, realtime="asked for")
    assert found is Verdict.INCONCLUSIVE
    assert "which in real time (asked for) may be the host's doing; " in reason


def test_tests_that_a_host_without_time_kept_from_ending_have_not_failed() -> None:
    stamp = b"[ 0.5] "
    kunit = b"".join(stamp + line + b"\r\n" for line in (b"TAP version 14", b"1..2", b"ok 1 a"))
    seen = Observation(CLOCKLESS + kunit, End.NO_PROGRESS)
    assert [test.failed for test in judge(X86.expected, seen).tests] == [False, True]
    found = judge(X86.expected, dataclasses.replace(seen, realtime="asked for"))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert [test.failed for test in found.tests] == [False]


@pytest.mark.parametrize(
    ("transcript", "end", "wanted"),
    [
        (CLOCKLESS + PANIC, End.GUEST_RESET, Verdict.PANIC),
        (CLOCKLESS, End.GUEST_RESET, Verdict.CPU_RESET),
        (b"[ 0.1] Kernel command line: " + CLOCKLESS[16:], End.BUDGET, Verdict.OVER_BUDGET),
        (CLOCKLESS + X86.text(), End.GUEST_RESET, Verdict.BOOTED),
    ],
)
def test_a_kernel_without_a_clock_fails_for_other_reasons(
    transcript: bytes, end: End, wanted: Verdict
) -> None:
    assert verdict(transcript, end, realtime="asked for")[0] is wanted


# --- without a proof ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transcript", "end", "seen", "wanted", "reason"),
    [
        (
            b"",
            End.GUEST_RESET,
            {"place": Place(0xFFF0), "reset": "a triple fault"},
            Verdict.CPU_RESET,
            "the CPU was reset at 0xfff0, before any console output: a triple fault",
        ),
        (
            b"a\nb\n\n",
            End.GUEST_SHUTDOWN,
            {},
            Verdict.GUEST_SHUTDOWN_EARLY,
            "the guest powered off after 'b'",
        ),
        (
            b"",
            End.GUEST_SHUTDOWN,
            {"exit_code": 3},
            Verdict.GUEST_SHUTDOWN_EARLY,
            "the guest powered off with exit code 3 before any console output",
        ),
        (
            b"",
            End.NO_PROGRESS,
            {"instructions": 1_234_567_890},
            Verdict.SILENT,
            (
                "stuck: runs, and prints nothing, before any console output,"
                " 1,235 million guest instructions in"
            ),
        ),
        (
            b"hello",
            End.PARKED,
            {"cpu_seconds": 2.04, "place": Place(0x200, "vectors+0x200", interrupts_off=True)},
            Verdict.STUCK,
            (
                "stuck at 0x200: vectors+0x200 (interrupts off): halted, and nothing will wake it,"
                " after 'hello', 2.0 s of QEMU CPU time in"
            ),
        ),
        (
            b"x",
            End.NO_PROGRESS,
            {"instructions": 400_000_000, "cpu_seconds": 100.0},
            Verdict.STUCK,
            (
                "stuck: runs, and prints nothing, after 'x', 400 million guest instructions in;"
                " 4 million in a CPU second: a host that slow needs more (--budget-seconds)"
            ),
        ),
        (
            b"x",
            End.BUDGET,
            {"instructions": 0},
            Verdict.OVER_BUDGET,
            "still going after 0 million guest instructions, after 'x'",
        ),
        (
            b"x" * 2048,
            End.CONSOLE_LIMIT,
            {},
            Verdict.CONSOLE_LIMIT,
            "2 KiB of output, after '" + "x" * 2048 + "'",
        ),
        (
            b"",
            End.QEMU_EXITED,
            {"exit_code": 1, "stderr": "one\nno such CPU"},
            Verdict.QEMU_FAILED,
            "QEMU ended with exit code 1 before any console output: no such CPU",
        ),
        (
            b"hi",
            End.QEMU_EXITED,
            {"exit_code": -11},
            Verdict.QEMU_FAILED,
            "QEMU was ended by signal 11 after 'hi': nothing on stderr",
        ),
        (
            b"hi",
            End.QEMU_EXITED,
            {"exit_code": -9},
            Verdict.QEMU_FAILED,
            "QEMU was ended by signal 9 after 'hi': nothing on stderr; is the host out of memory?",
        ),
        (
            b"hi",
            End.QEMU_EXITED,
            {"exit_code": 0},
            Verdict.INCONCLUSIVE,
            "QEMU ended with exit code 0 and no event after 'hi': nothing on stderr",
        ),
        (
            b"hi",
            End.HOST_IDLE,
            {},
            Verdict.INCONCLUSIVE,
            "QEMU was given no CPU time, after 'hi'",
        ),
    ],
)
def test_without_a_proof(
    transcript: bytes, end: End, seen: dict[str, Any], wanted: Verdict, reason: str
) -> None:
    assert verdict(transcript, end, **seen) == (wanted, reason)


@pytest.mark.parametrize("end", End)
def test_a_panic_is_a_panic_however_it_ends(end: End) -> None:
    assert verdict(PANIC, end) == (Verdict.PANIC, "kernel panic: VFS: no root")


@pytest.mark.parametrize("end", End)
def test_a_right_proof_is_a_boot_however_it_ends(end: End) -> None:
    boot = "6.1.0-test proved its boot; kernel code at 0x200000"
    then = f"; then {end.value}" if end is End.LOCKED_UP else ""
    assert verdict(X86.text(), end) == (Verdict.BOOTED, f"{boot}{then}")
    panicked = f"{boot}; then kernel panic: VFS: no root"
    assert verdict(X86.text() + PANIC, end) == (Verdict.BOOTED, panicked)


@pytest.mark.parametrize("end", End)
def test_every_end_has_a_verdict_without_a_proof(end: End) -> None:
    found, reason = verdict(b"text", end, exit_code=1)
    assert found not in (Verdict.BOOTED, Verdict.BOOTED_WRONG, Verdict.PANIC)
    assert reason


# --- a program of the user's after the proof -----------------------------------------------------

NEXT = dataclasses.replace(X86, cmdline=f"{X86.cmdline} bootproof.next=/init")
KILLED = b"[ 2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x%08x\r\n"
STALL = b"[ 26.0] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:1]\r\n"


@pytest.mark.parametrize(
    ("after", "end", "wanted", "then"),
    [
        (b"[ 2.0] reboot: Restarting system\r\n", End.GUEST_RESET, Verdict.BOOTED, ""),
        (b"ok 1\r\n", End.PROOF, Verdict.BOOTED, "; /init did not end by itself"),
        (
            b"y\r\n",
            End.CONSOLE_LIMIT,
            Verdict.BOOTED,
            "; /init did not end by itself: the console's limit was reached",
        ),
        (b"[ 2.0] reboot: System halted\r\n", End.PROOF, Verdict.BOOTED, ""),
        (KILLED % 0, End.GUEST_RESET, Verdict.BOOTED, "; then /init exited with 0"),
        (
            b"not ok 1\r\n" + KILLED % 0x300,
            End.GUEST_RESET,
            Verdict.INIT_FAILED,
            (
                "; then /init exited with 3 after 'not ok 1'"
                " (Attempted to kill init! exitcode=0x00000300)"
            ),
        ),
        (
            b"[ 2.0] reboot: Power down\r\n" + KILLED % 0x300,  # it only said so
            End.GUEST_HALTED,
            Verdict.INIT_FAILED,
            "; then /init exited with 3 (Attempted to kill init! exitcode=0x00000300)",
        ),
        (
            KILLED % 0xB,
            End.GUEST_HALTED,
            Verdict.INIT_FAILED,
            "; then /init was ended by signal 11 (Attempted to kill init! exitcode=0x0000000b)",
        ),
        (
            b"[ 2.0] Kernel panic - not syncing: sysrq triggered crash\r\n",
            End.GUEST_RESET,
            Verdict.PANIC,
            "; then kernel panic: sysrq triggered crash",
        ),
        (
            b"[ 2.0] Oops: 0002 [#1] SMP\r\n[ 2.0] RIP: 0010:f+0x1/0x2\r\nok 1\r\n",
            End.GUEST_RESET,
            Verdict.OOPS,
            "; then Oops: 0002 [#1], in f+0x1/0x2",
        ),
        (
            STALL,
            End.LOCKED_UP,
            Verdict.STUCK,
            "; then watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:1]",
        ),
        (
            b"[ 2.0] reboot: Power down\r\n" + KILLED % 0,  # no ACPI: it was all that init could
            End.GUEST_HALTED,
            Verdict.BOOTED,
            "",
        ),
    ],
)
def test_the_end_of_the_users_program_is_part_of_the_verdict(
    after: bytes, end: End, wanted: Verdict, then: str
) -> None:
    judgement = judge(NEXT.expected, Observation(NEXT.text() + after, end))
    reason = f"6.1.0-test proved its boot; kernel code at 0x200000{then}"
    assert (judgement.verdict, judgement.reason) == (wanted, reason)


QUOTED = b"Kernel panic - not syncing: of another boot\r\n---[ end Kernel panic\r\n"
ORDER = b"[ 2.0] reboot: Restarting system\r\n"
ANOTHER = b"[ 0.0] Linux version 6.1.0 (kexec)\r\n"
STAMPED = b"[ 0.1] a line of the kernel's\r\n"


@pytest.mark.parametrize(
    ("before", "after", "in_log", "wanted"),
    [
        (b"", QUOTED + ORDER, None, Verdict.BOOTED),
        (b"", b"[ 1.0] " + QUOTED + ORDER, None, Verdict.BOOTED),  # the last boot's log
        (STAMPED, QUOTED, False, Verdict.BOOTED),
        # A panic it may be: without stamps nobody knows whose it is, and a stamp can be copied.
        (b"", QUOTED, None, Verdict.PANIC),
        (b"", QUOTED, False, Verdict.PANIC),
        (STAMPED, QUOTED, None, Verdict.PANIC),
        (STAMPED, b"[ 2.0] " + QUOTED, False, Verdict.PANIC),
        # A panic it is: the log has it, the order came before it, or a crash kernel's came after.
        (STAMPED, QUOTED + ORDER, True, Verdict.PANIC),
        (b"", ORDER + QUOTED, None, Verdict.PANIC),
        (STAMPED, QUOTED + b"[ 3.0] " + QUOTED + ORDER + b"[ 4.0] " + QUOTED, None, Verdict.PANIC),
        (STAMPED, b"[ 3.0] " + QUOTED + ANOTHER + ORDER, False, Verdict.PANIC),
    ],
)
def test_a_panic_that_a_program_prints_is_none(
    before: bytes, after: bytes, in_log: bool | None, wanted: Verdict
) -> None:
    said = before + NEXT.text() + after
    judgement = judge(NEXT.expected, Observation(said, End.GUEST_RESET, panic_in_log=in_log))
    assert judgement.verdict is wanted
    assert any(found.kind is Kind.PANIC for found in judgement.complaints) <= (not wanted.passed)


@pytest.mark.parametrize("end", [end for end in End if end.of_host])
@pytest.mark.parametrize("program", ["/init", "/bootproof/run-tests"])
def test_what_the_host_cut_short_is_no_failure_of_the_guest(program: str, end: End) -> None:
    claim = dataclasses.replace(X86, cmdline=f"{X86.cmdline} bootproof.next={program}")
    running = claim.text() + b"\nbootproof: test 1/1 begins: ./long\n" * 2
    judgement = judge(claim.expected, Observation(running, end, exit_code=-9))
    assert judgement.verdict.of_host
    assert "proved its boot" in judgement.reason
    assert not judgement.tests  # each would be a failure of its own in JUnit and KCIDB
    assert "tests:" not in judgement.reason
    restarting = running + b"[ 2.0] reboot: Restarting system\n"
    assert not judge(claim.expected, Observation(restarting, end, exit_code=-9)).verdict.of_host


def test_a_program_that_could_not_be_unpacked_is_not_to_blame() -> None:
    broken = b"[ 1.0] Initramfs unpacking failed: XZ-compressed data is corrupt\r\n"
    seen = Observation(broken + NEXT.text() + KILLED % 0x7F00, End.GUEST_RESET)
    judgement = judge(NEXT.expected, seen)
    assert judgement.verdict is Verdict.INIT_FAILED
    assert judgement.reason.endswith("; Initramfs unpacking failed: XZ-compressed data is corrupt")


@pytest.mark.parametrize(
    ("status", "told"), [(0x7F00, True), (0x7E00, True), (0x100, False), (0x9, False)]
)
def test_a_program_that_the_shell_could_not_become_is_told_of(status: int, told: bool) -> None:
    """Of a program that ran and failed, nothing is known by its file."""
    why = "/init is a script for /bin/bash; /bin/bash is not in the initrd"
    start = Start(None, machine("x86_64"), NEXT.expected, unstartable=lambda: why)  # type: ignore[arg-type]
    seen = Observation(NEXT.text() + KILLED % status, End.GUEST_RESET)
    judgement, _ = course.judged(start, seen, Ending(End.GUEST_RESET, Usage(0, 0.0, 0)))
    assert judgement.verdict is Verdict.INIT_FAILED
    assert judgement.reason.endswith(f"; {why}") is told
    unknown = dataclasses.replace(start, unstartable=lambda: "")
    reason = course.judged(unknown, seen, Ending(End.GUEST_RESET, Usage(0, 0.0, 0)))[0].reason
    assert reason == judge(NEXT.expected, seen).reason


def test_a_shell_of_ours_after_the_proof_is_no_program_of_the_users() -> None:
    shell = dataclasses.replace(X86, cmdline=f"{X86.cmdline} bootproof.next=/bootproof/shell")
    judgement = judge(shell.expected, Observation(shell.text() + KILLED % 0x300, End.GUEST_RESET))
    assert judgement.verdict is Verdict.BOOTED
    assert "then init exited with 3" in judgement.reason


def test_the_program_behind_the_tests_counts() -> None:
    """Modules are loaded by way of run-tests, and the user's init runs then."""
    words = "bootproof.next=/bootproof/run-tests bootproof.then=/init"
    claim = dataclasses.replace(X86, cmdline=f"{X86.cmdline} {words}")
    loaded = b"\r\nbootproof: test 1/1 begins: a\r\n\r\nbootproof: test 1/1 ended with 0\r\n"
    seen = Observation(claim.text() + loaded + KILLED % 0x300, End.GUEST_RESET)
    judgement = judge(claim.expected, seen)
    assert judgement.verdict is Verdict.INIT_FAILED
    assert "; then /init exited with 3 after " in judgement.reason
    assert judgement.reason.endswith("; tests: 1 passed")


@pytest.mark.parametrize("shell", ["shell", "dialogue"])
def test_a_kernel_that_dies_while_one_talks_to_a_shell_of_ours(shell: str) -> None:
    talked = dataclasses.replace(X86, cmdline=f"{X86.cmdline} bootproof.next=/bootproof/{shell}")
    panic = b"[ 2.0] Kernel panic - not syncing: sysrq triggered crash\r\n"
    judgement = judge(talked.expected, Observation(talked.text() + panic, End.GUEST_RESET))
    assert judgement.verdict is Verdict.PANIC
    assert judgement.reason.endswith("; then kernel panic: sysrq triggered crash")
    left = judge(talked.expected, Observation(talked.text(), End.PROOF))
    assert (left.verdict, left.reason.count("did not end")) == (Verdict.BOOTED, 0)


# --- what the kernel itself says ---------------------------------------------------------------

WARN = b"[ 0.5] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2\r\n"


@pytest.mark.parametrize(
    ("said", "wanted", "reason"),
    [
        (b"TAP version 13\n1..1\nok 1 a\n", Verdict.BOOTED, "; tests: 1 passed"),
        (
            b"TAP version 13\n1..1\nnot ok 1 a\n",
            Verdict.TESTS_FAILED,
            "1 of 1 tests failed: a (",
        ),
        (b"TAP version 13\n1..2\nok 1 a\n", Verdict.TESTS_FAILED, "1 of 2 tests were run"),
        # The crash is the verdict, and what it kept from ending is told.
        (b"TAP version 13\n1..2\nok 1 a\n" + PANIC, Verdict.PANIC, "1 of 2 tests were run"),
    ],
)
def test_tests_in_the_guest_are_part_of_the_verdict(
    said: bytes, wanted: Verdict, reason: str
) -> None:
    program = "bootproof.next=/init"
    claim = dataclasses.replace(X86, cmdline=f"{X86.cmdline} {program}")
    seen = Observation(b"[ 0.1] Linux version 6\n" + claim.text() + said, End.GUEST_RESET)
    found = judge(claim.expected, seen)
    assert found.verdict is wanted
    assert reason in found.reason
    assert found.tests


def test_an_init_that_stays_after_its_tests_has_failed_none() -> None:
    seen = Observation(NEXT.text() + b"TAP version 13\n1..1\nok 1 a\n", End.PROOF)
    assert judge(NEXT.expected, seen).verdict is Verdict.BOOTED


def test_results_without_a_proof_are_anybodys() -> None:
    seen = Observation(b"[ 0.1] Linux version 6\nTAP version 13\n1..1\nok 1 a\n", End.PARKED)
    assert judge(NEXT.expected, seen).tests == ()


def test_tests_that_were_asked_for_and_never_began() -> None:
    claim = dataclasses.replace(X86, cmdline=f"{X86.cmdline} bootproof.next=/bootproof/run-tests")
    found = judge(claim.expected, Observation(claim.text(), End.GUEST_RESET))
    assert found.verdict is Verdict.TESTS_FAILED
    assert found.reason.startswith("1 of 1 tests failed: --test: no test began")


def test_a_frame_that_a_test_printed_does_not_end_it() -> None:
    claim = dataclasses.replace(X86, cmdline=f"{X86.cmdline} bootproof.next=/bootproof/run-tests")
    begins = b"\nbootproof: test 1/1 begins: echo the next line; sleep 1000000\n"
    said = claim.text() + begins * 2 + b"bootproof: test 1/1 ended with 0\n"
    hangs = judge(claim.expected, Observation(said, End.PROOF))
    assert hangs.verdict is Verdict.TESTS_FAILED
    assert "--test: the guest did not end behind the last" in hangs.reason
    lost = judge(claim.expected, Observation(said, End.PROOF, console_lost=True))
    assert lost.verdict is Verdict.INCONCLUSIVE  # the word of its end may be among it
    assert not any(test.failed for test in lost.tests)
    ended = Observation(said + b"[ 2.0] reboot: Restarting system\n", End.PROOF)
    assert judge(claim.expected, ended).verdict is Verdict.BOOTED


def test_complaints_are_told_whatever_the_verdict_is() -> None:
    booted = judge(X86.expected, Observation(WARN + X86.text() + PANIC, End.GUEST_RESET))
    told = [(item.kind.value, item.after_proof) for item in booted.complaints]
    assert told == [("warning", False), ("panic", True)]
    logged = judge(X86.expected, Observation(b"", End.PARKED, log=WARN))
    assert [item.kind.value for item in logged.complaints] == ["warning"]


@pytest.mark.parametrize(
    ("end", "wanted", "reason"),
    [
        (End.LOCKED_UP, Verdict.STUCK, "stuck: watchdog: BUG: soft lockup - CPU#0 stuck for 26s!"),
        (End.IDLING, Verdict.STUCK, "stuck: watchdog: BUG: soft lockup - CPU#0 stuck for 26s!"),
        (End.BUDGET, Verdict.OVER_BUDGET, "still going: watchdog: BUG: soft lockup - CPU#0 stuck"),
    ],
)
def test_a_lockup_that_the_log_names_is_the_reason(end: End, wanted: Verdict, reason: str) -> None:
    found, said = verdict(STALL, end)
    assert (found, said[: len(reason)]) == (wanted, reason)


@pytest.mark.parametrize(
    ("transcript", "end", "wanted"),
    [
        (b"[ 1.0] reboot: System halted\r\n", End.PARKED, "halted"),
        (b"[ 1.0] reboot: System halted\r\n", End.LOOPING, "halted"),
        (b"[ 1.0] reboot: Power down\r\n", End.PARKED, "powered down"),
        (b"[ 1.0] reboot: Power down\r\n" + KILLED % 0, End.GUEST_RESET, "powered down"),
    ],
)
def test_a_guest_that_ends_in_order_is_not_stuck(transcript: bytes, end: End, wanted: str) -> None:
    found, reason = verdict(transcript, end)
    assert (found, wanted in reason) == (Verdict.GUEST_SHUTDOWN_EARLY, True)


def test_an_init_that_failed_was_not_powered_down() -> None:
    said = b"[ 1.0] reboot: Power down\r\n" + KILLED % 0x300
    assert verdict(said, End.GUEST_RESET)[0] is Verdict.INIT_FAILED


def test_a_restart_that_never_comes_is_stuck() -> None:
    assert verdict(b"[ 1.0] reboot: Restarting system\r\n", End.PARKED)[0] is Verdict.STUCK


def test_a_lost_root_has_its_cause_and_the_initrds_place() -> None:
    said = (
        b"[ 0.0] RAMDISK: [mem 0x1fe10000-0x1fffffff]\r\n"
        b"[ 1.0] Initramfs unpacking failed: junk within compressed archive\r\n"
        b"[ 1.1] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r\n"
    )
    assert verdict(said, End.GUEST_RESET) == (
        Verdict.PANIC,
        (
            "kernel panic: VFS: Unable to mount root fs on unknown-block(0,0); Initramfs unpacking"
            " failed: junk within compressed archive (the initrd at 0x1fe10000-0x1fffffff)"
        ),
    )
    panicked = said[said.index(b"[ 1.1]") :]  # of a kernel with loglevel=1
    assert "; Initramfs unpacking failed: junk" in verdict(panicked, End.GUEST_RESET, log=said)[1]


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transcript", "wanted"),
    [
        (b"caf\xe9 \x1b[31mred\x1b[0m\n", r"'caf\xe9 \x1b[31mred\x1b[0m'"),
        (b"one\ntwo\x1b[3", "'two'"),  # the console's limit, or the guest's end
        (b"one\ntwo\x1b", "'two'"),
        (b"caf\xc3", "'caf'"),
        (b"a whole one\xc3\n", r"'a whole one\xc3'"),
        (b"\x1b[31m" + b"x" * 4095 + b"y", "'" + "x" * 4095 + "y'"),
        (b"z\x1b[31m" + b"x" * 4094, "'" + "x" * 4094 + "'"),
        (b"it's", '"it\'s"'),
    ],
)
def test_what_is_quoted_is_shown_once_and_whole(transcript: bytes, wanted: str) -> None:
    assert f"after {wanted}, 0.0 s" in verdict(transcript, End.PARKED)[1]


EXITED = b"[ 1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000300\r\n"
DIED = b"[ 1.0] BUG: unable to handle page fault\r\n[ 1.0] Oops: 0002 [#1] SMP\r\n"
FATAL = b"[ 1.1] Kernel panic - not syncing: Fatal exception\r\n"
RESTARTED = b"[ 1.0] reboot: Restarting system\r\n"
IN_RAM = " (from the log buffer in RAM: the console does not show it)"
OOPS = "BUG: unable to handle page fault"


@pytest.mark.parametrize(
    ("text", "wanted", "reason"),
    [
        (
            EXITED,
            Verdict.INIT_FAILED,
            ("init exited with 3 without its proof (Attempted to kill init! exitcode=0x00000300)"),
        ),
        (DIED + FATAL, Verdict.PANIC, f"kernel panic: Fatal exception; {OOPS}"),
        (DIED + EXITED, Verdict.PANIC, "kernel panic: Attempted to kill init! exitcode=0x0000"),
        (DIED, Verdict.OOPS, f"{OOPS}"),
        (RESTARTED, Verdict.GUEST_SHUTDOWN_EARLY, "the guest was restarted in order: 'reboot: R"),
    ],
    ids=["init", "fatal oops", "oops killed init", "oops", "restart"],
)
def test_what_the_kernel_says_of_its_end(text: bytes, wanted: Verdict, reason: str) -> None:
    """On the console, or in RAM only: then it is labelled, and the verdict the same."""
    found, said = verdict(text, End.GUEST_RESET)
    assert found is wanted and said.startswith(reason) and IN_RAM not in said
    found, said = verdict(b"quiet", End.GUEST_RESET, log=text)
    assert found is wanted and said.startswith(reason) and IN_RAM in said


def test_restart_is_an_end_only_when_the_machine_was_reset() -> None:
    assert verdict(RESTARTED, End.PARKED)[0] is Verdict.STUCK


NOT_THE_GUEST = (
    *(End.QEMU_EXITED, End.HOST_ENDED, End.NO_ANSWER, End.TOO_BUSY),
    *(End.HOST_IDLE, End.HOST_STOPPED),
)


@pytest.mark.parametrize("until", [None, b"login:"])
@pytest.mark.parametrize("probe", [None, Probe(None, "the CPU was elsewhere")])
@pytest.mark.parametrize("end", NOT_THE_GUEST)
def test_end_that_is_not_the_guests_is_neither_pass_nor_failure(
    end: End, probe: Probe | None, until: bytes | None
) -> None:
    seen = Observation(b"text", end, exit_code=0, probe=probe)
    for expected in (X86.expected, ExpectedHandover(0x1000, until)):
        assert judge(expected, seen).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("end", NOT_THE_GUEST)
def test_log_buffer_does_not_excuse_qemu_or_the_host(end: End) -> None:
    found, reason = verdict(b"quiet", end, exit_code=1, log=PANIC)
    assert found in (Verdict.QEMU_FAILED, Verdict.INCONCLUSIVE)
    assert "log buffer" not in reason


def test_log_buffer_makes_no_pass() -> None:
    assert verdict(b"", End.PARKED, log=X86.text())[0] is Verdict.SILENT


def test_oops_before_the_proof_and_after_it() -> None:
    found, reason = verdict(DIED + X86.text(), End.GUEST_RESET)
    assert (found, reason) == (Verdict.OOPS, f"{OOPS}; init proved its boot all the same")
    assert verdict(X86.text() + DIED, End.GUEST_RESET)[0] is Verdict.BOOTED


def test_end_of_the_log_buffer_is_quoted_where_the_console_lacks_it() -> None:
    _, reason = verdict(b"", End.PARKED, log=b"zero\none\n\ntwo\nth\x1bree\n")
    assert r"(the log buffer in RAM ends with 'one / two / th\x1bree')" in reason
    _, reason = verdict(b"[ 1.0] three\r\n", End.PARKED, log=b"two\nthree\n")
    assert "log buffer" not in reason


# --- contradictions ----------------------------------------------------------------------------

LEFT_OUT = {
    "cmdline": "the command line is None, not 'console=ttyS0 ",
    "release": "the guest's kernel is None, not '6.1.0-test'",
    "cpus": "the guest has None CPUs, not 1",
    "machine": "the guest is a None, not x86_64",
    "code": "the guest did not say where its kernel code is",
    "ram": "the guest sees RAM nothing, not 0x1000-0x9fbff, 0x100000-0xffffff",
    "memory": "the guest has 0 bytes of memory in use, of 15995 KiB",
    "bootloader_type": "bootloader_type is None, not 255",
}


@pytest.mark.parametrize("key", LEFT_OUT)
def test_a_line_left_out_is_a_contradiction(key: str) -> None:
    found, reason = verdict(X86.text(**{key: None}), End.GUEST_RESET)
    assert found is Verdict.BOOTED_WRONG
    assert reason.startswith(LEFT_OUT[key]) and "; " not in reason


def test_every_line_is_needed() -> None:
    assert set(LEFT_OUT) == set(X86.lines)


def test_a_guest_of_another_kernel_than_was_asked_for() -> None:
    found, reason = verdict(X86.text(release="6.1.0-other"), End.GUEST_RESET)
    assert found is Verdict.BOOTED_WRONG
    assert reason == "the guest's kernel is '6.1.0-other', not '6.1.0-test'"
    assert verdict(X86.text(release="another in it"), End.GUEST_RESET)[0] is Verdict.BOOTED


def test_contradictions_are_all_named() -> None:
    found, reason = verdict(X86.text(cpus="2", machine="i686", nonce="0"), End.GUEST_RESET)
    assert found is Verdict.BOOTED_WRONG
    assert reason == (
        "the proof is not over this case's nonce and this evidence; the guest has 2 CPUs, not 1;"
        " the guest is a i686, not x86_64"
    )


@pytest.mark.parametrize("proof", [b"no digest", b"00", b"\xff"])
def test_a_proof_line_that_is_none_proves_nothing(proof: bytes) -> None:
    """Nor does it say that anything is wrong with the boot."""
    block = X86.text()
    forged = block[: block.index(b"proof ")] + b"proof " + proof + b"\n"
    assert verdict(forged, End.PARKED)[0] is Verdict.STUCK
    assert verdict(forged, End.GUEST_RESET)[0] is Verdict.CPU_RESET
    found, reason = verdict(forged + RESTARTED, End.GUEST_RESET)
    assert found is Verdict.INCONCLUSIVE
    assert reason == "init ran, but its proof is not whole on the console"


# --- differences that are the guest's own ------------------------------------------------------

BOOTED = "6.1.0-test proved its boot; kernel code at 0x200000"


@pytest.mark.parametrize("cmdline", ["{} quiet", "loglevel=7 panic=5 {}", "a {} b"])
def test_words_that_the_kernel_has_by_itself_are_said(cmdline: str) -> None:
    added = " ".join(cmdline.replace("{}", "").split())
    found, reason = verdict(X86.text(cmdline=cmdline.format(X86.cmdline)), End.GUEST_RESET)
    assert found is Verdict.BOOTED
    assert reason == f"{BOOTED}; the kernel has {added!r} in its command line by itself"


@pytest.mark.parametrize("cmdline", ["{}1", "x{}", "", "quiet"])
def test_words_that_are_not_whole_are_not_those_that_were_asked_for(cmdline: str) -> None:
    found, reason = verdict(X86.text(cmdline=cmdline.format(X86.cmdline)), End.GUEST_RESET)
    assert found is Verdict.BOOTED_WRONG
    assert reason.endswith(f", not {X86.cmdline!r}")


@pytest.mark.parametrize(
    ("words", "said", "sentence"),
    [
        ("mem=8M", {"ram": "1000-9fbff\n100000-7fffff"}, "RAM 0x1000-0x9fbff, 0x100000-0x7fffff"),
        ("memmap=1M$8M", {"ram": "1000-9fbff\n900000-ffffff"}, "RAM 0x1000-0x9fbff, 0x900000-0x"),
        ("memmap=exactmap memmap=15M@1M", {"ram": "100000-ffffff"}, "RAM 0x100000-0xffffff"),
    ],
)
def test_memory_that_an_option_takes_away_is_explained_by_its_name(
    words: str, said: dict[str, str], sentence: str
) -> None:
    said |= {"memory": "6000 kB"}
    cmdline = f"{words} {X86.cmdline}"
    found, reason = verdict(X86.text(cmdline=cmdline, **said), End.GUEST_RESET)
    assert found is Verdict.BOOTED
    assert f"; the guest sees {sentence}" in reason and reason.endswith(f" ({words})")
    # Without that word, behind the dashes, or as the value of another, nothing explains it.
    for other in (X86.cmdline, f"{X86.cmdline} -- {words}", f'foo="{words}" {X86.cmdline}'):
        found, reason = verdict(X86.text(cmdline=other, **said), End.GUEST_RESET)
        assert found is Verdict.BOOTED_WRONG and f"the guest sees {sentence}" in reason


@pytest.mark.parametrize(
    ("ram", "right"),
    [
        ("1000-9fbff\n100000-7fffff\n900000-ffffff", True),
        ("1000-9fbff\n200000-ffffff", True),
        ("1000-9fbff\n200000-efffff", False),
        ("1000-9fbff\n100000-efffff\nf80000-ffffff", False),
        ("1000-9fbff\n200000-10fffff", False),
        ("1000-9ffff\n200000-ffffff", False),
    ],
)
def test_ram_that_a_kernel_keeps_from_itself_where_it_likes(ram: str, right: bool) -> None:
    """All of it and no more; a kernel without code for it (CONFIG_OF_RESERVED_MEM) sees all."""
    expected = dataclasses.replace(X86.expected, unplaced=MIB)
    seen = Observation(X86.text(ram=ram, memory="6000 kB"), End.GUEST_RESET)
    judged = judge(expected, seen)
    assert (judged.verdict is Verdict.BOOTED) is right, judged.reason
    assert judged.reason.endswith("unmapped: it was told to") is right
    assert judge(expected, Observation(X86.text(), End.GUEST_RESET)).verdict is Verdict.BOOTED


@pytest.mark.parametrize(
    ("ram", "right"),
    [
        ("1000-9fbff\n100000-ffffff", True),
        ("1000-9fbff\n100000-2fffff\n400000-ffffff", True),
        ("1000-9fbff\n100000-37ffff\n400000-ffffff", True),
        ("1000-9fbff\n100000-1fffff\n400000-ffffff", False),
        ("1000-9fbff\n100000-10fffff", False),
    ],
)
def test_ram_that_is_reserved_in_two_ways_may_be_mapped(ram: str, right: bool) -> None:
    wanted = (Range(0x1000, 0x9EC00), Range.between(MIB, 3 * MIB), Range.between(4 * MIB, 16 * MIB))
    twice = (Range(3 * MIB, MIB),)
    expected = dataclasses.replace(X86.expected, ram=wanted, reserved_twice=twice)
    seen = Observation(X86.text(ram=ram, memory="6000 kB"), End.GUEST_RESET)
    judged = judge(expected, seen)
    assert (judged.verdict is Verdict.BOOTED) is right, judged.reason
    assert ("reserved in two ways" in judged.reason) is (right and "2fffff" not in ram)


def test_no_option_explains_ram_that_the_machine_does_not_have() -> None:
    """Nor does a memory map that says so."""
    said = {"ram": "1000-9fbff\n100000-1ffffff", "cmdline": f"memmap=16M@16M {X86.cmdline}"}
    found, reason = verdict(X86.text(**said), End.GUEST_RESET)
    assert found is Verdict.BOOTED_WRONG
    nowhere = "the guest sees RAM 0x100000-0x1ffffff, but the machine has 0x0-0xffffff"
    assert reason == nowhere
    lying = (Range(0x1000, 0x9EC00), Range(MIB, 31 * MIB))
    expected = dataclasses.replace(X86.expected, ram=lying)
    seen = Observation(X86.text(ram="1000-9fbff\n100000-1ffffff"), End.GUEST_RESET)
    assert judge(expected, seen).reason == nowhere


@pytest.mark.parametrize(
    "words",
    [
        *("nosmp", "maxcpus=1", "nr_cpus=1", "possible_cpus=1", "disable_cpu_apicid=1"),
        *("acpi=off", "noapic", "nolapic", "disableapic"),
    ],
)
def test_cpus_that_an_option_leaves_out_are_explained_by_its_name(words: str) -> None:
    two = dataclasses.replace(X86.expected, cpus=2)
    seen = Observation(X86.text(cmdline=f"{words} {X86.cmdline}"), End.GUEST_RESET)
    assert judge(two, seen).verdict is Verdict.BOOTED
    assert judge(two, seen).reason.endswith(f"; the guest has 1 CPU ({words})")
    assert judge(two, Observation(X86.text(), End.GUEST_RESET)).reason == (
        "the guest has 1 CPU, not 2"
    )
    more = Observation(X86.text(cmdline=f"{words} {X86.cmdline}", cpus="3"), End.GUEST_RESET)
    assert judge(two, more).verdict is Verdict.BOOTED_WRONG


@pytest.mark.parametrize("memory", ["1 kB", "7900 kB", "15990 kB"])
def test_memory_in_use_is_at_most_all(memory: str) -> None:
    """How little of it is left, a small machine's kernel decides."""
    assert verdict(X86.text(memory=memory), End.GUEST_RESET)[0] is Verdict.BOOTED


@pytest.mark.parametrize("memory", ["0 kB", "none", "16384 kB"])
def test_memory_in_use_that_cannot_be(memory: str) -> None:
    assert verdict(X86.text(memory=memory), End.GUEST_RESET)[0] is Verdict.BOOTED_WRONG


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("ffffffff8a000000", None),
        ("ffffffff8b000000", "0xffffffff8b000000"),
        (None, "nowhere that it says"),
    ],
)
def test_where_the_kernels_first_byte_is_mapped(said: str | None, wrong: str | None) -> None:
    expected = dataclasses.replace(X86.expected, virtual_start=0xFFFFFFFF8A000000)
    seen = Observation(X86.text(virtual_start=said), End.GUEST_RESET)
    assert judge(X86.expected, seen).verdict is Verdict.BOOTED  # whose loader left it to the kernel
    judgement = judge(expected, seen)
    if wrong is None:
        assert judgement.verdict is Verdict.BOOTED
        assert judgement.reason.endswith("; kernel code at 0x200000, virtual 0xffffffff8a000000")
    else:
        sentence = f"the kernel's first byte is at virtual {wrong}, not at 0xffffffff8a000000"
        assert (judgement.verdict, judgement.reason) == (Verdict.BOOTED_WRONG, sentence)


# --- a console that is another one -------------------------------------------------------------

UNHEARD = b"[ 1.0] bootproof: no serial port for init; the console is tty0\r\n"
TTY0 = b"[ 0.1] printk: console [tty0] enabled\r\n"


def test_a_proof_that_nobody_could_read_is_neither_good_nor_bad() -> None:
    log = TTY0 + UNHEARD + RESTARTED
    found, reason = verdict(b"", End.GUEST_RESET, log=log)
    assert found is Verdict.INCONCLUSIVE
    assert reason.startswith("init ran, but found no serial port that it can write to: its proof")
    assert reason.endswith("; the kernel's console is tty0, not ttyS0: add console=ttyS0")
    assert "the log buffer in RAM has it" not in reason
    _, reason = verdict(b"", End.GUEST_RESET, log=X86.text() + log)
    assert "its proof went elsewhere (the log buffer in RAM has it)" in reason


def test_our_init_without_a_nonce_has_nothing_to_prove() -> None:
    """Whoever uses it in an image of his own, and waits for something else, sees how it ended."""
    seen = Observation(X86.text() + RESTARTED, End.GUEST_RESET)
    judgement = judge(ExpectedHandover(0x1000, b"login:"), seen)
    assert judgement.verdict is Verdict.GUEST_SHUTDOWN_EARLY


@pytest.mark.parametrize("name", [b"console", b"legacy console"])
def test_a_console_that_is_not_read_is_named_whatever_happened(name: bytes) -> None:
    log = b"[ 0.1] printk: bootconsole [earlyser0] enabled\n" + TTY0.replace(b"console", name)
    cause = "; the kernel's console is tty0, not ttyS0: add console=ttyS0"
    for end in (End.PARKED, End.GUEST_RESET, End.BUDGET):
        assert verdict(b"", end, log=log)[1].endswith(cause)
        both = log + b"[ 0.1] printk: console [ttyS0] enabled\n"
        assert cause not in verdict(b"", end, log=both)[1]
    handed_over = judge(ExpectedHandover(0x1000, serial="ttyS0"), Observation(b"", End.PARKED))
    assert cause not in handed_over.reason


def test_an_oops_before_the_proof_on_another_console() -> None:
    found, reason = verdict(X86.text(), End.GUEST_RESET, log=DIED)
    assert found is Verdict.OOPS
    assert reason == f"{OOPS}{IN_RAM}; init proved its boot all the same"


@pytest.mark.parametrize("own", ["root=/dev/vda", f"{X86.cmdline}0"])
def test_a_kernel_that_does_not_take_its_command_line(own: str) -> None:
    echo = f"[ 0.0] Kernel command line: {own}\r\n".encode()
    for transcript, log in ((echo + PANIC, b""), (b"", echo + PANIC)):
        found, reason = verdict(transcript, End.PARKED, log=log)
        assert found is Verdict.PANIC
        assert f"; the kernel's command line is {own!r}, not the one" in reason
    echo = f"[ 0.0] Kernel command line: quiet {X86.cmdline} panic=5\r\n".encode()
    assert "command line" not in verdict(echo + PANIC, End.PARKED)[1]
    # Newer kernels part a long line: its beginning is not the whole.
    echo = b"[ 0.0] Kernel command line: quiet \\\r\n[ 0.0]   splash\r\n"
    assert "command line" not in verdict(echo + PANIC, End.PARKED)[1]


def test_ram_may_be_cut_by_reservations() -> None:
    parts = "1000-4fff\n5000-9fbff\n800000-ffffff\n100000-7fffff"
    assert verdict(X86.text(ram=parts), End.GUEST_RESET)[0] is Verdict.BOOTED


def test_banks_that_touch_are_one_piece_of_ram() -> None:
    claim = Claim(machine("aarch64"), GIB + 2 * MIB)
    halves = (Range(GIB, 8 * MIB), Range(GIB + 8 * MIB, 8 * MIB))
    expected = dataclasses.replace(claim.expected, ram=halves)
    seen = Observation(claim.text(), End.GUEST_RESET)
    judgement = judge(expected, seen)
    assert judgement.reason.startswith("6.1.0-test proved its boot")
    apart = (*expected.banks, Range(4 * GIB, GIB))
    judgement = judge(dataclasses.replace(expected, banks=apart), seen)
    assert judgement.verdict is Verdict.BOOTED


@pytest.mark.parametrize("line", ["release", "machine", "cpus"])
def test_guests_words_cannot_break_the_line_or_the_terminal(line: str) -> None:
    for hostile in ("\x1b[2J\x07", "a\x0bb", "\u202egnp"):
        for lie in (hostile, f"2 {hostile}"):
            _, reason = verdict(X86.text(**{line: lie}), End.GUEST_RESET)
            assert reason.isprintable(), reason


def test_qemus_words_cannot_break_the_terminal() -> None:
    _, reason = verdict(b"", End.QEMU_EXITED, exit_code=1, stderr="\x1b[31mred")
    assert reason.isprintable()


@pytest.mark.parametrize(
    ("log", "wrong"),
    [
        (b"CPU: All CPU(s) started at EL1\r\n", None),
        (b"CPU: All CPU(s) started at EL2\r\n", "the kernel was entered in EL2, not in EL1"),
        (b"", None),  # a quiet kernel does not say
    ],
)
def test_the_log_must_agree_on_the_cpu_mode(log: bytes, wrong: str | None) -> None:
    arm64 = machine("aarch64")
    claim = Claim(arm64, GIB + 2 * MIB)
    expected = dataclasses.replace(claim.expected, mode="EL1", mode_log=arm64.arch.mode_log)
    judgement = judge(expected, Observation(log + claim.text(), End.GUEST_RESET))
    assert judgement.verdict is (Verdict.BOOTED_WRONG if wrong else Verdict.BOOTED)
    assert wrong is None or judgement.reason == wrong


# --- where the code runs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "code", "sentence"),
    [
        (CodeAt((0x1000, 0x2000)), 0x2000, None),
        (CodeAt((0x1000,)), 0x1001, "the kernel runs at 0x1001, not at 0x1000"),
        (CodeAnywhere(0x1000, Range(0x1000, 0x2000)), 0x2000, None),
        (CodeAnywhere(0x1000, Range(0x1000, 0x2000)), 0x1000, None),
        (
            CodeAnywhere(0x1000, Range(0x1000, 0x2000)),
            0x3000,
            "the kernel runs at 0x3000, which is not 0x1000-aligned in 0x1000-0x2fff",
        ),
        (
            CodeAnywhere(0x1000, Range(0x1000, 0x2000)),
            0x1800,
            "the kernel runs at 0x1800, which is not 0x1000-aligned in 0x1000-0x2fff",
        ),
        (CodeInside(Range(0x1000, 0x10)), 0x100F, None),
        (
            CodeInside(Range(0x1000, 0x10)),
            0x1010,
            "the kernel runs at 0x1010, outside of its region 0x1000-0x100f",
        ),
    ],
)
def test_code(wanted: CodeAt | CodeAnywhere | CodeInside, code: int, sentence: str | None) -> None:
    assert wanted.contradiction(code) == sentence


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (TextCheck(1000, 300), None),
        (TextCheck(1000, 301), "30% of 1000 words differ"),
        (TextCheck(0, 0), "100% of 0 words differ"),
    ],
)
def test_code_in_ram(check: TextCheck, sentence: str | None) -> None:
    found, reason = verdict(X86.text(), End.GUEST_RESET, text=check)
    assert found is (Verdict.BOOTED if sentence is None else Verdict.BOOTED_WRONG)
    assert sentence is None or reason.endswith(sentence)


# --- guests of another kind ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wanted", "reason"),
    [
        ({}, Verdict.BOOTED, "'6.1.0-test' proved its boot"),
        (
            {"release": None, "memory": None, "ram": None},
            Verdict.BOOTED,
            "the guest proved its boot",
        ),
        ({"memory": "0 kB"}, Verdict.BOOTED, "'6.1.0-test' proved its boot"),
        ({"cpus": "2"}, Verdict.BOOTED_WRONG, "the guest has 2 CPUs, not 1"),
        ({"cmdline": None}, Verdict.BOOTED_WRONG, f"the command line is None, not {X86.cmdline!r}"),
    ],
)
def test_another_guest_is_held_to_what_it_says(
    changes: dict[str, str | None], wanted: Verdict, reason: str
) -> None:
    """Whatever it prints then: its end is its own affair."""
    expected = dataclasses.replace(X86.expected, other=True)
    seen = Observation(X86.text(**changes) + PANIC, End.PARKED)
    judgement = judge(expected, seen)
    assert (judgement.verdict, judgement.reason) == (wanted, reason)


def test_a_device_tree_of_another_request() -> None:
    claim = Claim(machine("aarch64"), GIB + 2 * MIB)
    for said, shown in (("another", "'another'"), (None, "None")):
        judgement = judge(claim.expected, Observation(claim.text(request=said), End.GUEST_RESET))
        sentence = f"the device tree is of request {shown}, not 'a request'"
        assert (judgement.verdict, judgement.reason) == (Verdict.BOOTED_WRONG, sentence)


# --- the entry probe ---------------------------------------------------------------------------

REACHED = Arm64Registers(0x40200000)
VIOLATION = RuleFinding(Grade.VIOLATION, "cr4-zero", "cr4 is 0x20, not 0")
TOLERATED = RuleFinding(Grade.TOLERATED, "gdt", "the GDT ends early")
OTHER_X0 = Difference("x0", "0x1", "0x2")


@pytest.mark.parametrize(
    ("probe", "wanted", "reason"),
    [
        (Probe(REACHED), Verdict.BOOTED, "6.1.0-test proved its boot; kernel code at 0x200000"),
        (
            Probe(REACHED, findings=(TOLERATED,)),
            Verdict.BOOTED,
            "6.1.0-test proved its boot; kernel code at 0x200000",
        ),
        (
            Probe(None, "the CPU was at 0x10"),
            Verdict.ENTRY_NOT_REACHED,
            "the guest reset the machine; the CPU was at 0x10",
        ),
        (
            Probe(REACHED, findings=(TOLERATED, VIOLATION), differences=(OTHER_X0,)),
            Verdict.PROTOCOL_VIOLATION,
            "cr4-zero: cr4 is 0x20, not 0",
        ),
        (
            Probe(REACHED, differences=(OTHER_X0,), more=3),
            Verdict.HANDOVER_WRONG,
            "x0 is 0x2, not 0x1; and 3 more",
        ),
        (
            Probe(None, "the CPU was at 0x10", findings=(VIOLATION,)),
            Verdict.ENTRY_NOT_REACHED,
            "the guest reset the machine; the CPU was at 0x10; cr4-zero: cr4 is 0x20, not 0",
        ),
    ],
)
def test_probe_comes_before_any_proof(probe: Probe, wanted: Verdict, reason: str) -> None:
    assert verdict(X86.text(), End.GUEST_RESET, probe=probe) == (wanted, reason)


def test_what_no_cpu_could_be_brought_to_was_not_started() -> None:
    probe = Probe(None, "no CPU was started", findings=(VIOLATION,))
    reason = "cr4-zero: cr4 is 0x20, not 0; no CPU was started"
    wanted = (Verdict.PROTOCOL_VIOLATION, reason)
    assert verdict(b"", End.NOT_STARTED, probe=probe) == wanted


# --- guests without a proof of their own -------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "transcript", "end", "wanted", "reason"),
    [
        (None, b"", End.ENTERED, Verdict.HANDED_OVER, "exactly as asked, and stopped there"),
        (b"login:", b"x\nlogin: ", End.MARKER, Verdict.HANDED_OVER, "showed 'login:'"),
        (b"login:", b"login:" + PANIC, End.GUEST_RESET, Verdict.HANDED_OVER, "showed 'login:'"),
        (b"login:", DIED + b"login:", End.MARKER, Verdict.OOPS, "showed 'login:' all the same"),
        (b"login:", PANIC + b"login:", End.GUEST_RESET, Verdict.PANIC, "VFS: no root"),
        (b"login:", b"log", End.PARKED, Verdict.STUCK, "the console never showed 'login:'"),
        (
            b"login:",
            b"[ 0.0] Kernel command line: until=login:\nlogin:",
            End.PARKED,
            Verdict.STUCK,
            "; 'login:' stands in the kernel's own command line: no proof",
        ),
        (None, b"text", End.GUEST_RESET, Verdict.HANDED_OVER, "the CPU was reset, after 'text'"),
        (None, b"text" + PANIC, End.GUEST_RESET, Verdict.PANIC, "VFS: no root"),
        (None, DIED, End.PARKED, Verdict.OOPS, "0.0 s of QEMU CPU time in"),
        (None, EXITED, End.GUEST_RESET, Verdict.INIT_FAILED, "exitcode=0x00000300)"),
        (None, b"", End.PARKED, Verdict.SILENT, "time in"),
        (None, b"text", End.QEMU_EXITED, Verdict.INCONCLUSIVE, "nothing on stderr"),
    ],
)
def test_handover(
    until: bytes | None, transcript: bytes, end: End, wanted: Verdict, reason: str
) -> None:
    judgement = judge(ExpectedHandover(0x1000, until), Observation(transcript, end))
    assert judgement.verdict is wanted
    assert judgement.reason.endswith(reason)


def test_only_ends_at_an_exact_instruction_are_compared() -> None:
    """Of others, the console and the counts stop elsewhere each time."""
    exact = {End.GUEST_RESET, End.GUEST_SHUTDOWN, End.WRONG_HANDOVER, End.ENTERED}
    assert {end for end in End if end.of_guest} == exact
    # What is in RAM then is the image's, and no log of a kernel.
    assert {end for end in End if end.before_kernel} == {End.WRONG_HANDOVER, End.ENTERED}


def test_values_are_stable() -> None:
    """They stand in JSON files."""
    assert [verdict.value for verdict in Verdict] == [
        *("booted", "handed-over", "tests-failed", "booted-wrong", "load-refused"),
        "entry-not-reached",
        *("protocol-violation", "handover-wrong", "cpu-reset", "panic", "oops", "init-failed"),
        *("stuck", "silent", "over-budget", "console-limit", "guest-shutdown-early"),
        *("qemu-failed", "inconclusive", "interrupted"),
    ]


def test_docs_explain_every_verdict_in_order() -> None:
    text = (ROOT / "docs" / "verdicts.md").read_text()
    rows = re.findall(r"^\| `([a-z-]+)` \| .+ \| .+ \|$", text, re.MULTILINE)
    assert rows == [verdict.value for verdict in Verdict]


def test_expected_fields_are_all_judged() -> None:
    """A new field of Expected needs a contradiction above, and then a name here."""
    assert {field.name for field in dataclasses.fields(Expected)} == {
        *("arch", "nonce", "cmdline", "cpus", "ram", "code", "bootloader_type", "request"),
        *("mode", "mode_log", "banks", "serial", "releases", "other"),
        *("virtual_start", "unplaced", "reserved_twice"),
    }
