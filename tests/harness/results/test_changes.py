"""Two runs compared: what counts as worse, what may not be compared, what is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bootproof.harness import exitcode
from bootproof.harness.guest.stages import Stage
from bootproof.harness.report import changes as rendering
from bootproof.harness.results import changes, results
from bootproof.harness.results.changes import Change, Kind
from bootproof.harness.results.key import Key
from bootproof.harness.results.results import CaseResult, Kernel
from bootproof.harness.results.roles import role_of
from tests.builders import results as builder

OTHER_IMAGE = replace(builder.KEY, boot_image="22" * 32)
Capture = pytest.CaptureFixture[str]


def change(before: CaseResult, now: CaseResult, threshold: float = 0.005) -> Change:
    (found,) = changes.compare(builder.run(before), builder.run(now), threshold)
    return found


def with_log(text: bytes, **others: Any) -> CaseResult:
    return builder.case(transcript=results.transcript(text), **others)


# --- the same boot image -----------------------------------------------------------------------


def test_the_same() -> None:
    assert change(builder.case(), builder.case()) == Change(builder.case().case, Kind.SAME)


def test_host_seconds_are_no_difference() -> None:
    slow = builder.case(seconds=900.0, cpu_seconds=800.0, harness_seconds=3.0, directory="/other")
    assert change(builder.case(), slow).kind is Kind.SAME


def test_one_instruction_more_with_the_same_image_is_not_deterministic() -> None:
    found = change(builder.case(), builder.case(instructions=1_300_000_001), threshold=1.0)
    assert found.kind is Kind.NONDETERMINISTIC
    assert found.sentences[0] == "the boot image is the same, bit by bit, but not the run"
    assert "1,300,000,000 -> 1,300,000,001" in found.sentences[1]


@pytest.mark.parametrize("key", [builder.KEY, OTHER_IMAGE])
def test_a_count_that_is_not_known_is_no_difference(key: Key) -> None:
    told = "the instructions of one of the runs are not known: they were not compared"
    counted, not_counted = builder.case(), builder.case(instructions=None, key=key)
    same = Change(counted.case, Kind.SAME, (told,))
    assert [change(counted, not_counted), change(not_counted, counted)] == [same, same]
    assert change(not_counted, not_counted) == Change(counted.case, Kind.SAME)


def test_another_time_stamp_with_the_same_image_is_not_deterministic() -> None:
    found = change(with_log(b"[    0.1] a\n"), with_log(b"[    0.2] a\n"))
    assert found.kind is Kind.NONDETERMINISTIC
    assert found.sentences[1:] == (
        "console line 1 was '[    0.1] a'",
        "console line 1 is  '[    0.2] a'",
    )


def test_a_difference_beyond_the_lines_that_are_kept() -> None:
    log = results.transcript(b"a\n")
    other = replace(log, sha256="33" * 32)
    found = change(builder.case(transcript=log), builder.case(transcript=other))
    assert found.kind is Kind.NONDETERMINISTIC
    assert found.sentences[1:] == ("the transcripts differ only in bytes that are not kept",)


def test_line_that_is_not_there_any_more() -> None:
    found = change(with_log(b"a\nb\n"), with_log(b"a\n"))
    assert found.sentences[1:] == (
        "console line 2 was 'b'",
        "console line 2 is  not there",
    )


# --- another boot image ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instructions", "kind"),
    [
        (1_306_400_000, Kind.SAME),  # +0.49 %
        (1_306_600_000, Kind.REGRESSED),
        (1_293_600_000, Kind.SAME),
        (1_293_000_000, Kind.IMPROVED),
    ],
)
def test_threshold(instructions: int, kind: Kind) -> None:
    found = change(builder.case(), builder.case(instructions=instructions, key=OTHER_IMAGE))
    assert found.kind is kind
    assert bool(found.sentences) == (kind is not Kind.SAME)


def test_slower_stage_in_a_boot_that_is_as_fast() -> None:
    stages = [*builder.STAGES]
    stages[2] = Stage("memory", 503_000_000, 0.5)  # +3 % of its own 100 million
    found = change(builder.case(), builder.case(stages=tuple(stages), key=OTHER_IMAGE))
    assert (found.kind, found.sentences) == (
        Kind.REGRESSED,
        ("stage memory: 100,000,000 -> 103,000,000 instructions (+3.00%)",),
    )


def test_short_stage_that_means_nothing_for_the_boot() -> None:
    """Told, since it is beyond the threshold; but 600,000 of 1.3 billion fail nobody's change."""
    old = (Stage("banner", 10_000_000, 0.0), *builder.STAGES[2:])
    new = (Stage("banner", 10_600_000, 0.0), *builder.STAGES[2:])
    found = change(builder.case(stages=old), builder.case(stages=new, key=OTHER_IMAGE))
    assert (found.kind, len(found.sentences)) == (Kind.CHANGED, 1)
    assert "stage banner: 10,000,000 -> 10,600,000" in found.sentences[0]


