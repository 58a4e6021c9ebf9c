"""What comes out of a packed kernel, what is refused, and that nothing else can happen."""

from __future__ import annotations

import bz2
import contextlib
import functools
import itertools
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bootproof.loader.address import MIB
from bootproof.loader.errors import Image, LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify
from bootproof.loader.packing import Packing, Unpack, UnpackError
from bootproof.loader.unpack import (
    MAX_STEPS,
    Step,
    uki_parts,
    unpack,
    unpack_fully,
    unpack_to,
)
from tests import ROOT
from tests.builders import packings as build

VMLINUX = build.elf(150_000)
IMAGE = build.image(100_000)
PAYLOAD_START = 5 * 512 + 0x40
ZBOOT_NAMES = {
    Packing.GZIP: b"gzip",
    Packing.ZSTD: b"zstd22",
    Packing.LZO: b"lzo",
    Packing.LZ4_LEGACY: b"lz4",
    Packing.LZ4_FRAME: b"lz4",
    Packing.XZ: b"xzkern",
    Packing.LZMA: b"lzma",
}

every_packing = pytest.mark.parametrize("how", build.COMPRESSORS)


@functools.cache
def compressed(how: str, content: bytes) -> bytes:
    return build.COMPRESSORS[how][1](content)


def payload(how: str, content: bytes, *, size: int | None = None) -> bytes:
    """`content` as the kernel build puts it into a bzImage: with a size word behind it."""
    length = len(content) if size is None else size
    return build.with_size(compressed(how, content), length, build.COMPRESSORS[how][0])


def refused(kernel: bytes, *, limit: int = 1 << 30) -> UnpackError:
    with pytest.raises(UnpackError) as caught:
        unpack(kernel, limit=limit)
    return caught.value


@contextlib.contextmanager
def within(cpu_seconds: float) -> Iterator[None]:
    """The block takes less than this of our own CPU time: the host's load does not count."""
    start = time.process_time()
    yield
    assert time.process_time() - start < cpu_seconds


# --- every packing in every container ------------------------------------------------------------


@every_packing
def test_image_out_of_a_compressed_file(how: str) -> None:
    packed = compressed(how, IMAGE)
    unpacked = unpack(packed)
    packing = build.COMPRESSORS[how][0]
    assert bytes(unpacked.data) == IMAGE
    assert (unpacked.format, unpacked.arch, unpacked.packing) == (Format.IMAGE, "aarch64", packing)
    (step,) = unpacked.steps
    assert (step.offset, step.packed_size, step.size) == (0, len(packed), len(IMAGE))
    assert str(step) == f"{packing} file"


@every_packing
def test_vmlinux_out_of_a_bzimage(how: str) -> None:
    packing = build.COMPRESSORS[how][0]
    packed = payload(how, VMLINUX)
    unpacked = unpack(build.bzimage(packed))
    stream = len(packed) - 4 * (packing is not Packing.GZIP)
    step = Step(Format.BZIMAGE, packing, PAYLOAD_START, stream, len(VMLINUX))
    assert bytes(unpacked.data) == VMLINUX
    assert (unpacked.format, unpacked.arch, unpacked.steps) == (Format.ELF, "x86_64", (step,))
    assert str(step) == f"bzimage payload, {packing}"


@pytest.mark.parametrize("how", [h for h, (p, _) in build.COMPRESSORS.items() if p in ZBOOT_NAMES])
def test_image_out_of_an_efi_zboot_image(how: str) -> None:
    packing = build.COMPRESSORS[how][0]
    kernel = build.zboot(
        payload(how, IMAGE), ZBOOT_NAMES[packing], size_word=packing is not Packing.GZIP
    )
    unpacked = unpack(kernel)
    assert bytes(unpacked.data) == IMAGE
    assert (unpacked.format, unpacked.packing) == (Format.IMAGE, packing)
    assert str(unpacked.steps[0]) == f"zboot payload, {packing}"


def test_relocations_behind_the_vmlinux_stay() -> None:
    content = VMLINUX + bytes(4) + b"relocs" * 100
    assert bytes(unpack(build.bzimage(payload("gzip", content))).data) == content


