"""What a file is called, from its bytes: every format, and everything that looks like one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootproof.loader.errors import Image
from bootproof.loader.formats import Format
from bootproof.loader.identify import Identity, identify
from bootproof.loader.packing import Packing
from tests.builders import packings as build

FORMATS = {
    Packing.GZIP: Format.GZIP,
    Packing.BZIP2: Format.BZIP2,
    Packing.LZMA: Format.LZMA,
    Packing.XZ: Format.XZ,
    Packing.LZO: Format.LZO,
    Packing.LZ4_LEGACY: Format.LZ4,
    Packing.LZ4_FRAME: Format.LZ4,
    Packing.ZSTD: Format.ZSTD,
}


@pytest.mark.parametrize("how", build.COMPRESSORS)
def test_compressed_file_names_its_packing(how: str) -> None:
    packing, compress = build.COMPRESSORS[how]
    assert identify(compress(build.image())) == Identity(FORMATS[packing], packing=packing)


@pytest.mark.parametrize(
    ("machine", "arch"),
    [(62, "x86_64"), (3, "i386"), (183, "aarch64"), (243, "riscv64"), (40, "arm"), (9999, None)],
)
def test_elf_names_its_machine(machine: int, arch: str | None) -> None:
    assert identify(build.elf(machine=machine)) == Identity(Format.ELF, arch)


def test_elf_class_tells_riscv32_from_riscv64() -> None:
    elf = bytearray(build.elf(machine=243))
    elf[4] = 1
    assert identify(bytes(elf)) == Identity(Format.ELF, "riscv32")


def test_big_endian_elf_has_its_machine_read_in_its_byte_order() -> None:
    elf = bytearray(build.elf())
    elf[5] = 2
    elf[18:20] = struct.pack(">H", 22)
    assert identify(bytes(elf)) == Identity(Format.ELF, "s390x")


def test_elf_cut_before_its_machine_is_still_elf() -> None:
    assert identify(build.elf()[:19]) == Identity(Format.ELF)


def test_bzimage_tells_release_payload_and_64_bit_entry() -> None:
    kernel = build.bzimage(build.xz(build.elf()))
    assert identify(kernel) == Identity(Format.BZIMAGE, "x86_64", Packing.XZ, "6.1.0-test")


def test_bzimage_without_64_bit_entry_promises_only_i386() -> None:
    kernel = build.bzimage(build.gzip(build.elf()), xloadflags=0)
    assert identify(kernel) == Identity(Format.BZIMAGE, "i386", Packing.GZIP, "6.1.0-test")


def test_xloadflags_do_not_count_before_protocol_2_12() -> None:
    kernel = build.bzimage(build.gzip(build.elf()), version=0x020B, xloadflags=1)
    assert identify(kernel) == Identity(Format.BZIMAGE, None, Packing.GZIP, "6.1.0-test")


def test_setup_sects_zero_means_four() -> None:
    kernel = build.bzimage(build.zstd(build.elf()), setup_sects=0)
    assert identify(kernel).packing is Packing.ZSTD


def test_payload_is_not_looked_for_before_protocol_2_08() -> None:
    kernel = build.bzimage(build.gzip(build.elf()), version=0x0207)
    assert identify(kernel) == Identity(Format.BZIMAGE, None, None, "6.1.0-test")


@pytest.mark.parametrize("pointer", [0, 0xFFFF, 0x100])
def test_kernel_version_that_points_nowhere_gives_no_release(pointer: int) -> None:
    kernel = bytearray(build.bzimage(build.gzip(build.elf())))
    kernel[0x20E:0x210] = struct.pack("<H", pointer)
    kernel[0x200:0x202] = b"A "  # what a pointer of 0 would read
    assert identify(bytes(kernel)).release is None


@pytest.mark.parametrize("text", [b"\x1b[31m6.1 ", b"6.1\xff ", b"x" * 128, b" 6.1"])
def test_version_string_that_is_none_gives_no_release(text: bytes) -> None:
    assert identify(build.bzimage(b"", release=text)).release is None


def test_bzimage_without_boot_flag_is_a_bzimage_as_the_loader_sees_it() -> None:
    kernel = bytearray(build.bzimage(build.gzip(build.elf())))
    kernel[0x1FE:0x200] = b"\0\0"
    assert identify(bytes(kernel)).format is Format.BZIMAGE


def test_hdrs_damaged_is_no_bzimage() -> None:
    kernel = bytearray(build.bzimage(build.gzip(build.elf())))
    kernel[0x202] ^= 1
    assert identify(bytes(kernel)) == Identity(Format.UNKNOWN)


@pytest.mark.parametrize("length", [0x206, 0x230, 0x26B])
def test_bzimage_cut_inside_its_header_is_still_a_bzimage(length: int) -> None:
    assert identify(build.bzimage(b"")[:length]).format is Format.BZIMAGE


@pytest.mark.parametrize("start", [b"MZ\x40\xfa", b"\x00\x00\x00\x14"])
@pytest.mark.parametrize(("magic", "arch"), [(b"ARM\x64", "aarch64"), (b"RSC\x05", "riscv64")])
def test_image_is_known_by_its_magic_with_and_without_mz(
    start: bytes, magic: bytes, arch: str
) -> None:
    assert identify(build.image(magic=magic, start=start)) == Identity(Format.IMAGE, arch)


def test_image_cut_inside_its_header_is_unknown() -> None:
    assert identify(build.image(start=b"\0\0\0\x14")[:0x3F]) == Identity(Format.UNKNOWN)


@pytest.mark.parametrize(
    ("name", "how", "packing"),
    [
        (b"gzip", "gzip", Packing.GZIP),
        (b"zstd22", "zstd-22", Packing.ZSTD),
        (b"zstd", "zstd", Packing.ZSTD),
        (b"lzo", "lzo", Packing.LZO),
        (b"lz4", "lz4-legacy", Packing.LZ4_LEGACY),
        (b"xzkern", "xz", Packing.XZ),
        (b"gzip", "xz", None),
        (b"brotli", "xz", None),
    ],
)
def test_zboot_names_architecture_and_packing(
    name: bytes, how: str, packing: Packing | None
) -> None:
    kernel = build.zboot(build.COMPRESSORS[how][1](build.image()), name)
    assert identify(kernel) == Identity(Format.ZBOOT, "aarch64", packing)


def test_zboot_for_riscv64() -> None:
    kernel = build.zboot(build.gzip(build.image()), b"gzip", machine=0x5064)
    assert identify(kernel).arch == "riscv64"


@pytest.mark.parametrize(("machine", "arch"), [(0x8664, "x86_64"), (0xAA64, "aarch64")])
def test_pe_with_a_linux_section_is_a_unified_kernel_image(machine: int, arch: str) -> None:
    kernel = build.uki([(".osrel", b"ID=debian"), (".linux", build.image())], machine=machine)
    assert identify(kernel) == Identity(Format.UKI, arch)


def test_other_efi_application_is_named_but_unknown() -> None:
    program = build.uki([(".text", b"grub")], machine=0xAA64)
    remark = "an EFI application without a kernel inside"
    assert identify(program) == Identity(Format.UNKNOWN, remark=remark)


@pytest.mark.parametrize("content", [b"\0", b"MZ", bytes(4096), b"]\0"])
def test_what_is_no_kernel_is_unknown(content: bytes) -> None:
    assert identify(content) == Identity(Format.UNKNOWN)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(Image.Empty):
        identify(empty)


def test_pe_with_65535_sections_beyond_the_file_is_read_as_far_as_it_goes() -> None:
    kernel = bytearray(build.uki([(".text", b"x"), (".linux", build.image())]))
    kernel[0x46:0x48] = b"\xff\xff"
    assert identify(bytes(kernel)).format is Format.UKI


SAMPLES = [
    build.elf(),
    build.image(),
    build.bzimage(build.gzip(build.elf())),
    build.zboot(build.gzip(build.image()), b"gzip"),
    build.uki([(".linux", build.image())]),
]


@pytest.mark.parametrize("sample", range(len(SAMPLES)))
def test_any_beginning_of_a_kernel_is_identified_without_error(sample: int) -> None:
    for length in range(1, 0x300):
        identify(SAMPLES[sample][:length])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(
        st.tuples(st.integers(0, 0x2FF), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=6,
    ),
)
def test_damaged_headers_are_identified_without_error(
    sample: bytes, damages: list[tuple[int, bytes]]
) -> None:
    damaged = bytearray(sample)
    for offset, content in damages:
        damaged[offset : offset + len(content)] = content
    identify(bytes(damaged))