def test_stage_that_is_missing() -> None:
    found = change(builder.case(), builder.case(stages=builder.STAGES[:3], key=OTHER_IMAGE))
    assert "stage proof was not reached any more" in found.sentences
    found = change(builder.case(stages=builder.STAGES[:3]), builder.case(key=OTHER_IMAGE))
    assert (found.kind, found.sentences) == (Kind.CHANGED, ("stage proof is new",))


def test_time_stamps_nonces_and_proofs_of_another_image_are_no_difference() -> None:
    line = "[    0.{0}] Command line: a bootproof.nonce={0}{0}\n"
    line += "bootproof: 1 {0}f cmdline a bootproof.nonce={0}{0}\nbootproof: proof {0}{0}\n"
    old, new = (line.format(n).encode() for n in (1, 2))
    assert change(with_log(old), with_log(new, key=OTHER_IMAGE)).kind is Kind.SAME
    found = change(with_log(old), with_log(new + b"[    0.3] oops\n", key=OTHER_IMAGE))
    assert (found.kind, found.sentences[1]) == (
        Kind.CHANGED,
        "console line 4 is  '[    0.3] oops'",
    )


# --- verdicts ----------------------------------------------------------------------------------


def test_verdicts() -> None:
    regressed = change(builder.case(), builder.failed(builder.case().claim))
    assert regressed.kind is Kind.REGRESSED
    assert regressed.sentences[0].startswith("was booted, is panic: kernel panic: VFS")
    assert regressed.sentences[1].startswith("not as expected: panic instead of booted")
    assert change(builder.failed(), builder.case("elf-linux64-none")).kind is Kind.IMPROVED
    # Wrong before and wrong now, or the expectation changed with the verdict.
    other = builder.failed(verdict="silent")
    assert change(builder.failed(), other).kind is Kind.CHANGED
    refused = builder.refused(builder.case().claim)
    assert change(builder.case(), refused).kind is Kind.CHANGED
    assert change(builder.refused(), builder.refused()).kind is Kind.SAME
    code = builder.refused(code="Elf::Overflow")
    found = change(builder.refused(), code)
    assert found.sentences[0].startswith(
        "was load-refused (Protocol::Refused), is load-refused (Elf::Overflow)"
    )


def test_cases_that_come_and_go() -> None:
    found = changes.compare(builder.run(builder.case("a")), builder.run(builder.case("b")))
    assert [(item.kind, item.case) for item in found] == [
        (Kind.NEW, "x86_64-6.1-b"),
        (Kind.GONE, "x86_64-6.1-a"),
    ]
    assert changes.exit_code(found) == exitcode.NOT_COMPARED
    fewer = changes.compare(
        builder.run(builder.case("a"), builder.case("b")), builder.run(builder.case("b"))
    )
    assert changes.exit_code(fewer) == exitcode.OK
    nothing = changes.compare(builder.run(builder.case("a")), builder.run())
    assert changes.exit_code(nothing) == exitcode.NOT_COMPARED


def test_verdict_that_says_nothing_of_the_guest_is_not_compared() -> None:
    """It is no regression, and a baseline with one is none."""
    claim = builder.unknown().claim
    for before, now in (
        (builder.case(claim), builder.unknown()),
        (builder.unknown(), builder.case(claim)),
        (builder.unknown(), builder.failed(claim)),
        (builder.unknown(), builder.unknown()),
    ):
        assert change(before, now).kind is Kind.NOT_COMPARED
    run = builder.run(builder.unknown())
    judged = changes.judged(run, changes.compare(builder.run(builder.case(claim)), run))
    assert (judged.headline, judged.exit_code) == ("1 cannot be told", exitcode.CANNOT_TELL)


# --- kernels by name and by role ---------------------------------------------------------------


def of_file(kernel: str, **others: Any) -> CaseResult:
    """A case of a kernel that only has the name of its file."""
    named = Kernel(kernel, "ab" * 32, None, role_of(kernel))
    return replace(builder.case(kernel=kernel, **others), kernel=named)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("vmlinuz-6.1.0-48-amd64", "vmlinuz-*-amd64"),
        ("vmlinuz-6.1.0-48-rt-amd64", "vmlinuz-*-rt-amd64"),
        ("vmlinuz-6.8-rc3-00123-g0123456789ab-dirty", "vmlinuz-*"),
        ("kernel-core-6.5.6-300.fc39.x86_64", "kernel-core-*.fc39.x86_64"),
        ("linux-image-6.12.57+deb13-cloud-arm64", "linux-image-*+deb13-cloud-arm64"),
        ("builds/6.1/bzImage", "builds/*/bzImage"),
        ("6.1", "*"),
        ("vmlinux", "vmlinux"),
        ("", ""),
    ],
)
def test_role(name: str, role: str) -> None:
    assert role_of(name) == role


