"""CPUs that go round in place, or do nothing, are recognised from samples."""

from __future__ import annotations

from bootproof.harness.qemu.stuck import IdleDetector, StuckDetector
from tests.builders.dumps import ARM64, X86, arm64_dump, x86_dump

# --- the detector ------------------------------------------------------------------------------


def seen_stuck(dumps: list[str], seconds: float, detector: StuckDetector | None = None) -> bool:
    """Whether one of the samples, spread evenly over CPU time, says so."""
    found = detector or StuckDetector(X86)
    return any(
        found.stuck(dump, 5 + seconds * number / len(dumps)) for number, dump in enumerate(dumps)
    )


def test_a_small_loop_seen_long_enough() -> None:
    loop = [x86_dump(0x1000 + number % 3) for number in range(30)]
    assert seen_stuck(loop, 2.0)


def test_not_long_enough_or_not_often_enough() -> None:
    loop = [x86_dump(0x1000)] * 30
    assert not seen_stuck(loop, 0.9)
    assert not seen_stuck(loop[:14], 100.0)


def test_a_loop_that_counts_is_no_standstill() -> None:
    assert not seen_stuck([x86_dump(0x1000, rax=number) for number in range(500)], 100.0)


def test_a_loop_of_more_states_than_a_loop_in_place_has() -> None:
    assert not seen_stuck([x86_dump(0x1000 + number % 7) for number in range(500)], 100.0)
    assert seen_stuck([x86_dump(0x1000 + number % 6) for number in range(500)], 100.0)
    busy = [x86_dump(0x1000 + number) for number in range(7)]
    assert seen_stuck([*busy, *[x86_dump(0x1000)] * 30], 100.0)  # after it


def test_with_interrupts_on_nothing_can_be_said() -> None:
    assert not seen_stuck([x86_dump(0x1000, 0x202)] * 100, 100.0)
    mixed = [x86_dump(0x1000, 0x202 if number % 10 == 9 else 2) for number in range(100)]
    assert not seen_stuck(mixed, 100.0)


def test_progress_begins_anew() -> None:
    detector = StuckDetector(X86)
    assert not seen_stuck([x86_dump(0x1000)] * 14, 0.95, detector)
    detector.clear()
    assert not detector.stuck(x86_dump(0x1000), 10.0)
    detector.clear()
    assert not seen_stuck([x86_dump(0x1000)] * 14, 100.0, detector)
    detector.clear()
    assert seen_stuck([x86_dump(0x1000)] * 30, 2.0, detector)


def test_program_counters_that_were_seen() -> None:
    detector = StuckDetector(ARM64)
    for pc in (0x4020000C, 0x40200008, 0, 0x40200008):
        detector.stuck(arm64_dump(pc), 0)
    assert detector.counters == (0, 0x40200008, 0x4020000C)


# --- halted CPUs -------------------------------------------------------------------------------


def idle_for(looks: list[bool], detector: IdleDetector | None = None) -> float:
    """After looks one CPU second apart."""
    found = detector or IdleDetector(10)
    return [found.since(halted, number) for number, halted in enumerate(looks)][-1]


def test_idle_cpu() -> None:
    assert idle_for([True] * 10) == 9
    assert idle_for([True] * 9) == 0  # not looked at often enough
    assert idle_for([True, False] * 10) == 19  # a timer now and then is no work


def test_cpu_at_work_is_not_idle() -> None:
    assert idle_for([False] * 100) == 0
    assert idle_for([True] * 10 + [False] * 12 + [True] * 9) == 0
    detector = IdleDetector(10)
    idle_for([True] * 10, detector)
    detector.clear()
    assert detector.since(True, 100) == 0
    assert [detector.since(True, 100 + number) for number in range(1, 10)][-1] == 9
