"""What the ELF loader answers, and how it refuses. The order of checks is linux-loader's."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootproof.loader import (
    Elf,
    Finding,
    GuestMemory,
    Image,
    KernelLoaderResult,
    LoaderError,
    MemoryOverflow,
    PvhBootCapability,
    PvhRelocation,
    PvhState,
    Range,
)
from bootproof.loader.address import MIB
from tests.builders.images import (
    BUILD_ID,
    PT_NULL,
    Segment,
    bss,
    elf,
    load,
    note,
    notes,
    pvh_entry,
    pvh_reloc,
)

RAM = 64 * MIB
START = 16 * MIB
CODE = bytes(range(256)) * 16
NOT_PRESENT = PvhBootCapability(PvhState.NOT_PRESENT)
IGNORED = PvhBootCapability(PvhState.IGNORED)


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    with GuestMemory([(0, RAM)]) as memory:
        yield memory


def refusal(memory: GuestMemory, image: bytes, **options: int) -> LoaderError:
    """The error of a load that has to fail without touching memory."""
    before = list(memory.data_extents())
    with pytest.raises(LoaderError) as caught:
        Elf().load(memory, image, **options)
    assert list(memory.data_extents()) == before
    return caught.value


def present(entry: int, relocation: PvhRelocation | None = None) -> PvhBootCapability:
    return PvhBootCapability(PvhState.PRESENT, entry, relocation)


# --- loading -------------------------------------------------------------------------------------


def test_kernel_is_loaded_to_its_physical_addresses(memory: GuestMemory) -> None:
    image = elf(load(START, CODE), load(START + 0x2000, b"data", memsz=0x100))
    result = Elf().load(memory, image)
    assert result == KernelLoaderResult(
        kernel_load=START,
        kernel_end=START + 0x2100,
        setup_header=None,
        pvh_boot_cap=NOT_PRESENT,
        footprint=Range(START, 0x2100),
        entry_points={"linux64": START},
        findings=(
            Finding(
                "bss-beyond-image",
                "PT_LOAD[1] needs 252 bytes of RAM behind its bytes in the file, up to 0x10020ff",
            ),
        ),
        machine="x86_64",
    )
    assert memory.read(START, len(CODE)) == CODE
    assert memory.read(START + 0x2000, 8) == b"data\0\0\0\0"


def test_kernel_offset_moves_everything(memory: GuestMemory) -> None:
    result = Elf().load(memory, elf(load(START, CODE)), kernel_offset=4 * MIB)
    assert result == KernelLoaderResult(
        kernel_load=START + 4 * MIB,
        kernel_end=START + 4 * MIB + len(CODE),
        setup_header=None,
        pvh_boot_cap=IGNORED,
        footprint=Range(START + 4 * MIB, len(CODE)),
        entry_points={"linux64": START + 4 * MIB},
        machine="x86_64",
        moved_by=4 * MIB,
    )
    assert memory.read(START + 4 * MIB, len(CODE)) == CODE
    assert memory.read(START, len(CODE)) == bytes(len(CODE))


def test_unaligned_offset_is_accepted(memory: GuestMemory) -> None:
    result = Elf().load(memory, elf(load(START, CODE)), kernel_offset=0x1234)
    assert result.kernel_load == START + 0x1234


def test_kernel_load_is_the_entry_not_the_first_segment(memory: GuestMemory) -> None:
    image = elf(load(START, CODE), load(START + 8 * MIB, CODE), entry=START + 8 * MIB + 0x10)
    result = Elf().load(memory, image)
    assert result.kernel_load == START + 8 * MIB + 0x10
    assert result.findings == (
        Finding(
            "entry-far-from-start",
            "the entry address 0x1800010 is 8.0 MiB above the first segment at 0x1000000: "
            "kernel_load does not say where the kernel begins",
        ),
    )


def test_footprint_covers_segments_without_bytes_in_the_file(memory: GuestMemory) -> None:
    image = elf(load(START, CODE), bss(START - 0x1000, 0x800), bss(START + 0x8000, 0x1000))
    result = Elf().load(memory, image)
    assert result.kernel_end == START + len(CODE)
    assert result.footprint == Range.between(START - 0x1000, START + 0x9000)


def test_kernel_end_is_the_highest_end(memory: GuestMemory) -> None:
    image = elf(load(START + 0x8000, b"high"), load(START, CODE))
    assert Elf().load(memory, image).kernel_end == START + 0x8004


def test_later_segment_overwrites_an_earlier_one(memory: GuestMemory) -> None:
    image = elf(load(START, b"a" * 64), load(START + 16, b"b" * 16), load(START + 24, b"c" * 64))
    result = Elf().load(memory, image)
    assert memory.read(START, 88) == b"a" * 16 + b"b" * 8 + b"c" * 64
    assert [finding.code for finding in result.findings] == ["overlapping-segments"]


def test_overlapping_segments_larger_than_the_file_are_written_once(memory: GuestMemory) -> None:
    whole = b"x" * 300
    shared = [Segment(paddr=START + 100 * i, offset=64, filesz=300) for i in range(4)]
    image = elf(load(START + 1000, whole), *shared)
    Elf().load(memory, image)
    expected = bytearray(600)
    for i in range(4):
        expected[100 * i : 100 * i + 300] = image[64:364]
    assert memory.read(START, 600) == bytes(expected)
    assert memory.read(START + 1000, 300) == whole


def test_program_without_segments_loads_nothing(memory: GuestMemory) -> None:
    result = Elf().load(memory, elf(entry=0x1234, phoff=1 << 40))
    assert result == KernelLoaderResult(
        kernel_load=0x1234,
        kernel_end=0,
        setup_header=None,
        pvh_boot_cap=NOT_PRESENT,
        footprint=Range(0x1234, 0),
        entry_points={"linux64": 0x1234},
        findings=(Finding("no-load-segment", "no PT_LOAD segment puts anything into memory"),),
        machine="x86_64",
    )
    assert list(memory.data_extents()) == []


def test_image_may_be_bytes_a_path_or_a_file(memory: GuestMemory, tmp_path: Path) -> None:
    image = elf(load(START, CODE), notes(pvh_entry(START)))
    path = tmp_path / "vmlinux"
    path.write_bytes(image)
    expected = Elf().load(memory, image)
    assert Elf().load(memory, path) == expected
    assert Elf().load(memory, str(path)) == expected
    with path.open("rb") as file:
        file.seek(100)
        assert Elf().load(memory, file) == expected
    with GuestMemory([(0, RAM)]) as other:
        Elf().load(other, path)
        assert other.read(START, len(CODE)) == CODE


@pytest.mark.parametrize(
    ("machine", "name", "points"),
    [
        (62, "x86_64", {"linux64": START, "pvh": START}),
        (3, "i386", {"pvh": START}),
        (183, "aarch64", {}),
        (243, "riscv64", {}),
        (8, None, {"linux64": START, "pvh": START}),
    ],
)
def test_machine_is_reported_not_refused(
    memory: GuestMemory, machine: int, name: str | None, points: dict[str, int]
) -> None:
    image = elf(load(START, CODE), notes(pvh_entry(START)), machine=machine)
    result = Elf().load(memory, image)
    assert (result.machine, result.entry_points) == (name, points)


# --- PVH -----------------------------------------------------------------------------------------


def test_pvh_entry_is_the_low_half_of_the_note(memory: GuestMemory) -> None:
    segment = notes(BUILD_ID, note(b"Xen\0", 18, struct.pack("<Q", 0xFFFF_FFFF_0100_0ABC)))
    result = Elf().load(memory, elf(load(START, CODE), segment))
    assert result.pvh_boot_cap == present(0x100_0ABC)
    assert result.entry_points == {"linux64": START, "pvh": 0x100_0ABC}


def test_first_entry_note_of_a_segment_counts(memory: GuestMemory) -> None:
    segment = notes(pvh_entry(0x111000), pvh_entry(0x222000))
    assert Elf().load(memory, elf(segment)).pvh_boot_cap == present(0x111000)


@pytest.mark.parametrize("offset", [0, 16 * MIB])
def test_kernel_offset_disables_pvh_and_notes_are_not_parsed(
    memory: GuestMemory, offset: int
) -> None:
    image = elf(load(START, CODE), notes(pvh_entry(START, size=2)))
    result = Elf().load(memory, image, kernel_offset=offset)
    assert result.pvh_boot_cap == IGNORED
    assert result.entry_points == {"linux64": START + offset}


@pytest.mark.parametrize(
    "other",
    [
        note(b"Xen\0", 17, b"\1\2\3\4"),
        note(b"xen\0", 18, b"\1\2\3\4"),
        note(b"Xen", 18, b"\1\2\3\4"),
        note(b"Xen\0\0", 18, b"\1\2\3\4"),
    ],
    ids=["other type", "other name", "no NUL in the name", "longer name"],
)
def test_pvh_is_not_present_without_its_note(memory: GuestMemory, other: bytes) -> None:
    assert Elf().load(memory, elf(notes(BUILD_ID, other))).pvh_boot_cap == NOT_PRESENT


@pytest.mark.parametrize("align", [0, 1, 8, 0x1000])
def test_notes_are_aligned_to_four_whatever_p_align_says(memory: GuestMemory, align: int) -> None:
    image = elf(Segment(4, note(b"GNU\0", 1, b"abcde") + pvh_entry(START), align=align))
    assert Elf().load(memory, image).pvh_boot_cap == present(START)


def test_run_of_empty_notes_is_skipped(memory: GuestMemory) -> None:
    image = elf(notes(bytes(12 * 1000), note(b"", 7, b"") * 5, pvh_entry(START)))
    assert Elf().load(memory, image).pvh_boot_cap == present(START)


def test_empty_notes_end_with_their_segment(memory: GuestMemory) -> None:
    image = elf(Segment(4, bytes(24) + pvh_entry(START), filesz=24))
    assert Elf().load(memory, image).pvh_boot_cap == NOT_PRESENT


def test_pvh_note_shorter_than_an_address_is_refused(memory: GuestMemory) -> None:
    error = refusal(memory, elf(load(START, CODE), notes(pvh_entry(START, size=3))))
    assert type(error) is Elf.InvalidPvhNote
    assert error.code == "Elf::InvalidPvhNote"
    assert (error.field, error.value, error.limit) == ("n_descsz", 3, 4)


def test_note_beyond_the_file_is_refused(memory: GuestMemory) -> None:
    image = elf(load(START, CODE), Segment(4, BUILD_ID, filesz=1 << 32))
    assert type(refusal(memory, image)) is Elf.ReadNoteHeader


@pytest.mark.parametrize("cut", [1, 8, 13, 16, 17])
def test_entry_note_cut_by_the_end_of_the_file_is_refused(memory: GuestMemory, cut: int) -> None:
    image = elf(load(START, CODE), notes(pvh_entry(START, size=4)))
    assert type(refusal(memory, image[: len(image) - 20 + cut])) is Elf.ReadNoteHeader


@pytest.mark.parametrize("field", ["namesz", "descsz"])
@pytest.mark.parametrize("size", [0xFFFF_FFFD, 0xFFFF_FFFF])
def test_note_size_that_overflows_when_padded_is_refused(
    memory: GuestMemory, field: str, size: int
) -> None:
    image = elf(notes(note(b"GNU\0", 3, b"", **{field: size}), bytes(32)))
    error = refusal(memory, image)
    assert type(error) is Elf.Overflow
    assert (error.field, error.value) == (f"n_{field}", size)


def test_relocation_range_is_read(memory: GuestMemory) -> None:
    segment = notes(pvh_entry(START), pvh_reloc(0x20_0000, START, 0x3FFF_FFFF))
    result = Elf().load(memory, elf(load(START, CODE), segment))
    assert result.pvh_boot_cap == present(START, PvhRelocation(0x20_0000, START, 0x3FFF_FFFF))


@pytest.mark.parametrize(
    ("values", "align", "expected"),
    [
        ((), 0x40_0000, PvhRelocation(0x40_0000, 0, 0xFFFF_FFFF)),
        ((), 0x800, PvhRelocation(0x20_0000, 0, 0xFFFF_FFFF)),
        ((0x10_0000,), 0x40_0000, PvhRelocation(0x10_0000, 0, 0xFFFF_FFFF)),
        ((0x10_0000, 0x1000), 1, PvhRelocation(0x10_0000, 0x1000, 0xFFFF_FFFF)),
    ],
)
def test_relocation_range_has_defaults(
    memory: GuestMemory, values: tuple[int, ...], align: int, expected: PvhRelocation
) -> None:
    image = elf(load(START, CODE, align=align), notes(pvh_reloc(*values), pvh_entry(START)))
    assert Elf().load(memory, image).pvh_boot_cap == present(START, expected)


def test_relocation_may_be_in_another_note_segment(memory: GuestMemory) -> None:
    image = elf(notes(pvh_entry(START)), notes(pvh_reloc(0x1000)))
    relocation = PvhRelocation(0x1000, 0, 0xFFFF_FFFF)
    assert Elf().load(memory, image).pvh_boot_cap == present(START, relocation)


def test_relocation_note_past_its_segment_does_not_count(memory: GuestMemory) -> None:
    data = pvh_entry(START) + pvh_reloc(1, 2, 3)
    image = elf(Segment(4, data, filesz=len(data) - 4))
    assert Elf().load(memory, image).pvh_boot_cap == present(START)


def test_lie_behind_the_entry_hides_the_relocation_only(memory: GuestMemory) -> None:
    """linux-loader stops reading at the entry, so what follows cannot be refused."""
    huge = note(b"GNU\0", 3, b"", descsz=0xFFFF_FFFF)
    image = elf(notes(pvh_entry(START), huge, pvh_reloc(1, 2, 3)))
    assert Elf().load(memory, image).pvh_boot_cap == present(START)


def test_relocation_without_an_entry_means_nothing(memory: GuestMemory) -> None:
    assert Elf().load(memory, elf(notes(pvh_reloc(1, 2, 3)))).pvh_boot_cap == NOT_PRESENT


# --- where we differ from linux-loader (docs/differences.md) -------------------------------------


def test_entry_note_in_any_note_segment_counts(memory: GuestMemory) -> None:
    result = Elf().load(memory, elf(load(START, CODE), notes(pvh_entry(START)), notes(BUILD_ID)))
    assert result.pvh_boot_cap == present(START)
    assert [finding.code for finding in result.findings] == ["second-note-segment"]


def test_last_note_segment_with_an_entry_wins(memory: GuestMemory) -> None:
    image = elf(notes(pvh_entry(0x1000)), notes(pvh_entry(0x2000)), notes(BUILD_ID))
    assert Elf().load(memory, image).pvh_boot_cap == present(0x2000)


def test_kernel_without_notes_has_no_pvh_entry(memory: GuestMemory) -> None:
    assert Elf().load(memory, elf(load(START, CODE))).pvh_boot_cap == NOT_PRESENT


@pytest.mark.parametrize("filesz", [4, 12, 16, 19])
def test_entry_note_may_not_run_past_its_segment(memory: GuestMemory, filesz: int) -> None:
    image = elf(load(START, CODE), Segment(4, pvh_entry(START, size=4) + bytes(16), filesz=filesz))
    error = refusal(memory, image)
    assert type(error) is Elf.InvalidPvhNote
    assert error.field == "n_descsz"


def test_entry_note_may_not_claim_more_than_its_segment(memory: GuestMemory) -> None:
    lie = note(b"Xen\0", 18, struct.pack("<I", START), descsz=0xFFFF_FFFF)
    assert type(refusal(memory, elf(load(START, CODE), notes(lie)))) is Elf.InvalidPvhNote


def test_unpadded_end_of_the_last_note_is_no_lie(memory: GuestMemory) -> None:
    five = note(b"Xen\0", 18, struct.pack("<I", START) + b"x")
    image = elf(Segment(4, five, filesz=len(five) - 3))
    assert Elf().load(memory, image).pvh_boot_cap == present(START)


def test_other_note_past_its_segment_is_only_a_finding(memory: GuestMemory) -> None:
    image = elf(load(START, CODE), notes(note(b"GNU\0", 3, b"", descsz=0x100)))
    result = Elf().load(memory, image)
    assert result.pvh_boot_cap == NOT_PRESENT
    assert [finding.code for finding in result.findings] == ["note-past-segment"]


@pytest.mark.parametrize(
    "segment", [load(START, CODE, memsz=RAM), bss(START, RAM), bss((1 << 64) - 8, 64)]
)
def test_bss_has_to_fit_into_ram(memory: GuestMemory, segment: Segment) -> None:
    error = refusal(memory, elf(segment))
    assert type(error) is MemoryOverflow
    assert error.field == "p_memsz"


def test_failed_load_changes_nothing(memory: GuestMemory) -> None:
    memory.write(START, b"before")
    image = elf(load(START, CODE), load(RAM - 8, CODE))
    assert type(refusal(memory, image)) is Elf.ReadKernelImage
    assert memory.read(START, 8) == b"before\0\0"


def test_refusals_of_linux_loader_come_before_ours(memory: GuestMemory) -> None:
    too_large = load(START, CODE, memsz=RAM)
    past = Segment(4, pvh_entry(START), filesz=4)
    image = elf(too_large, past, load(RAM, CODE))
    assert type(refusal(memory, image)) is Elf.ReadKernelImage


# --- refusals, in linux-loader's order -----------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4, 63])
def test_file_shorter_than_a_header_is_refused(memory: GuestMemory, size: int) -> None:
    assert type(refusal(memory, elf(load(START, CODE))[:size])) is Elf.ReadElfHeader


HEADER_LIES: list[tuple[dict[str, object], type[LoaderError]]] = [
    ({"ident": b"\x7fELG" + bytes(12)}, Elf.InvalidElfMagicNumber),
    ({"ident": b"\x7fELF\2\2\1" + bytes(9)}, Elf.BigEndianElfOnLittle),
    ({"phentsize": 32}, Elf.InvalidProgramHeaderSize),
    ({"phoff": 63}, Elf.InvalidProgramHeaderOffset),
    ({"entry": 0xFFFFF}, Elf.InvalidEntryAddress),
    ({"entry": 1 << 63}, Elf.Overflow),
    ({"phnum": 65535}, Elf.ReadProgramHeader),
]


@pytest.mark.parametrize("first", range(len(HEADER_LIES)))
def test_first_lie_of_the_header_is_the_one_reported(memory: GuestMemory, first: int) -> None:
    lies: dict[str, object] = {}
    for changes, _ in reversed(HEADER_LIES[first:]):
        lies |= changes
    image = elf(load(START, CODE), **lies)
    error = refusal(memory, image, kernel_offset=1 << 63, highmem_start=0x10_0000)
    assert type(error) is HEADER_LIES[first][1]
    assert error.file == "image"


def test_class_is_not_checked_but_found(memory: GuestMemory) -> None:
    image = elf(load(START, CODE), ident=b"\x7fELF\1\1\1" + bytes(9))
    assert [f.code for f in Elf().load(memory, image).findings] == ["elf-class"]


@pytest.mark.parametrize("phoff", [1 << 63, (1 << 64) - 1, 1 << 40, 200])
def test_program_headers_have_to_be_in_the_file(memory: GuestMemory, phoff: int) -> None:
    assert type(refusal(memory, elf(load(START, CODE), phoff=phoff)[:220])) is Elf.ReadProgramHeader


def test_all_program_headers_are_read_before_any_is_used(memory: GuestMemory) -> None:
    image = elf(load(RAM, CODE), phnum=3)[:200]
    assert type(refusal(memory, image)) is Elf.ReadProgramHeader


def test_segments_are_judged_in_table_order(memory: GuestMemory) -> None:
    outside, broken = load(RAM, CODE), notes(pvh_entry(START, size=1))
    assert type(refusal(memory, elf(outside, broken))) is Elf.ReadKernelImage
    assert type(refusal(memory, elf(broken, outside))) is Elf.InvalidPvhNote


@pytest.mark.parametrize("offset", [(1 << 64) - START, 1 << 64, -START])
def test_offset_that_leaves_64_bits_is_refused(memory: GuestMemory, offset: int) -> None:
    assert type(refusal(memory, elf(load(START, CODE)), kernel_offset=offset)) is Elf.Overflow


def test_segment_address_that_leaves_64_bits_is_refused(memory: GuestMemory) -> None:
    image = elf(load((1 << 64) - MIB, CODE), entry=0)
    error = refusal(memory, image, kernel_offset=MIB)
    assert type(error) is Elf.InvalidProgramHeaderAddress


def test_memory_size_that_leaves_64_bits_is_refused_after_the_read(memory: GuestMemory) -> None:
    huge = load(START, CODE, memsz=(1 << 64) - 1)
    assert type(refusal(memory, elf(huge))) is MemoryOverflow
    assert type(refusal(memory, elf(huge)[:-1])) is Elf.ReadKernelImage


def test_memory_size_that_leaves_64_bits_is_refused_before_the_next_segment() -> None:
    huge, outside = load(START, CODE, memsz=(1 << 64) - 1), load(RAM, CODE)
    with GuestMemory([(0, RAM)]) as memory:
        assert type(refusal(memory, elf(huge, outside))) is MemoryOverflow
        assert type(refusal(memory, elf(outside, huge))) is Elf.ReadKernelImage


def test_segment_that_only_the_offset_puts_outside_is_refused(memory: GuestMemory) -> None:
    image = elf(load(RAM - MIB, CODE), entry=0)
    assert type(refusal(memory, image, kernel_offset=MIB)) is Elf.ReadKernelImage
    Elf().load(memory, image, kernel_offset=MIB - len(CODE))


def test_bss_below_all_ram_is_refused() -> None:
    with GuestMemory([(START, RAM)]) as memory:
        error = refusal(memory, elf(load(START, CODE), bss(START - 1, 1)))
        assert type(error) is MemoryOverflow
        Elf().load(memory, elf(load(START, CODE), bss(START - 1, 0)))


@pytest.mark.parametrize(
    "segment",
    [
        load(START, CODE, filesz=1 << 40),
        load(START, CODE, offset=(1 << 64) - 1),
        load(RAM - 1, b"ab"),
        load((1 << 64) - 1, b"a"),
    ],
    ids=["longer than the file", "beyond the file", "half outside RAM", "outside RAM"],
)
def test_segment_that_cannot_be_copied_is_refused(memory: GuestMemory, segment: Segment) -> None:
    assert type(refusal(memory, elf(segment))) is Elf.ReadKernelImage


def test_segment_without_bytes_is_not_checked_as_linux_loader_would(memory: GuestMemory) -> None:
    nothing = Segment(paddr=(1 << 64) - 1, memsz=0, offset=1 << 63)
    unused = Segment(PT_NULL, b"x", paddr=1 << 63, filesz=1 << 63)
    result = Elf().load(memory, elf(load(START, CODE), nothing, unused))
    assert result.footprint == Range(START, len(CODE))


def test_segment_may_span_banks_that_touch() -> None:
    with GuestMemory([(START + 0x800, MIB), (0, START + 0x800)]) as memory:
        Elf().load(memory, elf(load(START, CODE)))
        assert memory.read(START, len(CODE)) == CODE


def test_segment_may_not_span_a_hole() -> None:
    with GuestMemory([(0, START + 0x800), (START + 0x801, MIB)]) as memory:
        assert type(refusal(memory, elf(load(START, CODE)))) is Elf.ReadKernelImage


def test_message_names_segment_range_limit_and_remedy(memory: GuestMemory) -> None:
    error = refusal(memory, elf(load(START, CODE), load(RAM - 0x800, CODE)))
    assert str(error) == (
        "image: PT_LOAD[1] needs guest RAM 0x3fff800-0x40007ff but RAM ends at 0x3ffffff; "
        "give the guest at least 65 MiB (--memory)"
    )
    assert (error.field, error.offset, error.value) == ("p_paddr", 64 + 56 + 24, RAM - 0x800)


def test_missing_file_is_an_image_error(memory: GuestMemory, tmp_path: Path) -> None:
    with pytest.raises(Image.Missing):
        Elf().load(memory, tmp_path / "vmlinux")


def test_empty_file_is_a_short_header(memory: GuestMemory, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.touch()
    with pytest.raises(Elf.ReadElfHeader):
        Elf().load(memory, path)


# --- hostile -------------------------------------------------------------------------------------

SAME = Segment(paddr=START, offset=64, filesz=MIB)
OUTSIDE = load(RAM, b"x" * MIB)
HOSTILE = {
    "65535 headers in a short file": elf(load(START, CODE), phnum=65535),
    "65535 headers, the last outside RAM": elf(*[SAME] * 65534, OUTSIDE),
    "note of 4 GiB": elf(notes(note(b"GNU\0", 3, b"", descsz=0xFFFF_FFFC), filesz=1 << 34)),
    "65535 note segments full of notes": elf(
        notes(note(b"GNU\0", 3, b"") * 1000),
        *[Segment(4, offset=64 + 56 * 65535 + i % 2 * 16, filesz=8000) for i in range(65533)],
        OUTSIDE,
    ),
}


@pytest.mark.parametrize("image", HOSTILE.values(), ids=HOSTILE.keys())
def test_structural_lies_are_refused_quickly(memory: GuestMemory, image: bytes) -> None:
    started = time.process_time()
    refusal(memory, image)
    assert time.process_time() - started < 1  # 50 ms on an idle machine


def test_overlapping_segments_cost_no_more_than_their_bytes(memory: GuestMemory) -> None:
    many = [Segment(paddr=START + i % 7 * 0x1000, offset=64, filesz=MIB) for i in range(65535)]
    started = time.process_time()
    Elf().load(memory, elf(*many))
    assert time.process_time() - started < 5


def test_too_many_notes_are_refused(memory: GuestMemory) -> None:
    image = elf(notes(note(b"GNU\0", 3, b"") * 32769, pvh_entry(START)))
    error = refusal(memory, image)
    assert type(error) is Elf.InvalidPvhNote
    assert error.limit == 32768
