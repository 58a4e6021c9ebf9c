"""The kernel out of an .rpm, also out of a hostile one."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path

import pytest

from bootproof.kernels import rpm, unpacking
from bootproof.kernels.errors import BadPackage, MemberMissing
from tests.kernels.rpms import (
    COMPRESSORS,
    DEVICE,
    DIRECTORY,
    FIFO,
    LINK,
    Entry,
    cpio_of,
    header_of,
    rpm_of,
)

KERNEL = bytes(range(256)) * 5001
PLACE = "lib/modules/6.1.0-1.x86_64/vmlinuz"


def take(tmp_path: Path, package: bytes) -> tuple[str, bytes]:
    source, target = tmp_path / "package.rpm", tmp_path / "out" / "kernel"
    source.write_bytes(package)
    target.parent.mkdir(exist_ok=True)
    return unpacking.take_kernel(rpm.members(source), target), target.read_bytes()


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_every_compression(tmp_path: Path, compressor: str) -> None:
    files = {"lib/modules/6.1.0-1.x86_64/config": b"x", PLACE: KERNEL, "boot/System.map": b"y" * 9}
    assert take(tmp_path, rpm_of(files, compressor)) == (PLACE, KERNEL)


def test_only_regular_files_are_taken(tmp_path: Path) -> None:
    entries = [
        Entry("./boot", mode=DIRECTORY),
        Entry("./boot/vmlinuz-a", b"/etc/passwd", LINK),
        Entry("./boot/vmlinuz-b", mode=DEVICE),
        Entry("./boot/vmlinuz-c", mode=FIFO),
        Entry(f"./{PLACE}", KERNEL),
    ]
    assert take(tmp_path, rpm_of(entries)) == (PLACE, KERNEL)
    with pytest.raises(MemberMissing, match="holds no kernel"):
        take(tmp_path, rpm_of(entries[:-1]))


def test_hostile_names_are_never_written(tmp_path: Path) -> None:
    entries = [
        Entry("../../escaped", b"!"),
        Entry("./boot/../../../vmlinuz-1", b"!"),
        Entry(f"{tmp_path}/escaped", b"!"),
        Entry(PLACE, KERNEL),
    ]
    assert take(tmp_path, rpm_of(entries)) == (PLACE, KERNEL)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kernel", "out", "package.rpm"]
    assert not (tmp_path.parent / "escaped").exists()


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = rpm_of({"boot/zeros": bytes(8 << 20), PLACE: KERNEL})
    assert len(package) < 100_000
    monkeypatch.setattr(unpacking, "MAX_UNPACKED", 4 << 20)
    with pytest.raises(BadPackage, match=r"unpacks to more than 4\.0 MiB"):
        take(tmp_path, package)


def test_a_kernel_over_the_limit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    package = rpm_of([Entry(PLACE, b"short", size=(512 << 20) + 1)])
    with pytest.raises(BadPackage, match=r"vmlinuz has 512\.0 MiB, more than 512\.0 MiB"):
        take(tmp_path, package)
    assert list((tmp_path / "out").iterdir()) == []


LEAD = b"\xed\xab\xee\xdb" + bytes(92)
HUGE = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 0x20000, 1)
WIDE = b"\x8e\xad\xe8\x01" + bytes(4) + struct.pack(">II", 1, 1 << 31)
FAR = header_of({}) + header_of({1125: "gzip"}).replace(
    struct.pack(">III", 1125, 6, 0), struct.pack(">III", 1125, 6, 999)
)
WHOLE = rpm_of({PLACE: KERNEL}, "gzip")
FILTER = {"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}
BIG_WINDOW = lzma.compress(b"x", filters=[FILTER])


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (b"", "it ends in the middle of its lead"),
        (b"<html>" * 20, "it is not an RPM package"),
        (LEAD, "it ends in the middle of its signature header"),
        (LEAD + bytes(16), "its signature header begins with 00000000, not 8eade801"),
        (LEAD + HUGE, "its signature header has 131072 entries"),
        (LEAD + WIDE, "and 2147483648 bytes: more than any has"),
        (LEAD + FAR, "its header has tag 1125 at 0x3e7, behind its end"),
        (WHOLE[:200], "it ends in the middle of its header"),
        (WHOLE[:-2000], "the payload of the package cannot be unpacked"),
        (rpm_of({}, texts={1125: "lz4"}), "packed by 'lz4', which is not known here"),
        (rpm_of({}, texts={1124: "drpm"}), "its payload is 'drpm', not cpio"),
        (rpm_of({}, "xz", payload=b"not xz"), "the payload of the package cannot be unpacked"),
        (rpm_of({}, "xz", payload=BIG_WINDOW), "cannot be unpacked: Memory"),
        (rpm_of({}, "gzip", payload=b"not gzip"), "the payload of the package cannot be unpacked"),
        (rpm_of({}, "zstd", payload=b"not zstd"), "the payload of the package cannot be unpacked"),
        (rpm_of({}, "bzip2", payload=b"not bz"), "the payload of the package cannot be unpacked"),
        (
            rpm_of({}, payload=COMPRESSORS["zstd"](b"0707" * 99)),
            "its cpio archive has b'070707' where a file should begin",
        ),
        (
            rpm_of({}, payload=COMPRESSORS["zstd"](b"070701" + b"x" * 200)),
            "its cpio archive has b'xxxxxxxx' for a number",
        ),
        (
            rpm_of({}, payload=COMPRESSORS["zstd"](cpio_of([Entry("a" * 5000)]))),
            "its cpio archive has a file name of 5001 bytes",
        ),
        (
            rpm_of({}, payload=COMPRESSORS["zstd"](cpio_of([Entry("a", b"x", size=9999)]))),
            "it ends in the middle of a",
        ),
        (
            rpm_of({}, payload=COMPRESSORS["zstd"](cpio_of([Entry(PLACE, b"x", size=9999)]))),
            f"{PLACE}: the package ends in the middle of it",
        ),
    ],
)
def test_broken_packages_are_refused(tmp_path: Path, package: bytes, message: str) -> None:
    with pytest.raises(BadPackage) as caught:
        take(tmp_path, package)
    assert message in str(caught.value)
