"""What the Image loader and load_dtb answer, and how they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootproof.loader import (
    Finding,
    GuestMemory,
    KernelLoaderResult,
    LoaderError,
    Pe,
    PvhBootCapability,
    PvhState,
    Range,
    load_dtb,
)
from bootproof.loader.address import MIB
from tests.builders.images import ARM64, RISCV64, image

BASE = 0x4000_0000
RAM = 16 * MIB
SIZE = 0x2000
IGNORED = PvhBootCapability(PvhState.IGNORED)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory([(BASE, RAM)]) as memory:
        yield memory


def refusal(memory: GuestMemory, content: bytes, **options: int | None) -> LoaderError:
    """The error of a load that has to fail without touching memory."""
    with pytest.raises(LoaderError) as caught:
        Pe().load(memory, content, **options)
    assert list(memory.data_extents()) == []
    return caught.value


@pytest.mark.parametrize(
    ("magic", "machine", "protocol"),
    [(ARM64, "aarch64", "arm64"), (RISCV64, "riscv64", "riscv64")],
)
def test_image_is_loaded_to_its_base_plus_text_offset(
    memory: GuestMemory, magic: bytes, machine: str, protocol: str
) -> None:
    content = image(magic, text_offset=0x1_0000, image_size=SIZE)
    result = Pe().load(memory, content, kernel_offset=BASE + 2 * MIB)
    load = BASE + 2 * MIB + 0x1_0000
    assert result == KernelLoaderResult(
        kernel_load=load,
        kernel_end=load + SIZE,
        setup_header=None,
        pvh_boot_cap=IGNORED,
        footprint=Range(load, SIZE),
        entry_points={protocol: load},
        machine=machine,
    )
    assert memory.read(load, SIZE) == content


def test_base_is_zero_without_an_offset() -> None:
    with GuestMemory([(0, RAM)]) as memory:
        assert Pe().load(memory, image()).kernel_load == 0


def test_no_ram_at_zero_is_refused(memory: GuestMemory) -> None:
    error = refusal(memory, image())
    assert type(error) is Pe.ReadKernelImage
    assert str(error) == (
        "image: the Image needs guest RAM 0x0-0x1fff but RAM begins at 0x40000000; "
        "load the kernel at an address where the guest has RAM (--offset)"
    )


def test_arm64_image_size_zero_forces_text_offset(memory: GuestMemory) -> None:
    content = image(text_offset=0x1234, image_size=0)
    assert Pe().load(memory, content, kernel_offset=BASE).kernel_load == BASE + 0x8_0000


def test_riscv64_image_size_zero_does_not(memory: GuestMemory) -> None:
    content = image(RISCV64, text_offset=0x1234, image_size=0)
    assert Pe().load(memory, content, kernel_offset=BASE).kernel_load == BASE + 0x1234


def test_high_memory_is_ignored(memory: GuestMemory) -> None:
    result = Pe().load(memory, image(), kernel_offset=BASE, highmem_start=1 << 60)
    assert result.kernel_load == BASE


def test_footprint_is_image_size_or_the_file(memory: GuestMemory) -> None:
    larger = Pe().load(memory, image(image_size=0x5000), kernel_offset=BASE)
    assert (larger.kernel_end, larger.footprint) == (BASE + SIZE, Range(BASE, 0x5000))
    assert larger.findings == (
        Finding(
            "bss-beyond-image",
            "the kernel needs 12 KiB of RAM behind its file, up to 0x40004fff",
        ),
    )
    smaller = Pe().load(memory, image(image_size=0x1000), kernel_offset=BASE)
    assert smaller.footprint == Range(BASE, SIZE)
    assert [finding.code for finding in smaller.findings] == ["image-size-smaller-than-file"]


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"flags": 0b0010}, []),
        ({"flags": 0b0100}, ["page-size-16k"]),
        ({"flags": 0b0110}, ["page-size-64k"]),
        ({"flags": 0b0011}, ["big-endian"]),
        ({"magic": RISCV64, "flags": 0b0110}, []),
        ({"image_size": 0}, ["image-size-unknown"]),
        ({"image_size": 1 << 62}, ["bss-beyond-image", "footprint-beyond-ram"]),
    ],
)
def test_findings(memory: GuestMemory, changes: dict[str, Any], codes: list[str]) -> None:
    content = image(**({"image_size": SIZE} | changes))
    result = Pe().load(memory, content, kernel_offset=BASE)
    assert [finding.code for finding in result.findings] == codes


def test_image_may_be_a_path(memory: GuestMemory, tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(image())
    expected = Pe().load(memory, image(), kernel_offset=BASE)
    assert Pe().load(memory, path, kernel_offset=BASE) == expected


def test_loader_can_be_for_one_architecture(memory: GuestMemory) -> None:
    assert Pe("riscv64").load(memory, image(RISCV64), kernel_offset=BASE).machine == "riscv64"
    with pytest.raises(Pe.InvalidImageMagicNumber, match="is that of aarch64, not of riscv64"):
        Pe("riscv64").load(memory, image(), kernel_offset=BASE)
    with pytest.raises(ValueError, match="not for x86_64"):
        Pe("x86_64")


# --- refusals ------------------------------------------------------------------------------------

TOP = (1 << 64) - 2 * MIB
LIES: list[tuple[bytes, int, type[LoaderError]]] = [
    (image(b"ELF\0")[:63], 1, Pe.ReadImageHeader),
    (image(b"ARM\x65"), 1, Pe.InvalidImageMagicNumber),
    (image(text_offset=1 << 63), TOP + 1, Pe.InvalidBaseAddrAlignment),
    (image(text_offset=2 * MIB), TOP, Pe.InvalidImage),
    (image(), BASE + RAM, Pe.ReadKernelImage),
]


@pytest.mark.parametrize(("content", "offset", "kind"), LIES, ids=[x[2].code for x in LIES])
def test_lies_are_reported_in_linux_loaders_order(
    memory: GuestMemory, content: bytes, offset: int, kind: type[LoaderError]
) -> None:
    assert type(refusal(memory, content, kernel_offset=offset)) is kind


@pytest.mark.parametrize("size", [0, 1, 63])
def test_file_shorter_than_its_header_is_refused(memory: GuestMemory, size: int) -> None:
    assert type(refusal(memory, image()[:size])) is Pe.ReadImageHeader


def test_text_offset_may_point_anywhere_in_ram(memory: GuestMemory) -> None:
    content = image(text_offset=BASE + 0x1001)
    assert Pe().load(memory, content).kernel_load == BASE + 0x1001


def test_unaligned_base_is_refused_with_the_next_lower(memory: GuestMemory) -> None:
    assert str(refusal(memory, image(), kernel_offset=BASE + MIB)) == (
        "image: the base 0x40100000 is not a multiple of 2 MiB; use 0x40000000 or a multiple of 2M"
    )


def test_negative_base_is_refused(memory: GuestMemory) -> None:
    assert type(refusal(memory, image(), kernel_offset=-2 * MIB)) is Pe.InvalidImage


# --- device trees --------------------------------------------------------------------------------


def test_device_tree_is_copied_unseen(memory: GuestMemory, tmp_path: Path) -> None:
    path = tmp_path / "virt.dtb"
    path.write_bytes(b"no device tree")
    load_dtb(memory, BASE + 3, path)
    load_dtb(memory, BASE + 0x1000, b"another")
    assert memory.read(BASE, 17) == b"\0\0\0no device tree"
    assert memory.read(BASE + 0x1000, 7) == b"another"


def test_device_tree_of_2_mib_is_the_largest(memory: GuestMemory) -> None:
    load_dtb(memory, BASE, bytes(2 * MIB))
    with pytest.raises(Pe.DtbTooBig) as caught:
        load_dtb(memory, 0, bytes(2 * MIB + 1))
    assert (caught.value.value, caught.value.limit) == (2 * MIB + 1, 2 * MIB)


@pytest.mark.parametrize("address", [0, BASE - 1, BASE + RAM - 3, BASE + RAM, 1 << 64, -1])
def test_device_tree_outside_ram_is_refused(memory: GuestMemory, address: int) -> None:
    with pytest.raises(Pe.ReadDtbImage):
        load_dtb(memory, address, b"tree")
    assert list(memory.data_extents()) == []


def test_empty_device_tree_fits_anywhere(memory: GuestMemory) -> None:
    load_dtb(memory, 1 << 60, b"")
    assert list(memory.data_extents()) == []
