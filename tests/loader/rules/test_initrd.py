"""What Linux takes for an initrd: usr/gen_init_cpio.c, lib/decompress.c, init/do_mounts_rd.c."""

from __future__ import annotations

import pytest

from bootproof.loader import initramfs
from bootproof.loader.address import MIB, Range
from bootproof.loader.boot_parameters import reader
from bootproof.loader.memory import GuestMemory
from bootproof.loader.rules import Grade, initrd, tolerated

AT = MIB
ARCHIVE = initramfs.archive([initramfs.file("init", b"#!/bin/true\n" * 99, 0o755)])
SUM = sum(b"#!/bin/true\n" * 99)
SUMMED = b"070702" + ARCHIVE[6:102] + b"%08x" % SUM + ARCHIVE[110:]
SQUASHFS, ROMFS, CRAMFS = b"hsqs", b"-rom1fs-", b"\x45\x3d\xcd\x28"


def said(data: bytes, size: int | None = None) -> list[tuple[Grade, str]]:
    with GuestMemory([(0, 8 * MIB)]) as memory:
        memory.write(AT, data)
        place = Range(AT, len(data) if size is None else size)
        found = initrd.check(reader(memory), place, "here", tolerated)
        return [(finding.grade, finding.sentence) for finding in found]


@pytest.mark.parametrize(
    "data",
    [
        ARCHIVE,
        SUMMED,
        ARCHIVE + bytes(512),
        bytes(4) + ARCHIVE,
        bytes(0x1000) + ARCHIVE,
        bytes(0x1004) + ARCHIVE,
        bytes(4 * MIB - 0x1000) + ARCHIVE,
        ARCHIVE + b"\x1f\x8b\x08",  # what comes behind a trailer is another archive
        b"\x1f\x8b\x08" + bytes(9),
        b"\x28\xb5\x2f\xfd",
        bytes(8) + b"\xfd7zXZ\0",
        bytes(0x1002) + b"\x1f\x8b\x08" + bytes(9),
        SQUASHFS,
        ROMFS,
        CRAMFS,
        bytes(0x200) + CRAMFS,
        bytes(0x410) + b"\x7f\x13",
        bytes(0x410) + b"\x8f\x13",
        bytes(0x438) + b"\x53\xef",
    ],
    ids=lambda data: data[:12].hex() + f"-{len(data)}",
)
def test_what_is_taken(data: bytes) -> None:
    assert said(data) == []


@pytest.mark.parametrize(
    "data",
    [
        b"070703" + ARCHIVE[6:],
        ARCHIVE[6:],
        *(b"x" + data for data in (SQUASHFS, ROMFS, CRAMFS)),
        bytes(0x201) + CRAMFS,
        bytes(0x411) + b"\x7f\x13",
        bytes(0x40F) + b"\x8f\x13",
        bytes(0x437) + b"\x53\xef",
        b"\x7fELF",
        bytes(2) + ARCHIVE,
        bytes(0x1003) + ARCHIVE,
    ],
    ids=lambda data: data[:12].hex() + f"-{len(data)}",
)
def test_what_is_not(data: bytes) -> None:
    ((grade, sentence),) = said(data)
    assert grade is Grade.TOLERATED
    assert "no archive, and not packed as kernels do" in sentence


@pytest.mark.parametrize(
    ("data", "way_out"),
    [
        (b"\x04\x22\x4d\x18", "pack it with lz4 -l"),
        (bytes(8) + b"\xfd7zXZ\0\0\4", "pack it with xz --check=crc32"),
    ],
)
def test_what_kernels_do_not_unpack(data: bytes, way_out: str) -> None:
    ((grade, sentence),) = said(data)
    assert (grade, way_out in sentence) == (Grade.TOLERATED, True), sentence


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"070702" + ARCHIVE[6:], "has a file at 0x100074 that is not as its checksum says"),
        (bytes(0x1000), "begins with 0x1000 zeros"),
        (bytes(12), "begins with 0xc zeros"),
        (bytes(4 * MIB) + ARCHIVE, "begins with 0x1000 zeros"),
        (ARCHIVE[:110] + bytes(1), "has no member at"),
        (ARCHIVE[: ARCHIVE.index(b"TRAILER") - 110], "and no trailer before"),
        (bytes(4) + ARCHIVE[: ARCHIVE.index(b"TRAILER") - 110], "and no trailer before"),
    ],
)
def test_what_is_cut(data: bytes, sentence: str) -> None:
    ((grade, told),) = said(data)
    assert (grade, sentence in told) == (Grade.VIOLATION, True), told


def test_an_archive_ends_with_its_trailer() -> None:
    """Padded to 4 bytes, of which the last need not be there."""
    end = len(ARCHIVE.rstrip(b"\0")) + 1
    assert said(ARCHIVE, end) == []
    ((grade, sentence),) = said(ARCHIVE, end - 4)
    assert (grade, "is cut: its archive goes on to" in sentence) == (Grade.VIOLATION, True)
