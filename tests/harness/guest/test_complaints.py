"""Complaints of real kernels, shortened; what only looks like one is none."""

from __future__ import annotations

import time

import pytest

from bootproof.harness.guest import complaints
from bootproof.harness.guest.complaints import MOST, Complaint, Kind, find, merged

WARN = b"""\
[    0.270011] ------------[ cut here ]------------\r
[    0.270012] something is odd\r
[    0.270013] WARNING: CPU: 0 PID: 1 at init/fault.c:31 fault+0x41/0x2f0\r
[    0.270014] CPU: 0 UID: 0 PID: 1 Comm: swapper/0 Not tainted 6.12.117 #1\r
"""
SOFT_LOCKUP = b"""\
[   %d.000001] watchdog: BUG: soft lockup - CPU#0 stuck for %ds! [swapper/0:1]\r
[   %d.000002] CPU: 0 UID: 0 PID: 1 Comm: swapper/0 Not tainted 6.12.117 #1\r
[   %d.000003] RIP: 0010:spin+0x1d/0x40\r
"""
STALL = b"""\
[   21.004009] rcu: INFO: rcu_sched self-detected stall on CPU\r
[   21.004010] rcu: \t0-....: (2100 ticks this GP) idle=0204/1/0x4000000000000002\r
"""
HUNG = b"[  244.7] INFO: task hanger:20 blocked for more than 122 seconds.\r\n"
FAILED = b"[    1.2] Initramfs unpacking failed: junk within compressed archive\r\n"
CANNOT_RUN = b"[    1.3] Failed to execute /init (error -8)\r\n"
PANIC = b"[    2.0] Kernel panic - not syncing: sysrq triggered crash\r\n"
X86_OOPS = (
    b"[    1.1] Oops: 0002 [#1] PREEMPT SMP PTI\r\n[    1.2] RIP: 0010:oops_thread+0x9/0x20\r\n"
)


def lockup(second: int) -> bytes:
    return SOFT_LOCKUP % (second, second, second, second)


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        (WARN, Kind.WARNING, "WARNING: CPU: 0 PID: 1 at init/fault.c:31 fault+0x41/0x2f0"),
        (
            lockup(26),
            Kind.LOCKUP,
            "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [swapper/0:1], in spin+0x1d/0x40",
        ),
        (STALL, Kind.STALL, "rcu: INFO: rcu_sched self-detected stall on CPU"),
        (HUNG, Kind.HUNG_TASK, "INFO: task hanger:20 blocked for more than 122 seconds."),
        (
            FAILED,
            Kind.INITRAMFS,
            "Initramfs unpacking failed: junk within compressed archive",
        ),
        (
            b"[ 1.0] rootfs image is not initramfs (no cpio magic); looks like an initrd\n",
            Kind.INITRAMFS,
            "rootfs image is not initramfs (no cpio magic); looks like an initrd",
        ),
        (CANNOT_RUN, Kind.INIT, "Failed to execute /init (error -8)"),
        (PANIC, Kind.PANIC, "Kernel panic - not syncing: sysrq triggered crash"),
        (X86_OOPS, Kind.OOPS, "Oops: 0002 [#1] PREEMPT SMP PTI, in oops_thread+0x9/0x20"),
        (b"[ 1.0] divide error: 0000 [#1] SMP\r\n", Kind.OOPS, "divide error: 0000 [#1] SMP"),
        (
            b"[ 1.0] Internal error: Oops - BUG: 00000000f2000800 [#1] SMP\r\n",
            Kind.OOPS,
            "Internal error: Oops - BUG: 00000000f2000800 [#1] SMP",
        ),
        (
            b"[ 1.0] BUG: sleeping function called from invalid context at mm/slab.h:1\r\n",
            Kind.BUG,
            "BUG: sleeping function called from invalid context at mm/slab.h:1",
        ),
        (
            b"[ 1.0][    T1] UBSAN: array-index-out-of-bounds in drivers/x.c:1:2\r\n",
            Kind.BUG,
            "UBSAN: array-index-out-of-bounds in drivers/x.c:1:2",
        ),
        (
            b"WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2\n",  # printk.time is off
            Kind.WARNING,
            "WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2",
        ),
        (
            b"[ 1.0] hello\ncut of init's [ 1.1] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2\n",
            Kind.WARNING,
            "WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2",
        ),
    ],
)
def test_a_complaint_is_told_with_its_kind(text: bytes, kind: Kind, wanted: str) -> None:
    (found,) = find(text)
    assert (found.kind, str(found)) == (kind, wanted)


