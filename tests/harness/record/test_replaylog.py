"""QEMU's log of a run: read exactly, and refused when it is not what QEMU 7.2 writes."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from bootproof.harness.record import replaylog
from bootproof.harness.record.replaylog import ReplayLogError, read

VERSION = replaylog.KNOWN_VERSIONS[0]
INTERRUPT, BOTTOM_HALF, QUIT, CLOCK, CHECKPOINT, END = (
    b"\x01",
    b"\x03",
    b"\x0c",
    b"\x1c",
    b"\x22",
    b"'",
)


def log(*events: bytes, version: int = VERSION) -> bytes:
    return struct.pack(">IQ", version, 0) + b"".join(events)


def executed(instructions: int) -> bytes:
    return b"\0" + struct.pack(">I", instructions)


def wrote(count: int, result: int | None = None) -> bytes:
    return b"\x16" + struct.pack(">iI", count if result is None else result, count)


def random_bytes(count: int) -> bytes:
    return b"\x1b" + struct.pack(">iI", 0, count) + b"\x16" * count


def saved(data: bytes, directory: Path) -> Path:
    (directory / "replay.bin").write_bytes(data)
    return directory / "replay.bin"


def test_instructions_before_each_byte(tmp_path: Path) -> None:
    events = (
        *(CHECKPOINT, CLOCK, bytes(8), random_bytes(5), executed(100), wrote(1)),
        *(INTERRUPT, executed(7), wrote(1), BOTTOM_HALF, bytes(8), executed(3), wrote(4)),
        *(executed(0xFFFFFFFF), executed(1), wrote(1), QUIT, END),
    )
    found = read(saved(log(*events), tmp_path), [0, 1, 2, 5, 6])
    assert found.at == (100, 107, 110, 110, (1 << 32) + 110)
    assert (found.instructions, found.console_bytes) == ((1 << 32) + 110, 7)
    assert found.failed_writes == 0


def test_thousands_of_characters(tmp_path: Path) -> None:
    """As a log mostly is: a few instructions, one character, over and over."""
    events = [each for number in range(10_000) for each in (executed(number), wrote(1))]
    events[3:3] = [INTERRUPT]
    found = read(saved(log(*events, QUIT, executed(5), END), tmp_path), [0, 4095, 4096, 9999])
    assert found.at == (0, 4095 * 2048, 4096 * 4097 // 2, 9999 * 5000)
    assert (found.instructions, found.console_bytes) == (9999 * 5000 + 5, 10_000)
    assert found.early_quit == len(log(*events))


def test_writes_the_host_did_not_take(tmp_path: Path) -> None:
    events = (executed(1), wrote(1), wrote(0, result=-1), wrote(1), wrote(0, result=-1), END)
    found = read(saved(log(*events), tmp_path), [1])
    assert (found.console_bytes, found.failed_writes) == (2, 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "has only 0 bytes"),
        (log(), "has only 12 bytes"),
        (log(executed(1), version=0), "is not complete: QEMU did not come to finish it"),
        (log(END, version=0xE0200B), "has version 0xe0200b; this program reads 0xe0200c"),
        (log(executed(1)), "is cut off at offset 0x11"),
        (log(executed(1)[:-1]), "is cut off at offset 0xc"),
        (log(executed(1), wrote(1)[:3]), "is cut off at offset 0x11"),
        (log(random_bytes(100)[:50]), "is cut off at offset 0x79"),
        (log(random_bytes(0xFF)[:5] + b"\xff" * 4, END), "is cut off at offset 0x100000014"),
        (log(b"\x07", bytes(40)), "has an event that is not known at offset 0xc: 0x7"),
        (log(executed(1), b"\xff", END), "has an event that is not known at offset 0x11: 0xff"),
        (log(END, END), "goes on behind its end at offset 0xd"),
        (log(executed(1), wrote(2), END), "tells of 2 console bytes, not of byte 2"),
    ],
)
def test_refused(data: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ReplayLogError) as caught:
        read(saved(data, tmp_path), [1, 2])
    assert str(caught.value) == reason


def test_quit_that_stands_before_the_instructions_it_ended(tmp_path: Path) -> None:
    for then in (INTERRUPT, wrote(1)):
        path = saved(log(executed(1), QUIT, executed(2), then, END), tmp_path)
        for _ in range(2):
            replaylog.put_in_order(path, read(path))
            assert path.read_bytes() == log(executed(1), executed(2), QUIT, then, END)


def test_quit_in_its_place(tmp_path: Path) -> None:
    for events in ((executed(1), QUIT, END), (QUIT, INTERRUPT, executed(1), END)):
        path = saved(log(*events), tmp_path)
        replaylog.put_in_order(path, read(path))
        assert path.read_bytes() == log(*events)


def test_larger_than_wanted(tmp_path: Path) -> None:
    path = saved(log(executed(1), END), tmp_path)
    assert read(path, limit=18).instructions == 1
    with pytest.raises(ReplayLogError, match="has 18 bytes, more than 17"):
        read(path, limit=17)


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(saved(log(END), tmp_path))
    for name, reason in (
        ("none", "cannot be opened: No such file"),
        ("link", "cannot be opened: Too many levels of symbolic links"),
        ("pipe", "is not a regular file"),
        (".", "is not a regular file"),
    ):
        with pytest.raises(ReplayLogError, match=reason):
            read(tmp_path / name)


def test_every_cut_of_a_log_is_refused(tmp_path: Path) -> None:
    whole = log(executed(5), wrote(1), random_bytes(3), CLOCK, bytes(8), INTERRUPT, END)
    assert read(saved(whole, tmp_path)).instructions == 5
    for size in range(len(whole)):
        with pytest.raises(ReplayLogError):
            read(saved(whole[:size], tmp_path))
