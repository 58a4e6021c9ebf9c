"""Initramfs archives as kernels unpack them: what is taken, and what is refused, and where."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import struct

import lz4.frame
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader.cpio import Initramfs, check
from bootproof.loader.errors import LoaderError
from bootproof.loader.initramfs import Entry, archive, directory, file
from bootproof.loader.packing import Unpack
from tests.builders import packings

PLAIN = archive([directory("bin"), file("init", b"#!/bin/sh\n"), file("bin/sh", bytes(5000))])
PACKED = {
    "gzip": gzip.compress(PLAIN, mtime=0),
    "bzip2": bz2.compress(PLAIN),
    "xz": lzma.compress(PLAIN, check=lzma.CHECK_CRC32),
    "lzma": lzma.compress(PLAIN, format=lzma.FORMAT_ALONE),
    "zstd": zstandard.compress(PLAIN),
    "lz4": packings.lz4_legacy(PLAIN),
}
BOOTCONFIG = b"kernel { quiet }\n".ljust(20, b"\0")
WITH_BOOTCONFIG = PLAIN + BOOTCONFIG + struct.pack("<II", len(BOOTCONFIG), 0) + b"#BOOTCONFIG\n"


def summed(check: int) -> bytes:
    """An archive with a checksum, of a file whose bytes sum up to 0x7f80."""
    whole = archive([file("bytes", bytes(range(256)))])
    return b"070702" + whole[6:102] + b"%08x" % check + whole[110:]


def refusal(data: bytes) -> LoaderError:
    with pytest.raises(LoaderError) as caught:
        check(data, "my.cpio", "bootproof")
    assert str(caught.value).startswith("my.cpio: ") and str(caught.value).isprintable()
    return caught.value


def padded(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 4) * 4, b"\0")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN[: PLAIN.index(b"TRAILER!!!\0") + 11],
        summed(sum(range(256))),
        *PACKED.values(),
        # Several, as for microcode: with zeros in between, packed or not.
        bytes(8) + PLAIN + bytes(1024) + PLAIN,
        PLAIN + PACKED["zstd"],
        padded(PACKED["gzip"]) + PLAIN + PACKED["xz"],
        PACKED["gzip"] + PACKED["gzip"] + bytes(3),
        gzip.compress(PLAIN + PLAIN, mtime=0),
        WITH_BOOTCONFIG,
        bytes(512),
    ],
    ids=range(16),
)
def test_what_kernels_unpack(data: bytes) -> None:
    check(data, "my.cpio", "bootproof")


@pytest.mark.parametrize(
    ("name", "there"),
    [("init", True), ("./init", True), ("/init", True), ("sbin/init", False), ("init.d", False)],
)
@pytest.mark.parametrize("packed", [False, True])
def test_whether_there_is_an_init(name: str, there: bool, packed: bool) -> None:
    data = archive([file(name, b"#!/bin/sh\n", 0o755)])
    data = gzip.compress(data) if packed else data
    assert check(data, "my.cpio", "bootproof") is there


@pytest.mark.parametrize(
    ("data", "at", "words"),
    [
        (b"hello, world\n", 0, "no cpio archive begins at 0x0 (there is 68 65 6c 6c 6f 2c)"),
        (PLAIN + b"junk", len(PLAIN), f"no cpio archive begins at {len(PLAIN):#x}"),
        (PLAIN + b"\0" + PLAIN, len(PLAIN) + 1, "multiples of 4: put 3 zero bytes before it"),
        (b"070707" + bytes(70), 0, "make it with cpio -H newc"),
        (b"\xc7\x71" + bytes(70), 0, "make it with cpio -H newc"),
        (lz4.frame.compress(PLAIN), 0, "pack it with lz4 -l"),
        (lzma.compress(PLAIN), 0, "pack it with xz --check=crc32"),
        (PLAIN + lzma.compress(PLAIN, check=lzma.CHECK_SHA256), len(PLAIN), "xz --check=crc32"),
        (
            gzip.compress(PLAIN + b"junk", mtime=0),
            len(PLAIN),
            "in the gzip stream at 0x0: no cpio archive",
        ),
        (
            gzip.compress(b"hello\n", mtime=0),
            0,
            "in the gzip stream at 0x0: no cpio archive begins at 0x0",
        ),
        (PLAIN.replace(b"init\0", b"initX"), PLAIN.index(b"init\0"), "no cpio archive begins at"),
        (PLAIN[:8] + b"x" + PLAIN[9:], 0, "no cpio archive begins at 0x0"),
        (PLAIN + WITH_BOOTCONFIG[len(PLAIN) :][:-4], len(PLAIN), "no cpio archive begins at"),
    ],
)
def test_what_is_no_archive(data: bytes, at: int, words: str) -> None:
    error = refusal(data)
    assert isinstance(error, Initramfs.NotAnArchive)
    assert error.offset == at and words in str(error)


def test_member_that_is_not_as_its_checksum_says() -> None:
    error = refusal(summed(0x7F81))
    assert isinstance(error, Initramfs.Damaged)
    assert "content of the member at 0x0 is not as its checksum says" in str(error)


def test_archive_cut_anywhere_is_incomplete() -> None:
    end = PLAIN.index(b"TRAILER!!!\0") + len(b"TRAILER!!!\0")
    for size in range(1, end):
        error = refusal(PLAIN[:size])
        assert isinstance(error, Initramfs.Truncated) and error.offset == size
    check(PLAIN[:end], "my.cpio", "bootproof")


@pytest.mark.parametrize("name", PACKED)
def test_packed_archive_that_is_cut(name: str) -> None:
    error = refusal(PACKED[name][:-20])
    assert isinstance(error, (Unpack.Truncated, Unpack.Corrupt))


def link(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


@pytest.mark.parametrize(
    "entries",
    [
        [file("bootproof/init", b"x")],
        [directory("bootproof")],
        [file("/bootproof/init", b"x")],
        [file(".//x/../bootproof/busybox", b"x")],
        [link("bootproof", "/tmp")],
        [link("a", "bootproof"), file("a/init", b"x")],
        [link("a", "/./bootproof/init")],
        [link("a", "/"), file("b", b""), file("a/bootproof/init", b"x")],
        [link("TRAILER!!!", "bootproof"), file("TRAILER!!!/init", b"x")],
        [Entry("bootproof\0more", stat.S_IFREG | 0o644, b"x")],
        [Entry("bootproof", stat.S_IFCHR | 0o644, b"", (1, 3))],
    ],
    ids=range(11),
)
@pytest.mark.parametrize("packed", [False, True])
def test_member_that_could_replace_our_init(entries: list[Entry], packed: bool) -> None:
    data = PLAIN + archive(entries)
    error = refusal(gzip.compress(data, mtime=0) if packed else data)
    assert isinstance(error, Initramfs.Reserved)
    assert "could replace bootproof's own init, which is in /bootproof" in str(error)


def test_names_that_are_only_like_ours() -> None:
    names = ["bootproofx/init", "xbootproof", "bootproof.d/a"]
    check(
        archive([*(file(name, b"x") for name in names), link("a", "/b/bootproof2")]),
        "a",
        "bootproof",
    )


@given(
    st.binary(max_size=200), st.integers(0, len(PLAIN)), st.sampled_from([*PACKED.values(), PLAIN])
)
def test_anything_is_refused_in_one_line_or_taken(change: bytes, at: int, data: bytes) -> None:
    hostile = data[:at] + change + data[at + len(change) :]
    try:
        check(hostile, "my.cpio", "bootproof")
    except LoaderError as error:
        assert str(error).isprintable()