@pytest.mark.parametrize(
    "text",
    [
        b"[ 1.0] Linux version 6.1\nWARNING: my disk is full\n",  # a program's own words
        b"[ 1.0] Spectre V2 : WARNING: Unprivileged eBPF is enabled\n",
        b"[ 1.0] Kernel command line: [ 1.0] WARNING: x console=ttyS0\n",
        b"[ 1.0] the last boot said:\n[ 1.0] [    1.0] Kernel panic - not syncing: old news\n",
        b"[ 1.0] mce: bank error: 0000 [#1] corrected\n",
        b"[ 1.0] note: Kernel panic - not syncing: is what you would see\n",
        b"[ 1.0] Trying to unpack rootfs image as initramfs...\n",
    ],
)
def test_what_only_looks_like_a_complaint_is_none(text: bytes) -> None:
    assert find(text) == ()


def test_what_every_kernel_says_costs_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer to make than all that there is to be found with it."""
    monkeypatch.setattr(complaints, "_pattern", None)
    assert find(b"[ 1.0] Trying to unpack rootfs image as initramfs...\n") == ()


def test_repetitions_are_counted_and_the_last_lockup_is_told() -> None:
    (found,) = find(lockup(26) + lockup(48) + lockup(71))
    assert found.count == 3
    assert found.text == "watchdog: BUG: soft lockup - CPU#0 stuck for 71s! [swapper/0:1]"


@pytest.mark.parametrize(
    "said",
    [
        "rcu: INFO: rcu_sched self-detected stall on CPU {}",
        "INFO: task a:{} blocked for more than 9",
    ],
)
def test_the_last_word_on_what_lasts_is_told(said: str) -> None:
    (found,) = find("".join(f"[ {n}.0] {said.format(n)}\n" for n in (1, 2)).encode())
    assert (found.count, found.text) == (2, said.format(2))
    (found,) = find(b"[ 1.0] WARNING: 1\n[ 2.0] WARNING: 2\n")
    assert (found.count, found.text) == (2, "WARNING: 1")


def test_the_log_that_a_program_says_again_is_no_second_complaint() -> None:
    text = WARN + b"bootproof: proof x\r\n"
    (found,) = find(text + WARN, len(text))
    assert (found.count, found.after_proof) == (1, False)


def test_a_program_that_ended_well_is_no_complaint_of_the_kernels() -> None:
    killed = b"[ 2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x%08x\r\n"
    assert find(WARN + killed % 0, len(WARN))[1:] == ()
    assert [item.kind for item in find(WARN + killed % 0x300, len(WARN))[1:]] == [Kind.PANIC]
    assert [item.kind for item in find(killed % 0)] == [Kind.PANIC]  # it is our init, then


def test_an_echo_before_the_proof_moves_nothing() -> None:
    echo = b"[ 0.0] Kernel command line: console=ttyS0 some=thing more=of it=all\r\n"
    proof = b"bootproof: proof x\r\n"
    before, after = find(echo + WARN + proof + PANIC, len(echo + WARN + proof))
    assert (before.after_proof, after.after_proof) == (False, True)


def test_before_and_after_the_proof_are_told_apart() -> None:
    for later in (PANIC, WARN.replace(b"[    0.", b"[    9.")):
        before, after = find(WARN + later, len(WARN))
        assert (before.after_proof, after.after_proof) == (False, True)


def test_the_log_buffer_adds_what_the_console_does_not_show() -> None:
    assert [item.kind for item in merged(find(WARN), find(WARN + FAILED))] == [
        Kind.WARNING,
        Kind.INITRAMFS,
    ]


def test_a_guest_decides_how_long_the_list_is_up_to_a_limit() -> None:
    letters = [f"{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(MOST + 20)]
    text = b"".join(f"[ 1.{i}] BUG: {name}\n".encode() for i, name in enumerate(letters))
    found = find(text)
    assert len(found) == MOST
    assert sum(item.count for item in found) == len(letters)


@pytest.mark.parametrize(
    "unit",
    [
        b"[0.0] a",
        b"[0.0] a\n",
        b"[ 1.0] WARNING: ",
        b"[ 1.0] WARNING: x\n",
        b"[ 1.0] Oops a",
        b"[ 1.0] watchdog: BUG: soft lockup \n",
        b"[  1",
        b"[1111111111",
    ],
)
def test_the_cost_grows_with_the_text_only(unit: bytes) -> None:
    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        began = time.process_time()
        find(text)
        return time.process_time() - began

    seconds(1 << 12)
    short = max(seconds(1 << 17), 0.01)
    assert seconds(1 << 18) / short < 3.5


def test_a_complaint_is_a_value() -> None:
    assert Complaint(Kind.BUG, "BUG: x", count=2) == Complaint(Kind.BUG, "BUG: x", None, 2)
