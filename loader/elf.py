"""Loading an uncompressed x86 kernel: a 64-bit little-endian ELF file (vmlinux).

Owns reading the program header table, and the answer. Checks come in
linux-loader's order and all of them before the first write. Where segments go is the business of
segments, notes that of elfnotes, entering the kernel that of protocols/. Layout and constants:
ELF-64 Object File Format 1.5, section 3 (ELF header).
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from collections.abc import Iterator
from typing import Final

from bootproof.loader import errors
from bootproof.loader.address import MIB, U64_MAX, Range, checked_add, counted, format_size
from bootproof.loader.copying import copy_all
from bootproof.loader.elfheader import (
    E_MACHINES,
    EI_CLASS,
    EI_DATA,
    ELF_MAGIC,
    ELFCLASS32,
    ELFCLASS64,
    ELFDATA2LSB,
    ElfHeader,
)
from bootproof.loader.elfnotes import NoteSegment, PvhNotes
from bootproof.loader.errors import GET_AGAIN, Facts, LoaderError
from bootproof.loader.image import ImageLike, ImageSource, open_image
from bootproof.loader.memory import GuestMemory
from bootproof.loader.result import Finding, KernelLoaderResult, PvhBootCapability, PvhState
from bootproof.loader.segments import ProgramHeader, Row, Segments

# What an ELF file for a machine can be entered through; without a known machine, as x86-64.
_ENTERED_THROUGH: Final = {"i386": ("pvh",), "aarch64": (), "riscv64": ()}

# The alignment of x86-64 kernels: an entry this far from the first segment means that rounding
# kernel_load down no longer finds the segment.
ENTRY_FAR: Final = 2 * MIB


class Elf(errors.Elf):
    """The loader of ELF kernels. Its refusals are attributes: Elf.InvalidPvhNote and so on."""

    def load(
        self,
        memory: GuestMemory,
        image: ImageLike,
        *,
        kernel_offset: int | None = None,
        highmem_start: int | None = None,
    ) -> KernelLoaderResult:
        """Loads the PT_LOAD segments of `image` and finds its PVH entry.

        `kernel_offset` is added to every p_paddr and to e_entry; any value, also 0, makes the PVH
        capability IGNORED. `highmem_start` is a lower limit for e_entry before the offset. Both
        are guest-physical. Raises a LoaderError (Elf.*, MemoryOverflow, Image.*) and leaves
        `memory` as it was then.
        """
        with open_image(image, allow_empty=True) as source:
            plan = _Plan(memory, source, kernel_offset, highmem_start)
            result = plan.result()
            copy_all(memory, source, plan.segments.copies)
        return result


class _Plan:
    """Everything that is checked and computed before the first byte is written."""

    def __init__(
        self,
        memory: GuestMemory,
        source: ImageSource,
        kernel_offset: int | None,
        highmem_start: int | None,
    ) -> None:
        self.memory = memory
        self.source = source
        self.offset = kernel_offset
        self.header = _read_header(source)
        self._check_highmem(highmem_start)
        self.kernel_load = self._load_address()
        self.segments = Segments(memory, source, self.header.e_phoff, kernel_offset or 0)
        self.notes = PvhNotes(source)
        for index, row in self.segments.take(_program_headers(source, self.header)):
            if self.offset is None:
                note = ProgramHeader(*row)
                self.notes.scan(NoteSegment(index, note.p_offset, note.p_filesz))

    def result(self) -> KernelLoaderResult:
        """The checks that linux-loader does not make, then the answer."""
        pvh = self._pvh()
        self.segments.check_bss()
        footprint = self.segments.footprint
        machine = E_MACHINES.get(self.header.e_machine)
        return KernelLoaderResult(
            kernel_load=self.kernel_load,
            kernel_end=self.segments.kernel_end,
            setup_header=None,
            pvh_boot_cap=pvh,
            footprint=footprint or Range(self.kernel_load, 0),
            entry_points=_entry_points(machine, self.kernel_load, pvh),
            findings=tuple(self._findings(footprint)),
            machine=machine,
            moved_by=self.offset or 0,
        )

    def _check_highmem(self, highmem_start: int | None) -> None:
        if highmem_start is not None and self.header.e_entry < highmem_start:
            entry = self.header.e_entry
            what = f"e_entry {entry:#x} is below the start of high memory {highmem_start:#x}"
            facts = ElfHeader.at("e_entry") | {"value": entry, "limit": highmem_start}
            raise errors.Elf.InvalidEntryAddress(what, **facts)

    def _load_address(self) -> int:
        if self.offset is None:
            return self.header.e_entry
        address = checked_add(self.offset, self.header.e_entry)
        if address is None:
            entry = self.header.e_entry
            what = f"e_entry {entry:#x} plus the kernel offset {self.offset:#x}"
            facts = ElfHeader.at("e_entry") | {"value": entry, "limit": U64_MAX}
            what += " is not a 64-bit address"
            raise errors.Elf.Overflow(what, **facts, advice=errors.SMALLER_OFFSET)
        return address

    def _pvh(self) -> PvhBootCapability:
        if self.offset is not None:
            return PvhBootCapability(PvhState.IGNORED)
        return self.notes.capability(self.segments.most_alignment)

    def _findings(self, footprint: Range | None) -> Iterator[Finding]:
        yield from self.segments.findings()
        yield from self._entry_findings(footprint)
        if self.notes.segments > 1:
            what = f"there are {self.notes.segments} PT_NOTE segments; a Xen note in any of them"
            why = "counts, while linux-loader lets a later segment hide it"
            yield Finding("second-note-segment", f"{what} {why}")
        if self.notes.overlong_segment is not None:
            where = f"PT_NOTE[{self.notes.overlong_segment}]"
            yield Finding("note-past-segment", f"a note in {where} runs past the segment's end")
        if self.header.e_ident[EI_CLASS] != ELFCLASS64:
            yield Finding("elf-class", "EI_CLASS does not say 64-bit, but the headers are 64-bit")

    def _entry_findings(self, footprint: Range | None) -> Iterator[Finding]:
        if footprint is None:
            yield Finding("no-load-segment", "no PT_LOAD segment puts anything into memory")
            return
        first, entry = footprint.start, self.kernel_load
        if not self.segments.covers(entry):
            what = f"the entry address {entry:#x} is in no PT_LOAD segment"
            yield Finding("entry-outside-segments", what)
        elif entry - first >= ENTRY_FAR:
            what = f"the entry address {entry:#x} is {format_size(entry - first)} above the first"
            why = f"segment at {first:#x}: kernel_load does not say where the kernel begins"
            yield Finding("entry-far-from-start", f"{what} {why}")


def _read_header(source: ImageSource) -> ElfHeader:
    """The ELF header, after the four checks that linux-loader makes, in its order."""
    if source.size < ElfHeader.SIZE:
        there = counted(source.size, "byte")
        what = f"the file has {there} but an ELF header needs {ElfHeader.SIZE}"
        facts: Facts = {"field": "file size", "value": source.size, "limit": ElfHeader.SIZE}
        raise errors.Elf.ReadElfHeader(what, **facts, advice="give the path of a kernel image")
    header = ElfHeader.from_bytes(source.data)
    magic = header.e_ident[: len(ELF_MAGIC)]
    if magic != ELF_MAGIC:
        what = f"the file begins with {magic.hex(' ')}, not with the ELF magic 7f 45 4c 46"
        facts = ElfHeader.at("e_ident") | {"value": magic, "limit": ELF_MAGIC}
        raise errors.Elf.InvalidElfMagicNumber(what, **facts)
    order, size, offset = header.e_ident[EI_DATA], header.e_phentsize, header.e_phoff
    if order != ELFDATA2LSB:
        at: Facts = {"field": "EI_DATA", "offset": EI_DATA}
        raise _bad(errors.Elf.BigEndianElfOnLittle, at, order, ELFDATA2LSB, "little-endian")
    if size != ProgramHeader.SIZE and header.e_ident[EI_CLASS] == ELFCLASS32:
        what = "it is a 32-bit ELF file (EI_CLASS); a 32-bit kernel is not supported"
        at = {"field": "EI_CLASS", "offset": EI_CLASS, "value": ELFCLASS32, "limit": ELFCLASS64}
        raise errors.Elf.InvalidProgramHeaderSize(what, **at, advice=_GIVE_ANOTHER)
    if size != ProgramHeader.SIZE:
        at, why = ElfHeader.at("e_phentsize"), "64-bit program headers"
        why += "" if size else "; what was not linked has none"
        raise _bad(errors.Elf.InvalidProgramHeaderSize, at, size, ProgramHeader.SIZE, why)
    if offset < ElfHeader.SIZE:
        at, why = ElfHeader.at("e_phoff"), "at least the size of the ELF header"
        raise _bad(errors.Elf.InvalidProgramHeaderOffset, at, offset, ElfHeader.SIZE, why)
    return header


def _bad(kind: type[LoaderError], at: Facts, value: int, limit: int, meaning: str) -> LoaderError:
    what = f"{at['field']} is {value:#x}, not {limit:#x} ({meaning})"
    return kind(what, **at, value=value, limit=limit, advice=_GIVE_ANOTHER)


_GIVE_ANOTHER: Final = "give an uncompressed x86-64 kernel (vmlinux)"


def _program_headers(source: ImageSource, header: ElfHeader) -> Iterator[Row]:
    """The program headers, all of which have to be in the file."""
    end = header.e_phoff + header.e_phnum * ProgramHeader.SIZE
    if not header.e_phnum:
        return iter(())
    if end > source.size:
        headers = counted(header.e_phnum, "program header")
        what = f"the table of {headers} at file offset {header.e_phoff:#x} ends at {end:#x}"
        facts = ElfHeader.at("e_phoff") | {"value": header.e_phoff, "limit": source.size}
        error = f"{what}, but the file ends at {source.size:#x}"
        raise errors.Elf.ReadProgramHeader(error, **facts, advice=GET_AGAIN)
    # Bytes, not a view: CPython 3.11 and 3.12 crash when a view that an iterator reads from is
    # collected as garbage, as it is when an exception whose traceback holds both is in a cycle.
    table = bytes(source.data[header.e_phoff : end])
    rows: Iterator[Row] = ProgramHeader.CODEC.iter_unpack(table)
    return rows


def entered_as_elf(machine: str | None) -> bool:
    """Whether the entry address of an ELF kernel is one that a boot protocol enters."""
    return "linux64" in _ENTERED_THROUGH.get(machine or "", ("linux64",))


def _entry_points(machine: str | None, kernel_load: int, pvh: PvhBootCapability) -> dict[str, int]:
    points = {"linux64": kernel_load} | ({} if pvh.entry is None else {"pvh": pvh.entry})
    names = _ENTERED_THROUGH.get(machine or "", points)
    return {name: point for name, point in points.items() if name in names}
