"""The stages of a boot, out of kernel log lines."""

from __future__ import annotations

import pytest

from bootproof.harness.guest.stages import Follower, Stage, marks

BOOT = (
    b"[    0.000000] Linux version 6.1.0 (gcc)\r\n"
    b"[    0.012345] Memory: 480000K/523768K available\r\n"
    b"[    0.123456] Serial: 8250/16550 driver\r\n"
    b"[    1.500000] Run /bootproof/init as init process\r\n"
    b"bootproof: cmdline quiet\r\n"
    b"bootproof: proof 00\r\n"
)


def stages(transcript: bytes) -> list[Stage]:
    return [mark.reached_after(None) for mark in marks(transcript)]


def test_all_stages_in_order_with_the_guests_own_times() -> None:
    assert stages(BOOT) == [
        Stage("first-output", None, None),
        Stage("banner", None, 0.0),
        Stage("memory", None, 0.012345),
        Stage("drivers", None, 0.123456),
        Stage("init", None, 1.5),
        Stage("proof", None, None),
    ]


def test_only_what_was_reached() -> None:
    assert stages(b"") == []
    assert stages(b"garbage") == [Stage("first-output", None, None)]
    assert [stage.name for stage in stages(BOOT[:60])] == ["first-output", "banner"]


def test_lines_without_a_time_stamp() -> None:
    assert stages(b"Linux version 6.1.0\n") == [
        Stage("first-output", None, None),
        Stage("banner", None, None),
    ]


def test_another_lines_time_is_not_taken() -> None:
    text = b"[    9.000000] something\nLinux version 6.1.0\n"
    assert stages(text) == [Stage("first-output", None, None), Stage("banner", None, None)]


@pytest.mark.parametrize("step", [1, 7, 64, len(BOOT)])
def test_followed_as_it_grows_in_pieces(step: int) -> None:
    """However the console arrives, the same stages in the same order."""
    follower, seen = Follower(), []
    assert follower.follow(b"") is None
    for size in (*range(step, len(BOOT), step), len(BOOT)):
        stage = follower.follow(BOOT[:size])
        if stage not in seen:
            seen.append(stage)
    assert seen[-1] == "proof"
    if step < 64:
        assert seen == [stage.name for stage in stages(BOOT)]


def test_stage_is_not_lost_by_what_is_said_again() -> None:
    follower = Follower()
    assert follower.follow(BOOT) == "proof"
    assert follower.follow(BOOT + b"[    2.0] Linux version 6.1.0\n" * 9) == "proof"
