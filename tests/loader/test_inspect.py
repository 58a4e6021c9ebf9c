"""What `inspect` says about kernels of every kind, and how little it takes."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootproof.loader.banner import banner_release
from bootproof.loader.errors import Image, LoaderError
from bootproof.loader.inspect import (
    BzImagePayload,
    Change,
    Inspection,
    Layer,
    Placement,
    Pvh,
    Refusal,
    inspect,
)
from bootproof.loader.packing import Packing, Unpack
from bootproof.loader.result import Finding
from tests.builders import images, packings

BANNER = b"Linux version 6.12.9-test (build@host) #1\n"
TEXT = b"Linux version %s (%s)\0".ljust(0x1000, b"\xcc") + BANNER.ljust(0x1000, b"\0")
VMLINUX = images.elf(
    images.load(0x100_0000, TEXT, memsz=0x3000),
    images.bss(0x120_0000, 0x1000),
    images.notes(
        images.pvh_entry(0x100_0040), images.pvh_reloc(0x20_0000, 0x100_0000, 0x3FFF_FFFF)
    ),
    entry=0x100_0000,
)
RELOCATABLE = Pvh("present", 0x100_0040, 0x20_0000, 0x100_0000, 0x3FFF_FFFF)


def bzimage(vmlinux: bytes = VMLINUX, how: str = "zstd-22") -> bytes:
    packing, compress = packings.COMPRESSORS[how]
    packed = packings.with_size(compress(vmlinux), len(vmlinux), packing)
    return packings.bzimage(packed, xloadflags=0x61, init_size=0x30_0000)


def test_vmlinux() -> None:
    inspection = inspect(VMLINUX)
    assert [finding.code for finding in inspection.findings] == ["bss-beyond-image"] * 2
    assert inspection == Inspection(
        file="image",
        size=len(VMLINUX),
        format="elf",
        arch="x86_64",
        release="6.12.9-test",
        layers=(),
        kernel="elf",
        kernel_size=len(VMLINUX),
        payload=None,
        placed=Placement(
            offset=None,
            load=0x100_0000,
            end=0x100_3000,
            footprint_start=0x100_0000,
            footprint_end=0x120_1000,
            entry_points={"linux64": 0x100_0000, "pvh": 0x100_0040},
            pvh=RELOCATABLE,
        ),
        refused=None,
        moved=None,
        moved_refused=None,
        changes=(),
        header={"e_type": 2, "e_machine": 62, "e_entry": 0x100_0000, "e_phnum": 3},
        findings=inspection.findings,
        initrd_size=None,
        cmdline=None,
        unprovable=inspection.unprovable,
    )
    assert "it lacks an initramfs" in str(inspection.unprovable)


def test_offset_shows_what_would_change() -> None:
    inspection = inspect(VMLINUX, offset=0x100_0000)
    assert inspection.moved is not None
    assert (inspection.moved.offset, inspection.moved.load) == (0x100_0000, 0x200_0000)
    assert inspection.changes == (
        Change("kernel_load", "0x1000000", "0x2000000"),
        Change("kernel_end", "0x1003000", "0x2003000"),
        Change("footprint", "0x1000000-0x1200fff", "0x2000000-0x2200fff"),
        Change("PVH", "present", "ignored"),
        Change("linux64 entry", "0x1000000", "0x2000000"),
        Change("pvh entry", "0x1000040", "none"),
    )


def test_offset_zero_changes_pvh_only() -> None:
    changes = inspect(VMLINUX, offset=0).changes
    assert [change.what for change in changes] == ["PVH", "pvh entry"]


def test_offset_that_the_loader_refuses() -> None:
    inspection = inspect(packings.image(), offset=0x1000)
    assert inspection.moved is None
    assert inspection.moved_refused is not None
    assert inspection.moved_refused.code == "Pe::InvalidBaseAddrAlignment"
    assert inspection.changes == ()


@pytest.mark.parametrize("how", packings.COMPRESSORS)
def test_bzimage_and_the_vmlinux_in_it(how: str) -> None:
    kernel = bzimage(how=how)
    packing, compress = packings.COMPRESSORS[how]
    inspection = inspect(kernel)
    assert (inspection.kernel, inspection.arch, inspection.release) == (
        "bzimage",
        "x86_64",
        "6.1.0-test",
    )
    assert inspection.payload == BzImagePayload(
        packing, 5 * 512 + 0x40, len(compress(VMLINUX)), len(VMLINUX), RELOCATABLE
    )
    assert inspection.placed is not None
    assert inspection.placed.entry_points == {"linux32": 0x10_0000, "linux64": 0x10_0200}


def test_setup_header_is_named() -> None:
    header = inspect(bzimage()).header
    assert header["protocol"] == "2.15"
    assert header["loadflags"] == ("LOADED_HIGH",)
    assert header["xloadflags"] == ("XLF_KERNEL_64", "XLF_5LEVEL", "XLF_5LEVEL_ENABLED")
    assert (header["init_size"], header["cmdline_size"]) == (0x30_0000, 2047)


def test_setup_header_fields_of_later_protocols_are_left_out() -> None:
    header = inspect(images.bzimage(version=0x204)).header
    assert list(header) == ["protocol", "loadflags", "code32_start", "initrd_addr_max"]


def test_a_payload_is_unpacked_only_up_to_its_notes() -> None:
    notes_first = images.elf(
        images.notes(images.pvh_entry(0x100_0040)),
        images.load(0x100_0000, packings.kernel_bytes(16 << 20)),
        entry=0x100_0000,
    )
    packed = packings.lz4_frame(notes_first)
    broken = packed[: len(packed) // 2] + bytes(len(packed) - len(packed) // 2)
    kernel = packings.bzimage(broken + struct.pack("<I", len(notes_first)))
    payload = inspect(kernel).payload
    assert payload is not None
    assert payload.pvh == Pvh("present", 0x100_0040)


def test_notes_deep_in_a_payload_are_found() -> None:
    vmlinux = images.elf(
        images.load(0x100_0000, packings.kernel_bytes(3 << 20), align=0x40_0000),
        images.notes(images.pvh_entry(0x100_0040), images.pvh_reloc()),
        entry=0x100_0000,
    )
    payload = inspect(bzimage(vmlinux)).payload
    assert payload is not None
    assert payload.pvh == Pvh("present", 0x100_0040, 0x40_0000, 0, 0xFFFF_FFFF)


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (packings.bzimage(b"not packed at all"), "no packing that the kernel build uses"),
        (bzimage(b"\x7fELF"), "holds no vmlinux"),
        (bzimage(packings.image()), "holds no vmlinux"),
        (bzimage()[:-200], "lie outside the file"),
        (images.bzimage(version=0x207), "boot protocol 2.07 does not say"),
    ],
)
def test_an_unreadable_payload_is_a_finding(kernel: bytes, words: str) -> None:
    inspection = inspect(kernel)
    assert inspection.payload is None or inspection.payload.pvh is None
    (finding,) = [f for f in inspection.findings if f.code == "payload-unreadable"]
    assert finding.sentence.startswith("image: ")
    assert words in finding.sentence
    assert inspection.placed is not None


def test_image_and_its_flags() -> None:
    kernel = images.image(text_offset=0, image_size=0x3000, flags=0b1100)
    inspection = inspect(kernel, offset=0x20_0000)
    assert (inspection.kernel, inspection.arch) == ("image", "aarch64")
    assert inspection.header == {
        "text_offset": 0,
        "image_size": 0x3000,
        "flags": ("little-endian", "16K pages", "placed anywhere"),
    }
    assert inspection.moved is not None
    assert inspection.moved.entry_points == {"arm64": 0x20_0000}
    assert "page-size-16k" in [finding.code for finding in inspection.findings]


def test_packings_are_looked_through() -> None:
    image = packings.image(0x4000) + BANNER
    zboot = packings.zboot(
        packings.with_size(packings.xz(image), len(image), Packing.XZ), b"xzkern"
    )
    uki = packings.uki([(".cmdline", b"quiet"), (".initrd", b"07" * 50), (".linux", zboot)])
    inspection = inspect(packings.gzip(uki))
    assert (inspection.format, inspection.kernel) == ("gzip", "image")
    assert (inspection.size, inspection.kernel_size) == (len(packings.gzip(uki)), len(image))
    assert (inspection.release, inspection.arch) == ("6.12.9-test", "aarch64")
    assert (inspection.cmdline, inspection.initrd_size) == ("quiet", 100)
    assert [(layer.container, layer.packing) for layer in inspection.layers] == [
        ("gzip", "gzip"),
        ("uki", "stored"),
        ("zboot", "xz"),
    ]
    assert inspection.layers[2] == Layer("zboot", "xz", 0x200, len(packings.xz(image)), len(image))


def test_uname_section_of_a_unified_kernel_image_is_its_release() -> None:
    uki = packings.uki([(".uname", b"6.6.6"), (".linux", packings.image())])
    assert inspect(uki).release == "6.6.6"


def test_a_kernel_that_its_loader_refuses_is_described_with_the_refusal() -> None:
    xen = bytearray(packings.elf(machine=3))
    struct.pack_into("<H", xen, 42, 32)  # e_phentsize of ELF32
    inspection = inspect(bytes(xen))
    assert (inspection.arch, inspection.placed) == ("i386", None)
    assert inspection.refused == Refusal(
        "Elf::InvalidProgramHeaderSize", inspection.refused.sentence if inspection.refused else ""
    )
    assert "64-bit program headers" in inspection.refused.sentence


@pytest.mark.parametrize("cut", [19, 63])
def test_a_vmlinux_cut_in_its_header_is_described(cut: int) -> None:
    inspection = inspect(VMLINUX[:cut])
    assert inspection.refused is not None
    assert inspection.refused.code == "Elf::ReadElfHeader"
    assert inspection.header == {}


def test_what_is_no_kernel_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unpack.Unrecognised):
        inspect(b"#!/bin/sh\n")
    with pytest.raises(Image.Missing):
        inspect(tmp_path / "nothing")


@pytest.mark.parametrize(
    "kernel",
    [VMLINUX, bzimage(), packings.image(), packings.uki([(".linux", packings.image())])],
)
def test_an_inspection_is_json(kernel: bytes) -> None:
    found = asdict(inspect(kernel, offset=0x20_0000))
    assert json.loads(json.dumps(found))["arch"] == found["arch"]


@pytest.mark.parametrize(
    ("text", "release"),
    [
        (BANNER, "6.12.9-test"),
        (b"Linux version %s (%s)\n" + BANNER, "6.12.9-test"),
        (bytes((1 << 20) - 5) + BANNER, "6.12.9-test"),
        (b"Linux version 6.1\n", "6.1"),
        (b"Linux version \x1b[31m6", None),
        (b"Linux version", None),
        (b"Linux version 5" + b"x" * 500, "5" + "x" * 127),
        (b"Linux version x" * 2000 + BANNER, None),
    ],
)
def test_release_in_the_banner(text: bytes, release: str | None) -> None:
    assert banner_release(memoryview(text)) == release


def test_60_mib_vmlinux_is_inspected_in_under_300_ms(tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    text = images.load(0x100_0000, bytes(60 << 20) + BANNER)
    path.write_bytes(images.elf(text, images.notes(images.pvh_entry(0x100_0040))))
    start = time.process_time()
    inspection = inspect(path, offset=0)
    assert time.process_time() - start < 0.3
    assert inspection.release == "6.12.9-test"
    assert (inspection.refused, inspection.moved_refused) == (None, None)


def test_segments_that_copy_the_file_over_and_over_cost_nothing() -> None:
    start = time.process_time()
    segment = images.load(0, b"", offset=0, filesz=60_000, memsz=60_000)
    kernel = images.elf(*([segment] * 2000))
    inspection = inspect(kernel)
    assert inspection.placed is not None
    assert time.process_time() - start < 0.5


KERNELS = [VMLINUX, bzimage(), packings.image(), packings.gzip(packings.image())]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(KERNELS),
    st.lists(
        st.tuples(st.integers(0, 0x300), st.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([None, 0, 0x20_0000, 1 << 63]),
)
def test_damaged_kernels_are_described_or_refused(
    kernel: bytes, damages: list[tuple[int, bytes]], offset: int | None
) -> None:
    damaged = bytearray(kernel)
    for at, content in damages:
        damaged[at : at + len(content)] = content
    try:
        found = inspect(bytes(damaged), offset=offset, limit=4 << 20)
    except LoaderError:
        return
    json.dumps(asdict(found))
    assert all(isinstance(finding, Finding) for finding in found.findings)
