"""Why a boot of a file cannot be proved: the sentence that every command says."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from bootproof.loader.image import open_image
from bootproof.loader.inspect import inspect
from bootproof.loader.kconfig import COMMON
from bootproof.loader.provable import problem
from tests.builders import images, packings
from tests.builders.images import Segment, elf, elf32, load, note, notes

LINUX = b"Linux version 6.1.0 (x) #1\0no cpio magic\0loadavg\0".ljust(4096, b"\0")
START = 0x100_0000
WAY_OUT = "bootproof image --no-proof"
PT_DYNAMIC, PT_INTERP, PT_TLS = 2, 3, 7


def segment(kind: int, data: bytes) -> Segment:
    return replace(load(START, data), kind=kind)


def dynamic(*tags: int) -> Segment:
    return segment(PT_DYNAMIC, b"".join(struct.pack("<QQ", tag, 1) for tag in (*tags, 0)))


def why(kernel: bytes) -> str | None:
    found = problem(open_image(kernel, "kernel"))
    return None if found is None else found.why


INTERPRETER = segment(PT_INTERP, b"/lib64/ld-linux-x86-64.so.2\0")


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        (elf(load(START, LINUX)), None),
        (elf(load(START, LINUX), type=3), None),  # a vmlinux may be relocatable
        (
            elf(load(0, b"x"), INTERPRETER, dynamic(1), type=3),
            "it is a program (ELF, with the interpreter /lib64/ld-linux-x86-64.so.2)",
        ),
        (
            elf(load(0, LINUX + b"User Mode Linux v%s"), INTERPRETER),
            "it is User Mode Linux (ELF, with the interpreter /lib64/ld-linux-x86-64.so.2)",
        ),
        (
            elf32((1, 0x804_8000, b"x"), (PT_INTERP, 0, b"/lib/ld.so"), (4, 0, b"no part of it")),
            "it is a program (ELF, with the interpreter /lib/ld.so)",
        ),
        (
            elf(load(0, b"x"), segment(PT_INTERP, b"/" + b"l" * 300)),
            f"it is a program (ELF, with the interpreter /{'l' * 255})",
        ),
        (elf(load(0, b"x"), INTERPRETER, dynamic(14)), "it is a shared library (ELF)"),
        (elf(load(0, b"x"), dynamic(1), type=3), "it is a shared library (ELF)"),
        (
            elf(load(0, LINUX), dynamic(14), type=3),
            "it is a shared library (ELF), with a kernel inside",
        ),
        (
            elf(load(0x400000, b"x"), segment(PT_TLS, b"y")),
            "it is a program (ELF, statically linked)",
        ),
        (elf(type=1), "it is a relocatable object: a module, or a part of a build"),
        (elf(load(0, LINUX), type=4), "it is a core dump"),
        (
            elf(load(START, LINUX), load(START + 0x10000, bytes(64)))[:-1],
            "the file ends at 0x10ef, but what is loaded of it (PT_LOAD) ends at 0x10f0",
        ),
        (
            elf(load(0x111_0000, b"U-Boot 2023.01 (x)"), entry=0x111_0000),
            (
                "it is U-Boot: there is no 'Linux version' in it (it is linked at 0x1110000, Linux"
                " at a multiple of 2 MiB)"
            ),
        ),
        (
            elf32((1, 0x10_0000, b"Welcome to GRUB!")),
            "it is GRUB, a 32-bit kernel (i386)",
        ),
        (
            elf(load(START, LINUX.replace(b"no cpio magic", b""))),
            (
                "it lacks an initramfs, which holds the proof's init: nothing of"
                " CONFIG_BLK_DEV_INITRD is in it"
            ),
        ),
        (
            images.image(flags=0xB),
            "it is big-endian; bootproof's guests on aarch64 are little-endian",
        ),
        (images.image(), "there is no 'Linux version' in it"),
        (
            images.bzimage(payload_length=0),
            (
                "no vmlinux can be had out of it: the setup header names no payload (payload_length"
                " is 0)"
            ),
        ),
        (packings.bzimage(packings.gzip(elf(load(START, LINUX)))), None),
    ],
)
def test_what_stands_in_the_way_of_a_proof(kernel: bytes, wanted: str | None) -> None:
    assert why(kernel) == wanted
    unprovable = inspect(kernel).unprovable
    assert (unprovable or "").startswith(
        f"is no Linux kernel that can be proved: {wanted}" if wanted else ""
    )


def test_a_bzimage_says_who_it_is() -> None:
    kernel = bytearray(images.bzimage(bytes(4096), payload_length=0, kernel_version=0x600 - 0x200))
    kernel[0x600:0x610] = b"Memtest86+ v6.10"
    assert "its version string says 'Memtest86+ v6.10'" in str(why(bytes(kernel)))


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        (elf(load(START, b"x")), True),
        (elf(load(0, b"x")), False),  # there is no room for the protocol's own pieces
        (images.image(), True),
        (images.bzimage(payload_length=0), True),
        (elf(load(START, b"x"), machine=183), False),  # no protocol enters it: the next refusal
        (images.image(images.RISCV64, flags=0), True),
        (images.bzimage(payload_length=0, version=0x207), False),
        (elf(load(START, b"x"), INTERPRETER), False),
    ],
)
def test_the_way_out_is_only_told_where_it_leads_somewhere(kernel: bytes, wanted: bool) -> None:
    found = problem(open_image(kernel, "kernel"), COMMON)
    assert found is not None
    assert (WAY_OUT in str(found)) is wanted


def test_a_32_bit_elf_file_is_read_as_one() -> None:
    entry = note(b"Xen\0", 18, struct.pack("<I", 0x10_0020))
    kernel = elf32((1, 0x10_0000, b"\xeb\xfe"), (4, 0, entry), entry=0x10_0000)
    inspection = inspect(kernel)
    assert inspection.header == {
        "class": "32-bit",
        "e_type": 2,
        "e_machine": 3,
        "e_entry": 0x10_0000,
        "e_phnum": 2,
        "PVH entry": 0x10_0020,
    }
    assert inspection.refused is not None
    assert inspection.refused.code == "Elf::InvalidProgramHeaderSize"
    assert "it is a 32-bit ELF file" in inspection.refused.sentence
    assert "e_phentsize" not in inspection.refused.sentence
    assert inspect(kernel[:51]).header == {}
    broken = elf32((4, 0, entry[:-2]))
    assert "PVH entry" not in inspect(broken).header


def test_notes_of_a_vmlinux_are_no_hint_of_a_program() -> None:
    assert why(elf(load(START, LINUX), notes(images.BUILD_ID))) is None
