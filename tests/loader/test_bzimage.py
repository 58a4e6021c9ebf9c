"""What the bzImage loader answers, and how it refuses. The order of checks is linux-loader's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.loader import (
    BzImage,
    Bzimage,
    Finding,
    GuestMemory,
    InvalidKernelStartAddress,
    KernelLoaderResult,
    LoaderError,
    PvhBootCapability,
    PvhState,
    Range,
    SetupHeader,
)
from bootproof.loader.address import MIB
from tests.builders.images import SETUP_FIELDS, SETUP_HEADER_END, SETUP_HEADER_START, bzimage

RAM = 64 * MIB
KERNEL = bytes(range(256)) * 8
IGNORED = PvhBootCapability(PvhState.IGNORED)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory([(0, RAM)]) as memory:
        yield memory


def refusal(memory: GuestMemory, image: bytes, **options: int) -> LoaderError:
    """The error of a load that has to fail without touching memory."""
    with pytest.raises(LoaderError) as caught:
        BzImage().load(memory, image, **options)
    assert list(memory.data_extents()) == []
    return caught.value


def header_of(image: bytes) -> SetupHeader:
    return SetupHeader.from_bytes(image[SETUP_HEADER_START:SETUP_HEADER_END])


def test_kernel_is_loaded_to_code32_start(memory: GuestMemory) -> None:
    image = bzimage(KERNEL)
    result = BzImage().load(memory, image)
    assert result == KernelLoaderResult(
        kernel_load=MIB,
        kernel_end=MIB + len(KERNEL),
        setup_header=header_of(image),
        pvh_boot_cap=IGNORED,
        footprint=Range.between(MIB, 16 * MIB + 0x8000),
        entry_points={"linux32": MIB, "linux64": MIB + 0x200},
        machine="x86_64",
    )
    assert memory.read(MIB, len(KERNEL)) == KERNEL
    assert result.setup_header is not None
    assert result.setup_header.raw == image[SETUP_HEADER_START:SETUP_HEADER_END]


def test_kernel_offset_is_the_load_address(memory: GuestMemory) -> None:
    image = bzimage(KERNEL)
    result = BzImage().load(memory, image, kernel_offset=0x123_4000)
    assert result.kernel_load == 0x123_4000
    assert result.kernel_end == 0x123_4000 + len(KERNEL)
    assert result.setup_header == replace(header_of(image), code32_start=0x123_4000)
    assert result.entry_points == {"linux32": 0x123_4000, "linux64": 0x123_4200}
    assert memory.read(0x123_4000, len(KERNEL)) == KERNEL


def test_offset_zero_is_an_address(memory: GuestMemory) -> None:
    result = BzImage().load(memory, bzimage(KERNEL), kernel_offset=0)
    assert (result.kernel_load, memory.read(0, 4)) == (0, KERNEL[:4])


def test_code32_start_of_the_result_is_cut_to_32_bits() -> None:
    with GuestMemory([(1 << 33, MIB)]) as memory:
        result = BzImage().load(memory, bzimage(KERNEL), kernel_offset=(1 << 33) + 0x1000)
    assert result.kernel_load == (1 << 33) + 0x1000
    assert result.setup_header is not None
    assert result.setup_header.code32_start == 0x1000


def test_fields_lie_where_the_boot_protocol_has_them() -> None:
    values = {name: 0x81 + i for i, name in enumerate(SETUP_FIELDS)}
    header = header_of(bzimage(sectors=5, **values))
    assert {name: getattr(header, name) for name in values} == values


def test_setup_header_survives_a_round_trip() -> None:
    raw = bytes(range(100, 223))
    assert SetupHeader.from_bytes(raw).to_bytes() == raw


@pytest.mark.parametrize(("setup_sects", "sectors"), [(0, 5), (4, 5), (1, 2), (255, 256)])
def test_kernel_begins_behind_its_setup_sectors(
    memory: GuestMemory, setup_sects: int, sectors: int
) -> None:
    image = bzimage(KERNEL, sectors=sectors, setup_sects=setup_sects)
    result = BzImage().load(memory, image)
    assert result.kernel_end - result.kernel_load == len(KERNEL)
    assert memory.read(MIB, len(KERNEL)) == KERNEL


def test_image_without_a_kernel_loads_nothing(memory: GuestMemory) -> None:
    result = BzImage().load(memory, bzimage(b""), kernel_offset=RAM)
    assert (result.kernel_load, result.kernel_end) == (RAM, RAM)
    assert list(memory.data_extents()) == []


def test_image_may_be_a_path(memory: GuestMemory, tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(KERNEL))
    assert BzImage().load(memory, path) == BzImage().load(memory, path.read_bytes())


@pytest.mark.parametrize(
    ("load", "fields", "footprint"),
    [
        # head_64.S: the load address, aligned, but never below pref_address.
        (2 * MIB, {}, Range.between(2 * MIB, 16 * MIB + 0x8000)),
        (16 * MIB, {}, Range(16 * MIB, 0x8000)),
        (17 * MIB, {}, Range.between(17 * MIB, 18 * MIB + 0x8000)),
        (32 * MIB, {"init_size": 0x100}, Range(32 * MIB, len(KERNEL))),
        (32 * MIB, {"relocatable_kernel": 0}, Range.between(16 * MIB, 32 * MIB + len(KERNEL))),
        (17 * MIB, {"kernel_alignment": 0}, Range(17 * MIB, 0x8000)),
        (17 * MIB, {"version": 0x209}, Range(17 * MIB, len(KERNEL))),
    ],
)
def test_footprint_is_where_the_kernel_decompresses(
    memory: GuestMemory, load: int, fields: dict[str, int], footprint: Range
) -> None:
    result = BzImage().load(memory, bzimage(KERNEL, **fields), kernel_offset=load)
    assert result.footprint == footprint


@pytest.mark.parametrize(
    ("fields", "machine", "points"),
    [
        ({"xloadflags": 0}, "i386", {"linux32": MIB}),
        ({"version": 0x20B}, None, {"linux32": MIB}),
    ],
)
def test_64_bit_entry_needs_its_flag(
    memory: GuestMemory, fields: dict[str, int], machine: str | None, points: dict[str, int]
) -> None:
    result = BzImage().load(memory, bzimage(KERNEL, **fields))
    assert (result.machine, result.entry_points) == (machine, points)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"version": 0x209}, "init-size-unknown"),
        ({"init_size": 0}, "init-size-unknown"),
        ({"init_size": RAM}, "footprint-beyond-ram"),
        ({"relocatable_kernel": 0}, "not-relocatable"),
        ({"kernel_alignment": 0x30_0000}, "odd-kernel-alignment"),
        ({"kernel_alignment": 0}, "odd-kernel-alignment"),
        ({"loadflags": 3}, "kaslr-flag"),
        ({"xloadflags": 0x61}, "five-level-paging"),
    ],
)
def test_findings(memory: GuestMemory, fields: dict[str, int], code: str) -> None:
    result = BzImage().load(memory, bzimage(KERNEL, **fields))
    assert [finding.code for finding in result.findings] == [code]


def test_finding_is_a_sentence(memory: GuestMemory) -> None:
    result = BzImage().load(memory, bzimage(KERNEL, xloadflags=0x21))
    assert result.findings == (
        Finding("five-level-paging", "the kernel knows 5-level paging; it is off by default"),
    )


# --- refusals ------------------------------------------------------------------------------------

LIES: list[tuple[dict[str, int], type[LoaderError]]] = [
    ({"header": 0x53726447}, Bzimage.InvalidBzImage),
    ({"version": 0x1FF}, Bzimage.InvalidBzImage),
    ({"loadflags": 0xFE}, Bzimage.InvalidBzImage),
    ({"setup_sects": 200}, Bzimage.Underflow),
    ({"code32_start": 0xFFFFF}, InvalidKernelStartAddress),
    ({}, Bzimage.ReadBzImageCompressedKernel),
]


@pytest.mark.parametrize("first", range(len(LIES)))
def test_first_lie_is_the_one_reported(memory: GuestMemory, first: int) -> None:
    lies: dict[str, int] = {}
    for changes, _ in LIES[first:]:
        lies |= changes
    image = bzimage(KERNEL, **lies)
    error = refusal(memory, image, kernel_offset=RAM - 1, highmem_start=MIB)
    assert type(error) is LIES[first][1]
    if LIES[first][0]:
        assert error.field == next(iter(LIES[first][0]))


def test_high_memory_is_compared_with_the_original_start(memory: GuestMemory) -> None:
    image = bzimage(KERNEL, code32_start=0x1000)
    error = refusal(memory, image, kernel_offset=16 * MIB, highmem_start=MIB)
    assert type(error) is InvalidKernelStartAddress
    BzImage().load(memory, bzimage(KERNEL), kernel_offset=0x1000, highmem_start=MIB)


@pytest.mark.parametrize("size", [0, 1, 0x1F1, 0x202, 0x205, 0x211])
def test_header_cut_by_the_end_of_the_file_reads_as_zeros(memory: GuestMemory, size: int) -> None:
    assert type(refusal(memory, bzimage(KERNEL)[:size])) is Bzimage.InvalidBzImage


@pytest.mark.parametrize("size", [0x212, 0x26C, 2559])
def test_file_that_ends_in_its_setup_code_is_refused(memory: GuestMemory, size: int) -> None:
    assert type(refusal(memory, bzimage(KERNEL)[:size])) is Bzimage.Underflow


@pytest.mark.parametrize("offset", [RAM - 1, RAM, 1 << 63, (1 << 64) - 1, 1 << 64, -1])
def test_kernel_outside_ram_is_refused(memory: GuestMemory, offset: int) -> None:
    error = refusal(memory, bzimage(KERNEL), kernel_offset=offset)
    assert type(error) is Bzimage.ReadBzImageCompressedKernel


def test_message_names_field_value_and_remedy(memory: GuestMemory) -> None:
    assert str(refusal(memory, bzimage(KERNEL, header=0))) == (
        "image: header has to be the magic 'HdrS', not 0x0; "
        "give a bzImage (arch/x86/boot/bzImage, or vmlinuz of a distribution)"
    )
    assert str(refusal(memory, bzimage(KERNEL, code32_start=RAM))) == (
        "image: the kernel needs guest RAM 0x4000000-0x40007ff but RAM ends at 0x3ffffff; "
        "give the guest at least 65 MiB (--memory)"
    )