def test_parts_of_a_unified_kernel_image() -> None:
    kernel = build.uki(
        [
            (".osrel", b"ID=debian"),
            (".uname", b"6.1.0-test"),
            (".cmdline", b"root=/dev/vda quiet \n\0"),
            (".initrd", b"0707" * 100),
            (".ucode", b"ucode"),
            (".linux", IMAGE),
        ]
    )
    unpacked = unpack(kernel)
    assert (bytes(unpacked.data), unpacked.format) == (IMAGE, Format.IMAGE)
    assert unpacked.initrd is not None
    assert (bytes(unpacked.initrd), unpacked.cmdline) == (b"0707" * 100, "root=/dev/vda quiet")
    assert unpacked.packing == "stored"
    assert str(unpacked.steps[0]) == "unified kernel image, section .linux"
    parts = uki_parts(kernel)
    assert parts.microcode is not None
    assert (bytes(parts.microcode), parts.release) == (b"ucode", "6.1.0-test")


def test_unified_kernel_image_without_initrd_and_cmdline() -> None:
    unpacked = unpack(build.uki([(".linux", IMAGE)]))
    assert (unpacked.initrd, unpacked.cmdline) == (None, None)


def test_first_profile_of_a_unified_kernel_image_overrides_its_base() -> None:
    kernel = build.uki(
        [
            (".linux", IMAGE),
            (".cmdline", b"base"),
            (".initrd", b"base"),
            (".profile", b"ID=main"),
            (".cmdline", b"main"),
            (".profile", b"ID=rescue"),
            (".cmdline", b"rescue"),
        ]
    )
    unpacked = unpack(kernel)
    assert unpacked.initrd is not None
    assert (unpacked.cmdline, bytes(unpacked.initrd)) == ("main", b"base")