def test_next_version_of_a_kernel_is_held_against_the_last() -> None:
    before = builder.run(of_file("vmlinuz-6.1.0-48-amd64"), of_file("vmlinuz-6.1.0-48-rt-amd64"))
    now = of_file("vmlinuz-6.1.0-49-amd64", instructions=1_400_000_000, key=OTHER_IMAGE)
    run = builder.run(now)
    found = changes.compare(before, run)
    assert [item.kind for item in found] == [Kind.REGRESSED, Kind.GONE]
    text = rendering.render(found)
    assert text.startswith(
        "vmlinuz-6.1.0-49-amd64 is held against vmlinuz-6.1.0-48-amd64: both are vmlinuz-*-amd64"
    )
    (judged,) = changes.judged(run, found).cases
    assert "vmlinuz-6.1.0-48-amd64" in (judged.problem or "")


def test_no_role_for_names_that_last_or_where_two_have_it() -> None:
    """A name that was given, or is in the catalogue, is the kernel's; two of one role are none."""
    two = (of_file("vmlinuz-6.1.0-47-amd64"), of_file("vmlinuz-6.1.0-48-amd64"))
    (new,) = (
        item
        for item in changes.compare(builder.run(*two), builder.run(of_file("vmlinuz-9-amd64")))
        if item.kind is not Kind.GONE
    )
    assert new.kind is Kind.NEW
    assert "of the role vmlinuz-*-amd64 it has several: vmlinuz-6.1.0-47-amd64" in new.sentences[0]
    named = changes.compare(
        builder.run(builder.case(kernel="6.1-amd64")),
        builder.run(builder.case(kernel="6.12-amd64")),
    )
    assert [item.kind for item in named] == [Kind.NEW, Kind.GONE]
    assert rendering.summary(named) == (
        "nothing was compared with the run before: no case in common: 1 new, 1 gone"
    )


# --- the key -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("qemu", "10.0.2", "QEMU: 7.2.22 then, 10.0.2 now"),
        ("cpu", "max", "CPU model: qemu64 then, max now"),
        ("cpus", 2, "CPUs: 1 then, 2 now"),
        ("icount_shift", 5, "icount shift: 3 then, 5 now"),
        ("icount_shift", None, "icount shift: 3 then, None now"),
        ("probe", False, "probe: True then, False now"),
        ("console", "terminal", "console: file then, terminal now"),
        ("profile", "fast", "command-line profile: default then, fast now"),
        ("memory", 1 << 30, "memory: 536870912 then, 1073741824 now"),
        ("machine", "pc", "machine: q35 then, pc now"),
    ],
)
def test_other_surroundings_are_not_compared(field: str, value: Any, said: str) -> None:
    key = replace(builder.KEY, **{field: value})
    found = change(builder.case(), builder.case(key=key, instructions=1))
    assert (found.kind, found.sentences) == (
        Kind.NOT_COMPARED,
        (f"the runs cannot be compared: {said}",),
    )
    assert changes.exit_code([found]) == exitcode.NOT_COMPARED
    assert changes.exit_code([found, Change("x", Kind.REGRESSED)]) == 1


def test_real_time_has_nothing_but_its_verdict() -> None:
    key = replace(builder.KEY, icount_shift=None)
    before, now = (with_log(log, key=key, instructions=None) for log in (b"a\n", b"b\n"))
    assert change(before, now).kind is Kind.SAME


def test_several_cpus_have_nothing_but_their_verdict() -> None:
    """One that ends the machine leaves the others running for a moment: the count is not exact."""
    key = replace(builder.KEY, cpus=2)
    before = with_log(b"a\n", key=key)
    for now in (
        with_log(b"b\n", key=key, instructions=1_300_000_001),
        builder.case(key=replace(key, boot_image="22" * 32), instructions=2_600_000_000),
    ):
        told = "with 2 CPUs: only the verdict was compared"
        assert change(before, now) == Change(now.case, Kind.SAME, (told,))
    failed = builder.case(key=key, verdict="panic", problem="panic instead of booted")
    assert change(before, failed).kind is Kind.REGRESSED


def test_a_guest_that_did_not_end_by_itself_has_nothing_but_its_verdict() -> None:
    """A look at a guest that loops, or kill(1), ends it some instructions later each time."""
    before = with_log(b"a\n", verdict="silent", exact_end=False)
    now = with_log(b"b\n", verdict="silent", exact_end=False, instructions=1_400_000_000)
    told = "of a guest that did not end by itself: only the verdict was compared"
    assert change(before, now) == Change(now.case, Kind.SAME, (told,))
    ended = with_log(b"b\n", verdict="silent", instructions=1_400_000_000)
    assert change(replace(before, exact_end=True), ended).kind is Kind.NONDETERMINISTIC


def test_unknown_boot_image_is_another_one() -> None:
    key = replace(builder.KEY, boot_image=None)
    now = builder.case(key=key, instructions=1_300_000_001)
    assert change(builder.case(key=key), now).kind is Kind.SAME


def test_what_grew_is_a_profile_away() -> None:
    """Where the runs are not in one place: the second one has taken that of the first."""
    for directory, wanted in (("/now/x y", True), (builder.case().directory, False)):
        slower = builder.case(key=OTHER_IMAGE, instructions=1_400_000_000, directory=directory)
        found = change(builder.case(), slower)
        assert found.kind is Kind.REGRESSED
        last = "what grew: ./bootproof profile build/matrix/x '/now/x y'"
        assert (found.sentences[-1] == last) is wanted
