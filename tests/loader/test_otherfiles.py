"""Files of other kinds in a kernel's place; each is made here as its own format says."""

from __future__ import annotations

import io
import struct
import tarfile
import time
import zipfile

import pytest

from bootproof.loader.formats import Format
from bootproof.loader.identify import identify
from bootproof.loader.otherfiles import OtherFile, is_multiboot, program_named_in, recognise
from bootproof.loader.packing import Unpack
from bootproof.loader.unpack import unpack_fully

UIMAGE = struct.pack(
    ">7I4B32s", 0x27051956, 0, 0, 4096, 0x80000, 0x80000, 0, 5, 22, 2, 1, b"Linux-6.1.0"
) + bytes(4096)
ANDROID = b"ANDROID!" + struct.pack("<9I", 30000, 0x8000, 0, 0, 0, 0, 0, 2048, 0) + bytes(8192)
ANDROID_3 = b"ANDROID!" + struct.pack("<9I", 30000, 100, 0, 0, 0, 0, 0, 0, 3) + bytes(8192)
DTB = struct.pack(">10I", 0xD00DFEED, 256, 56, 200, 40, 17, 16, 0, 16, 100) + bytes(216)
FIT = DTB[:56] + struct.pack(">I", 1) + bytes(4) + struct.pack(">I", 1) + b"images\0\0" + DTB[76:]
PARTITION = b"\x80\0\0\0\x83\0\0\0" + struct.pack("<II", 2048, 4096)
MBR = bytes(446) + PARTITION + bytes(48) + b"\x55\xaa"
ISO = bytes(0x8001) + b"CD001" + bytes(2048)
OUT_OF_IT = "mount or unpack it, and give the kernel in it"
OUR_CPUS = "bootproof boots x86_64, aarch64, riscv64"


def tar() -> bytes:
    """An archive with a kernel in it, as a build's `make tar-pkg` writes it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        member = tarfile.TarInfo("boot/vmlinuz-6.1.0")
        member.size = 6
        archive.addfile(member, io.BytesIO(b"kernel"))
    return made.getvalue()


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("vmlinuz", b"kernel")
    return made.getvalue()


def at(offset: int, magic: bytes) -> bytes:
    return bytes(offset) + magic + bytes(600)


@pytest.mark.parametrize(
    ("data", "what", "advice"),
    [
        (
            UIMAGE,
            "a U-Boot legacy image (uImage): kernel 'Linux-6.1.0'",
            "take the kernel out of it: tail -c +65 FILE > kernel",
        ),
        (
            FIT,
            "a flattened image tree (FIT) of U-Boot's",
            "take the kernel out of it: dumpimage -T flat_dt -p 0 -o kernel FILE",
        ),
        (DTB, "a device tree", None),
        (
            ANDROID,
            "an Android boot image, header version 0",
            "take the kernel out of it: tail -c +2049 FILE | head -c 30000 > kernel",
        ),
        (
            ANDROID_3,
            "an Android boot image, header version 3",
            "take the kernel out of it: tail -c +4097 FILE | head -c 30000 > kernel",
        ),
        (
            b"070701" + bytes(200),
            "an initramfs (cpio archive)",
            "give it with --initrd",
        ),
        (b"!<arch>\ndebian-binary   ", "a Debian package", None),
        (b"!<arch>\nmain.o/  ", "an archive of object files (ar)", "give the kernel linked of it"),
        (ISO, "a CD image (ISO 9660)", OUT_OF_IT),
        (MBR, "a disk image (MBR)", OUT_OF_IT),
        (at(0x200, b"EFI PART"), "a disk image (GPT)", OUT_OF_IT),
        (at(0x36, b"FAT16   "), "a file system (FAT)", OUT_OF_IT),
        (at(0x438, b"\x53\xef\1\0"), "a file system (ext4)", OUT_OF_IT),
        (tar(), "an archive (tar)", OUT_OF_IT),
        (zipped(), "an archive (zip)", OUT_OF_IT),
        (at(0x24, b"\x18\x28\x6f\1"), "a zImage for 32-bit CPUs (arm)", OUR_CPUS),
        (at(0x10008, b"S390EP"), "a kernel for s390x", OUR_CPUS),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "a pointer of Git LFS",
            "git lfs pull gets the file",
        ),
        (
            b"<!DOCTYPE html>\n<title>404 Not Found</title>\n",
            "a web page (HTML)",
            "get the file itself: what was downloaded is none",
        ),
        (b"#\n# Automatically generated\n", "a text file: '# Automatically generated'", None),
        (b"Gr\xc3\xbc\xc3\x9fe\x1b[2J\n", r"a text file: 'Grüße\x1b[2J'", None),
        (b"w" * 511 + b"\xc3\xbc", f"a text file: '{'w' * 60}…'", None),
        (
            bytes(64) + b"Xen version \0Linux version 6.1.0-50 (gcc)" + bytes(64),
            "Linux 6.1.0-50, as a binary without any header",
            "give what it was made of, the vmlinux, or a bzImage or Image",
        ),
        (
            bytes(64) + b"U-Boot 2023.01 (Jun 22 2026)" + bytes(64),
            "U-Boot, as a binary without any header",
            None,
        ),
    ],
)
def test_a_file_is_told_what_it_is_and_the_way_out(
    data: bytes, what: str, advice: str | None
) -> None:
    assert recognise(memoryview(data)) == OtherFile(what, advice)
    identity = identify(data)
    assert (identity.format, identity.remark) == (Format.UNKNOWN, what)
    with pytest.raises(Unpack.Unrecognised) as caught:
        unpack_fully(data)
    assert what in str(caught.value)
    assert advice is None or str(caught.value).endswith(advice)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Gr\xfc\xdfe in Latin-1",
        bytes(510) + b"\x55\xaa",
        bytes(446) + b"\x80" + bytes(63) + b"\x55\xaa",
        UIMAGE[:63],
        ANDROID[:40],
        bytes(4096),
    ],
)
def test_what_nothing_is_known_of_is_left_alone(data: bytes) -> None:
    assert recognise(memoryview(data)) is None


@pytest.mark.parametrize("size", [7, 63, 64, 100, 0x8001])
@pytest.mark.parametrize("whole", [UIMAGE, ANDROID, FIT, MBR, ISO])
def test_a_file_that_is_cut_costs_no_traceback(whole: bytes, size: int) -> None:
    recognise(memoryview(whole[:size]))


@pytest.mark.parametrize(
    ("at", "data", "wanted"),
    [
        (4, struct.pack("<III", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF), True),
        (8188, struct.pack("<III", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF), False),
        (6, struct.pack("<III", 0x1BADB002, 3, -(0x1BADB002 + 3) & 0xFFFFFFFF), False),
        (4, struct.pack("<III", 0x1BADB002, 3, 0), False),
        (
            16384,
            struct.pack("<IIII", 0xE85250D6, 0, 24, -(0xE85250D6 + 24) & 0xFFFFFFFF),
            True,
        ),
    ],
)
def test_multiboot(at: int, data: bytes, wanted: bool) -> None:
    assert is_multiboot(memoryview(bytes(at) + data + bytes(64))) is wanted


def test_a_text_across_two_chunks_is_found() -> None:
    data = bytes((1 << 20) - 5) + b"Welcome to GRUB!" + bytes(100)
    assert program_named_in(memoryview(data)) == "GRUB"


def test_a_large_file_of_nothing_costs_little() -> None:
    began = time.process_time()
    recognise(memoryview(bytes(64 << 20)))
    recognise(memoryview(b"\x02\xb0\xad\x1b" * (1 << 20)))
    assert time.process_time() - began < 3