def test_section_that_is_larger_in_memory_has_what_the_file_has() -> None:
    image = IMAGE.ljust(-(-len(IMAGE) // 512) * 512, b"\0")
    kernel = build.uki([(".linux", image)], in_memory={".linux": 1 << 30})
    assert bytes(unpack(kernel).data) == image


def test_a_section_that_is_not_all_in_the_file_is_refused_by_its_place() -> None:
    kernel = build.uki([(".cmdline", b"quiet"), (".linux", IMAGE)])
    start, size = 0x400, len(kernel) - 512
    assert kernel[start : start + 8] == IMAGE[:8]
    with pytest.raises(UnpackError) as refused:
        unpack(kernel[:size])
    error, end = refused.value, start + len(IMAGE)
    assert (error.field, error.offset, error.value, error.limit) == (
        "section .linux",
        start,
        end,
        size,
    )
    said = f"section .linux: bytes {start:#x}-{end - 1:#x} lie outside the file of {size:#x} bytes"
    assert said in str(error)


def test_of_sections_of_one_name_the_first_counts() -> None:
    sections = [(".linux", IMAGE), (".cmdline", b"first"), (".cmdline", b"second")]
    assert unpack(build.uki(sections)).cmdline == "first"


def test_other_profiles_of_a_unified_kernel_image_are_left_out() -> None:
    sections = [(".linux", IMAGE), (".profile", b"ID=main"), (".profile", b"ID=rescue")]
    assert unpack(build.uki([*sections, (".cmdline", b"rescue")])).cmdline is None


def test_unpack_fully_goes_on_to_a_loadable_kernel() -> None:
    zboot = build.zboot(payload("zstd-22", IMAGE), b"zstd22")
    kernel = build.xz(build.uki([(".cmdline", b"quiet"), (".linux", zboot)]))
    unpacked = unpack_fully(kernel)
    assert bytes(unpacked.data) == IMAGE
    assert (unpacked.format, unpacked.cmdline) == (Format.IMAGE, "quiet")
    assert [str(step) for step in unpacked.steps] == [
        "xz file",
        "unified kernel image, section .linux",
        "zboot payload, zstd",
    ]


@pytest.mark.parametrize("kernel", [VMLINUX, IMAGE, build.bzimage(payload("gzip", VMLINUX))])
def test_unpack_fully_leaves_a_loadable_kernel_as_it_is(kernel: bytes) -> None:
    unpacked = unpack_fully(kernel)
    assert (bytes(unpacked.data), unpacked.steps, unpacked.packing) == (kernel, (), "stored")


@pytest.mark.parametrize("kernel", [VMLINUX, build.bzimage(payload("gzip", VMLINUX))])
def test_a_kernel_that_was_not_packed_outlives_its_mapping(kernel: bytes, tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(kernel)
    assert bytes(unpack_fully(path).data) == kernel
    assert bytes(unpack_fully(str(path)).data) == kernel


def test_result_outlives_the_file_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "uki.efi"
    path.write_bytes(build.uki([(".linux", IMAGE)]))
    unpacked = unpack(path)
    path.unlink()
    assert bytes(unpacked.data) == IMAGE


# --- real encoders' habits -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["bzip2", "xz", "lz4-frame", "zstd"])
def test_parallel_compressors_write_several_streams(how: str) -> None:
    packed = compressed(how, IMAGE[:60_000]) + compressed(how, IMAGE[60_000:])
    unpacked = unpack(packed)
    assert (bytes(unpacked.data), unpacked.steps[0].packed_size) == (IMAGE, len(packed))


def test_skippable_zstd_frames_are_passed_over() -> None:
    skippable = struct.pack("<II", 0x184D2A5C, 5) + b"pzstd"
    packed = build.zstd(IMAGE[:60_000]) + skippable + build.zstd(IMAGE[60_000:]) + skippable
    assert bytes(unpack(packed).data) == IMAGE


@pytest.mark.parametrize("how", [h for h in build.COMPRESSORS if h != "gzip"])
def test_size_word_behind_a_compressed_image_of_an_older_build(how: str) -> None:
    assert bytes(unpack(payload(how, IMAGE)).data) == IMAGE


@every_packing
def test_much_output_from_little_input(how: str) -> None:
    content = build.image().ljust(5 * MIB, b"\0")
    assert bytes(unpack(build.bzimage(payload(how, content))).data) == content


@pytest.mark.parametrize("size", [8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 20 * MIB])
def test_lz4_legacy_has_a_chunk_for_every_8_mib(size: int) -> None:
    content = build.image().ljust(size, b"\0")
    assert bytes(unpack(build.bzimage(payload("lz4-legacy", content))).data) == content


@pytest.mark.parametrize("flags", [0, 0x001, 0x003, 0x100, 0x300, 0x103, 0x1001])
@pytest.mark.parametrize("version", [0x1040, 0x0940, 0x0930])
def test_lzop_headers_and_block_checksums(flags: int, version: int) -> None:
    content = IMAGE + zlib.compress(IMAGE) * 8  # the latter is stored in blocks of its own
    packed = build.lzo(content, flags=flags, version=version, name=b"Image", block=1 << 16)
    assert bytes(unpack(packed).data) == content


# --- what is refused -----------------------------------------------------------------------------


@every_packing
def test_a_stream_cut_anywhere_is_refused(how: str) -> None:
    packed = compressed(how, build.image(600))
    for length in range(1, len(packed)):
        error = refused(packed[:length])
        assert "\n" not in str(error)
        if identify(packed[:length]).format is Format.UNKNOWN:
            assert isinstance(error, Unpack.Unrecognised)
        else:
            assert isinstance(error, Unpack.Truncated), length


def test_truncation_tells_file_packing_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "Image.xz"
    packed = build.xz(IMAGE)
    path.write_bytes(packed[:5000])
    with pytest.raises(Unpack.Truncated) as caught:
        unpack(path)
    error = caught.value
    assert (error.code, error.file, error.field) == ("Unpack::Truncated", str(path), "xz")
    assert error.offset == 5000
    assert str(error) == (
        f"{path}: the xz stream at 0x0 breaks off at 0x1388; the file is incomplete: copy or "
        "download it again"
    )


@every_packing
def test_a_payload_cut_in_its_container_is_refused(how: str) -> None:
    kernel = build.bzimage(payload(how, VMLINUX))
    error = refused(kernel[: PAYLOAD_START + 1000])
    assert isinstance(error, Unpack.BadHeader)
    assert error.field == "payload_offset, payload_length"


@every_packing
def test_a_damaged_stream_is_refused_near_the_damage(how: str) -> None:
    packed = bytearray(payload(how, build.elf(300_000)))
    middle = len(packed) // 2
    packed[middle : middle + 64] = b"\xff" * 64
    error = refused(build.bzimage(bytes(packed)))
    assert isinstance(error, Unpack.Corrupt | Unpack.SizeMismatch | Unpack.Truncated)
    assert error.offset is not None
    assert error.offset >= PAYLOAD_START


@every_packing
@pytest.mark.parametrize("lie", [-1, +1])
def test_a_wrong_size_word_is_refused(how: str, lie: int) -> None:
    packed = bytearray(payload(how, VMLINUX))
    packed[-4:] = struct.pack("<I", len(VMLINUX) + lie)
    error = refused(build.bzimage(bytes(packed)))
    if how == "gzip":  # zlib looks at its own trailer too
        assert isinstance(error, Unpack.Corrupt | Unpack.SizeMismatch)
    else:
        assert isinstance(error, Unpack.SizeMismatch)
        assert error.offset == PAYLOAD_START + len(packed) - 4


@every_packing
def test_the_limit_is_a_bound_not_an_estimate(how: str) -> None:
    packed = compressed(how, IMAGE)
    assert len(unpack(packed, limit=len(IMAGE)).data) == len(IMAGE)
    error = refused(packed, limit=len(IMAGE) - 1)
    assert isinstance(error, Unpack.TooLarge)
    assert error.limit == len(IMAGE) - 1


@pytest.mark.parametrize("how", ["zstd", "lz4-frame"])
def test_a_frame_that_announces_too_much_is_not_begun(how: str) -> None:
    content = build.image().ljust(64 * MIB, b"\0")
    packed = build.lz4_frame(content) if how == "lz4-frame" else build.zstd(content)
    error = refused(packed[: len(packed) // 2], limit=MIB)
    assert isinstance(error, Unpack.TooLarge)
    assert error.value == 64 * MIB


@pytest.mark.parametrize("how", ["zstd", "lz4-frame"])
def test_a_frame_that_announces_more_than_the_size_word_is_not_begun(how: str) -> None:
    error = refused(build.bzimage(payload(how, VMLINUX, size=1000)))
    assert isinstance(error, Unpack.SizeMismatch)
    assert (error.value, error.limit) == (len(VMLINUX), 1000)
    assert f"has a frame at {PAYLOAD_START:#x} with {len(VMLINUX)} bytes" in str(error)


def with_zstd_window(log: int) -> bytes:
    frame = bytearray(build.zstd_kernel(IMAGE))
    frame[5] = (log - 10) << 3  # RFC 8878, 3.1.1.1.2: Window_Descriptor
    return bytes(frame)


def with_lzma_dictionary(size: int) -> bytes:
    stream = bytearray(build.lzma(IMAGE))
    stream[1:5] = struct.pack("<I", size)
    return bytes(stream)


def test_windows_up_to_128_mib_are_taken() -> None:
    assert bytes(unpack(with_zstd_window(27)).data) == IMAGE
    assert bytes(unpack(with_lzma_dictionary(128 * MIB)).data) == IMAGE
    assert bytes(unpack(with_xz_dictionary(30)).data) == IMAGE


def with_xz_dictionary(code: int) -> bytes:
    """An LZMA2 dictionary of (2 | code & 1) << (code // 2 + 11) bytes (xz-file-format, 5.3.1)."""
    stream = bytearray(build.xz(IMAGE))
    header_end = 12 + (stream[12] + 1) * 4
    assert stream[14:16] == b"\x21\x01"  # filter LZMA2 with one byte of properties
    stream[16] = code
    crc = zlib.crc32(stream[12 : header_end - 4])
    stream[header_end - 4 : header_end] = struct.pack("<I", crc)
    return bytes(stream)


@pytest.mark.parametrize(
    "packed",
    [
        with_zstd_window(28),
        with_zstd_window(41),
        with_lzma_dictionary(256 * MIB),
        with_xz_dictionary(32),
    ],
    ids=["zstd", "zstd-2-tib", "lzma", "xz"],
)
def test_larger_windows_are_refused(packed: bytes) -> None:
    error = refused(packed)
    assert isinstance(error, Unpack.WindowTooLarge)
    assert error.limit == 128 * MIB


@every_packing
@pytest.mark.parametrize("tail", [b"\0" * 512, b"junk", b"\xd0\x0d\xfe\xed" + bytes(100)])
def test_bytes_behind_a_stream_are_refused(how: str, tail: bytes) -> None:
    packed = compressed(how, IMAGE)
    error = refused(packed + tail)
    assert isinstance(error, Unpack.TrailingData)
    assert error.offset == len(packed)


def test_a_second_gzip_member_is_refused() -> None:
    error = refused(build.gzip(b"") + build.gzip(IMAGE))
    assert isinstance(error, Unpack.TrailingData)


@every_packing
def test_bytes_between_stream_and_size_word_of_a_payload_are_refused(how: str) -> None:
    packing, compress = build.COMPRESSORS[how]
    packed = build.with_size(compress(VMLINUX) + bytes(8), len(VMLINUX), packing)
    error = refused(build.bzimage(packed))
    assert isinstance(error, Unpack.TrailingData | Unpack.SizeMismatch)


@pytest.mark.parametrize("how", [h for h in build.COMPRESSORS if h != "gzip"])
def test_a_second_size_word_in_a_payload_is_refused(how: str) -> None:
    packing = build.COMPRESSORS[how][0]
    packed = build.with_size(payload(how, VMLINUX), len(VMLINUX), packing)
    assert isinstance(refused(build.bzimage(packed)), Unpack.TrailingData)


@pytest.mark.parametrize("kernel", [VMLINUX, IMAGE])
def test_a_kernel_that_is_not_packed_says_so(kernel: bytes) -> None:
    assert isinstance(refused(kernel), Unpack.NotPacked)


@pytest.mark.parametrize("function", [unpack, unpack_fully])
def test_a_file_of_no_known_format_is_refused(function: Callable[[bytes], object]) -> None:
    with pytest.raises(Unpack.Unrecognised, match="begins with 07 01 64 00"):
        function(b"\x07\x01\x64\0")


def test_a_compressed_file_with_no_kernel_inside_is_refused_when_unpacked_fully() -> None:
    packed = build.gzip(b"not a kernel at all")
    assert unpack(packed).format is Format.UNKNOWN
    with pytest.raises(Unpack.Unrecognised):
        unpack_fully(packed)


def test_packings_without_end_are_refused() -> None:
    kernel = IMAGE
    for _ in range(MAX_STEPS):
        kernel = build.gzip(kernel)
    assert len(unpack_fully(kernel).steps) == MAX_STEPS
    with pytest.raises(Unpack.TooDeep):
        unpack_fully(build.gzip(kernel))


def test_missing_file_and_directory_are_image_errors(tmp_path: Path) -> None:
    with pytest.raises(Image.Missing):
        unpack(tmp_path / "nothing")
    with pytest.raises(Image.IsDirectory):
        unpack(tmp_path)


@pytest.mark.parametrize(
    ("kernel", "error", "field"),
    [
        (build.bzimage(build.gzip(VMLINUX), version=0x0207), Unpack.Unsupported, "version"),
        (build.bzimage(b""), Unpack.Unsupported, "payload_length"),
        (build.bzimage(b"\x1f\x8b\x08\0"), Unpack.BadHeader, "payload_length"),
        (build.bzimage(b"what is this?"), Unpack.Unrecognised, "payload"),
        (
            build.bzimage(b"x", payload_length=0xFFFFFFFF),
            Unpack.BadHeader,
            "payload_offset, payload_length",
        ),
        (build.bzimage(b"x", setup_sects=255)[:5000], Unpack.BadHeader, None),
        (build.zboot(build.gzip(IMAGE), b"brotli"), Unpack.Unsupported, "compression type"),
        (build.zboot(build.gzip(IMAGE), b"zstd22"), Unpack.BadHeader, "compression type"),
        (build.zboot(b"", b"gzip", payload_size=0), Unpack.BadHeader, "compression type"),
        (
            build.zboot(b"x", b"gzip", payload_size=0xFFFFFFFF),
            Unpack.BadHeader,
            "payload offset and size",
        ),
        (build.zboot(payload("xz", IMAGE), b"xz")[:-513], Unpack.Truncated, "payload size"),
        (build.uki([(".linux", IMAGE)])[:-1000], Unpack.BadHeader, "section .linux"),
        (
            build.uki([(".linux", IMAGE), (".initrd", b"x")])[:-512],
            Unpack.BadHeader,
            "section .initrd",
        ),
    ],
)
def test_containers_that_do_not_keep_their_word(
    kernel: bytes, error: type[UnpackError], field: str | None
) -> None:
    with within(0.05):
        caught = refused(kernel)
    assert type(caught) is error
    assert field is None or caught.field == field


def test_uki_parts_of_another_file_are_refused() -> None:
    with pytest.raises(Unpack.BadHeader, match=r"no \.linux section"):
        uki_parts(IMAGE)


@pytest.mark.parametrize("flag", [0x40, 0x400, 0x800])
def test_lzop_files_with_filters_extra_fields_and_parts_are_refused(flag: int) -> None:
    assert isinstance(refused(build.lzo_header(0x0D | flag) + bytes(64)), Unpack.Unsupported)


@pytest.mark.parametrize("flags", [0x001, 0x100])
def test_a_wrong_lzop_checksum_is_refused(flags: int) -> None:
    packed = bytearray(build.lzo(zlib.compress(IMAGE), flags=flags))
    packed[-100] ^= 1  # inside the last, stored block: only the checksum can tell
    error = refused(bytes(packed))
    assert isinstance(error, Unpack.Corrupt)
    assert "checksum" in str(error)


@pytest.mark.parametrize(
    ("size", "packed_size"), [(1 << 20, 1 << 20), (1 << 20, 100), (100, 101), (100, 0)]
)
def test_lzop_blocks_that_no_encoder_makes_are_refused(size: int, packed_size: int) -> None:
    packed = build.lzo_header(0) + struct.pack(">II", size, packed_size) + bytes(packed_size)
    error = refused(packed)
    assert isinstance(error, Unpack.Corrupt)
    assert f"a block of {packed_size} for {size} bytes" in str(error)


def test_an_lzop_block_of_another_size_than_its_header_says_is_refused() -> None:
    packed = bytearray(build.lzo(bytes(1000), flags=0))
    at = len(build.lzo_header(0))
    packed[at : at + 4] = struct.pack(">I", 1001)
    error = refused(bytes(packed))
    assert isinstance(error, Unpack.Corrupt)
    assert "a block gives 1000 bytes, not 1001" in str(error)


def test_an_unknown_lzop_method_is_refused() -> None:
    error = refused(build.lzo(IMAGE, method=4))
    assert isinstance(error, Unpack.Corrupt)
    assert "unknown method 4" in str(error)


def test_an_lz4_chunk_beyond_what_an_int_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(struct.pack("<II", 0x184C2102, 0x9000_0000))
        file.truncate(3 << 30)
    with pytest.raises(Unpack.Corrupt, match="a chunk of 2415919104 bytes"), within(0.05):
        unpack(path)


# --- bombs ---------------------------------------------------------------------------------------

ZEROS = bytes(16 * MIB)


def gzip_bomb(declared: int) -> bytes:
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    part = deflate.compress(ZEROS) + deflate.flush(zlib.Z_FULL_FLUSH)
    return (
        b"\x1f\x8b\x08\0\0\0\0\0\0\0" + part * 64 + b"\x03\0\0\0\0\0" + struct.pack("<I", declared)
    )


def zstd_bomb() -> bytes:
    rle_block = (0b010 | (128 << 10) << 3).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + rle_block * 8192 + b"\x01\0\0"


BOMBS: dict[str, Callable[[], bytes]] = {
    "gzip": lambda: gzip_bomb(1 << 30),
    "bzip2": lambda: bz2.compress(ZEROS) * 64,
    "xz": lambda: build.xz(ZEROS) * 64,
    "lzma": lambda: build.lzma(bytes(40 * MIB)),
    "lzo": lambda: lzo_bomb(build.lzo_block(bytes(build.LZO_BLOCK), 1)),
    "lz4-legacy": lambda: b"\x02\x21\x4c\x18" + build.lz4_legacy_chunk(bytes(8 * MIB)) * 128,
    "lz4-frame": lambda: build.lz4_frame(ZEROS) * 64,
    "zstd": zstd_bomb,
}


def lzo_bomb(block: bytes) -> bytes:
    return build.lzo_header(1) + block * 4096 + bytes(4)


@functools.cache
def bomb(how: str) -> bytes:
    """A GiB of zeros (lzma: 40 MiB), well packed."""
    return BOMBS[how]()


@pytest.mark.parametrize("how", BOMBS)
def test_a_bomb_stops_at_the_limit(how: str) -> None:
    packed = bomb(how)
    with within(2):
        error = refused(packed, limit=32 * MIB)
    assert isinstance(error, Unpack.TooLarge)


@pytest.mark.parametrize("how", BOMBS)
def test_a_bomb_in_a_bzimage_stops_at_the_declared_size(how: str) -> None:
    kernel = build.bzimage(bomb(how) + struct.pack("<I", 3 * MIB))
    with within(1):
        error = refused(kernel)
    assert isinstance(error, Unpack.SizeMismatch)


@pytest.mark.parametrize(
    ("declared", "error"), [(2 << 30, Unpack.TooLarge), (3 * MIB, Unpack.SizeMismatch)]
)
def test_a_gzip_bomb_in_a_bzimage_is_held_to_its_own_size_field(
    declared: int, error: type[UnpackError]
) -> None:
    with within(0.2):
        assert type(refused(build.bzimage(gzip_bomb(declared)))) is error


def test_a_size_word_beyond_the_limit_is_refused_before_anything_is_decompressed() -> None:
    kernel = build.bzimage(payload("xz", VMLINUX, size=0xFFFFFFFF))
    with within(0.05):
        error = refused(kernel)
    assert isinstance(error, Unpack.TooLarge)
    assert "unpacks to 4294967295 bytes by the size at 0x" in str(error)


@pytest.mark.parametrize(
    "packed",
    [
        build.xz(b"") * 20_000,
        bz2.compress(b"") * 20_000,
        build.zstd(b"") * 20_000,
        b"\x28\xb5\x2f\xfd\x00\x58" + bytes(3 * 2_000_000),
        build.lzo_header(0) + (struct.pack(">II", 1, 1) + b"x") * 200_000,
        struct.pack("<II", 0x184D2A50, 0).join([build.zstd(b"")] * 20_000),
    ],
    ids=["xz", "bzip2", "zstd-frames", "zstd-blocks", "lzo-blocks", "zstd-skippable"],
)
def test_endless_empty_pieces_are_refused_in_bounded_time(packed: bytes) -> None:
    with within(2):
        assert isinstance(refused(packed), Unpack.Corrupt)


PEAK = """
import resource, sys
from pathlib import Path
from bootproof.loader.errors import LoaderError
from bootproof.loader.unpack import unpack_to
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
try:
    unpack_to(sys.argv[1], Path(sys.argv[2]), limit=64 << 20)
except LoaderError as error:
    print(error.code, end=" ")
print((peak() - before) >> 10)
"""


@pytest.mark.parametrize("how", ["zstd", "lz4-legacy", "xz", "lzo"])
def test_unpacking_into_a_file_needs_little_memory(how: str, tmp_path: Path) -> None:
    packed = tmp_path / "bomb"
    packed.write_bytes(bomb(how))
    command = [sys.executable, "-c", PEAK, str(packed), str(tmp_path / "out")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    code, mebibytes = run.stdout.split()
    assert code == "Unpack::TooLarge"
    assert int(mebibytes) < 40
    assert list(tmp_path.iterdir()) == [packed]


# --- into a file ---------------------------------------------------------------------------------


def test_unpack_to_writes_what_unpack_returns(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    kernel = build.bzimage(payload("zstd-22", VMLINUX))
    step = unpack(kernel).steps[0]
    written = unpack_to(kernel, path)
    assert (bytes(written.data), written.format, written.arch) == (VMLINUX, Format.ELF, "x86_64")
    assert written.steps == (step,)
    assert path.read_bytes() == VMLINUX
    assert list(tmp_path.iterdir()) == [path]


def test_unpack_to_writes_a_stored_kernel(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    written = unpack_to(build.uki([(".cmdline", b"quiet"), (".linux", IMAGE)]), path)
    assert (path.read_bytes(), written.cmdline, written.packing) == (IMAGE, "quiet", "stored")


def test_a_failure_leaves_an_existing_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(b"precious")
    broken = build.xz(IMAGE)[:1000]
    with pytest.raises(Unpack.Truncated):
        unpack_to(broken, path)
    assert (list(tmp_path.iterdir()), path.read_bytes()) == ([path], b"precious")


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "vmlinux"
    with pytest.raises(Unpack.WriteFailed, match="No such file or directory"):
        unpack_to(build.gzip(IMAGE), path)


def test_a_directory_in_the_place_of_the_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(Unpack.WriteFailed, match="Is a directory"):
        unpack_to(build.gzip(IMAGE), tmp_path / "out")
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


# --- nothing but LoaderError ---------------------------------------------------------------------

SMALL = build.image(900)
STREAMS = [compressed(how, SMALL) for how in build.COMPRESSORS]
CONTAINERS = [
    *(build.bzimage(payload(how, SMALL)) for how in build.COMPRESSORS),
    build.zboot(payload("zstd-22", SMALL), b"zstd22"),
    build.zboot(payload("gzip", SMALL), b"gzip", size_word=False),
    build.uki([(".cmdline", b"quiet"), (".initrd", b"0707"), (".linux", SMALL)]),
    build.gzip(build.uki([(".linux", build.zboot(payload("xz", SMALL), b"xz"))])),
]
interesting = st.sampled_from(
    [struct.pack("<I", n) for n in (0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFC)]
)
damages = st.lists(
    st.tuples(st.integers(0, 3500), st.one_of(st.binary(min_size=1, max_size=6), interesting)),
    min_size=1,
    max_size=5,
)


def damaged(sample: bytes, where: list[tuple[int, bytes]], cut: int) -> bytes:
    result = bytearray(sample)
    for offset, content in where:
        at = offset % len(result)
        result[at : at + len(content)] = content
    return bytes(result[: len(result) - cut])


def unpack_or_refuse(kernel: bytes) -> None:
    for function in (unpack, unpack_fully):
        try:
            function(kernel, limit=4 * MIB)
        except LoaderError as error:
            assert error.code.startswith(("Unpack::", "Image::")), error.code
            assert str(error).isprintable()


@settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(STREAMS), damages, st.integers(0, 40))
@example(STREAMS[0], [(0, b"\x1f\x8b\x08")], 0)
def test_damaged_streams_unpack_or_are_refused(
    sample: bytes, where: list[tuple[int, bytes]], cut: int
) -> None:
    unpack_or_refuse(damaged(sample, where, cut))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(CONTAINERS), damages, st.integers(0, 600))
def test_damaged_containers_unpack_or_are_refused(
    sample: bytes, where: list[tuple[int, bytes]], cut: int
) -> None:
    unpack_or_refuse(damaged(sample, where, cut))


@every_packing
def test_every_single_flipped_byte_unpacks_or_is_refused(how: str) -> None:
    packed = compressed(how, SMALL)
    for position, bit in itertools.product(range(len(packed)), (0x01, 0x80)):
        flipped = bytearray(packed)
        flipped[position] ^= bit
        unpack_or_refuse(bytes(flipped))
