"""Loading an uncompressed x86 kernel: a 64-bit little-endian ELF file (vmlinux).

Owns the ELF header, the program headers, and where their segments go: to p_paddr, plus the kernel
offset when one is given. Checks come in linux-loader's order and all of them before the first
write. Notes are elfnotes' business; entering the kernel is that of protocols/. Layouts and
constants: ELF-64 Object File Format 1.5, sections 3 (ELF header) and 8 (program header table).
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from loader import errors
from loader.address import MIB, U64_MAX, Range, checked_add, format_size
from loader.copying import Copy, copy_all
from loader.declared import U16, U32, U64, Bytes16, Declared
from loader.elfnotes import NoteSegment, PvhNotes
from loader.errors import LoaderError, MemoryOverflow
from loader.image import ImageLike, ImageSource, open_image
from loader.memory import GuestMemory
from loader.result import Finding, KernelLoaderResult, PvhBootCapability, PvhState

ELF_MAGIC: Final = b"\x7fELF"
EI_CLASS: Final = 4
EI_DATA: Final = 5
ELFCLASS64: Final = 2
ELFDATA2LSB: Final = 1
PT_LOAD: Final = 1
PT_NOTE: Final = 4
E_MACHINES: Final = {3: "i386", 62: "x86_64", 183: "aarch64", 243: "riscv64"}

# The alignment of x86-64 kernels: an entry this far from the first segment means that rounding
# kernel_load down no longer finds the segment.
ENTRY_FAR: Final = 2 * MIB

_GET_AGAIN: Final = "the file is truncated or damaged; get it again"


@dataclass(frozen=True, slots=True)
class ElfHeader(Declared):
    """Elf64_Ehdr, at file offset 0."""

    e_ident: Bytes16
    e_type: U16
    e_machine: U16
    e_version: U32
    e_entry: U64
    e_phoff: U64
    e_shoff: U64
    e_flags: U32
    e_ehsize: U16
    e_phentsize: U16
    e_phnum: U16
    e_shentsize: U16
    e_shnum: U16
    e_shstrndx: U16


@dataclass(frozen=True, slots=True)
class ProgramHeader(Declared):
    """Elf64_Phdr, e_phnum of them at file offset e_phoff."""

    p_type: U32
    p_flags: U32
    p_offset: U64
    p_vaddr: U64
    p_paddr: U64
    p_filesz: U64
    p_memsz: U64
    p_align: U64


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD header with its index in the table and its guest-physical start."""

    index: int
    header: ProgramHeader
    start: int

    @property
    def range(self) -> Range:
        """Every guest byte the segment writes or claims."""
        return Range(self.start, max(self.header.p_filesz, self.header.p_memsz))


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
            copy_all(memory, source, plan.copies)
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
        self.copies: list[Copy] = []
        self.segments: list[Segment] = []
        self.notes = PvhNotes(source)
        self.kernel_end = 0
        for index, header in _program_headers(source, self.header):
            if header.p_type == PT_LOAD and header.p_filesz:
                self._add_segment(index, header)
            elif header.p_type == PT_LOAD:
                self.segments.append(Segment(index, header, (self.offset or 0) + header.p_paddr))
            elif self.offset is None:
                self.notes.scan(NoteSegment(index, header.p_offset, header.p_filesz))

    def result(self) -> KernelLoaderResult:
        """The checks that linux-loader does not make, then the answer."""
        pvh = self._pvh()
        claimed = [s for s in self.segments if s.range.size]
        for segment in claimed:
            self._check_bss(segment)
        machine = E_MACHINES.get(self.header.e_machine)
        return KernelLoaderResult(
            kernel_load=self.kernel_load,
            kernel_end=self.kernel_end,
            setup_header=None,
            pvh_boot_cap=pvh,
            footprint=_hull(claimed, self.kernel_load),
            entry_points=_entry_points(machine, self.kernel_load, pvh),
            findings=tuple(self._findings(claimed)),
            machine=machine,
        )

    def _check_highmem(self, highmem_start: int | None) -> None:
        if highmem_start is not None and self.header.e_entry < highmem_start:
            raise errors.Elf.InvalidEntryAddress(
                f"e_entry {self.header.e_entry:#x} is below the start of high memory "
                f"{highmem_start:#x}",
                file=self.source.name,
                field="e_entry",
                offset=ElfHeader.OFFSETS["e_entry"],
                value=self.header.e_entry,
                limit=highmem_start,
            )

    def _load_address(self) -> int:
        if self.offset is None:
            return self.header.e_entry
        address = checked_add(self.offset, self.header.e_entry)
        if address is None:
            raise errors.Elf.Overflow(
                f"e_entry {self.header.e_entry:#x} plus the kernel offset {self.offset:#x} is not "
                "a 64-bit address",
                file=self.source.name,
                field="e_entry",
                offset=ElfHeader.OFFSETS["e_entry"],
                value=self.header.e_entry,
                limit=U64_MAX,
                advice="use a smaller kernel offset (--offset)",
            )
        return address

    def _add_segment(self, index: int, header: ProgramHeader) -> None:
        """One PT_LOAD with bytes in the file, checked as linux-loader checks it."""
        start = checked_add(self.offset or 0, header.p_paddr)
        if start is None:
            raise errors.Elf.InvalidProgramHeaderAddress(
                f"PT_LOAD[{index}] has p_paddr {header.p_paddr:#x}, which with the kernel offset "
                f"{self.offset or 0:#x} is not a 64-bit address",
                file=self.source.name,
                field="p_paddr",
                offset=self._offset_of(index, "p_paddr"),
                value=header.p_paddr,
                limit=U64_MAX,
                advice="use a smaller kernel offset (--offset)",
            )
        self._check_source(index, header)
        self._check_target(index, start, header.p_filesz)
        end = checked_add(start, header.p_memsz)
        if end is None:
            raise MemoryOverflow(
                f"PT_LOAD[{index}] begins at {start:#x} and has p_memsz {header.p_memsz:#x}, which "
                "goes beyond 64 bits",
                file=self.source.name,
                field="p_memsz",
                offset=self._offset_of(index, "p_memsz"),
                value=header.p_memsz,
                limit=U64_MAX - start,
                advice=_GET_AGAIN,
            )
        self.segments.append(Segment(index, header, start))
        self.copies.append(Copy(start, header.p_offset, header.p_filesz))
        self.kernel_end = max(self.kernel_end, end)

    def _check_source(self, index: int, header: ProgramHeader) -> None:
        end = header.p_offset + header.p_filesz
        if end > self.source.size:
            raise errors.Elf.ReadKernelImage(
                f"PT_LOAD[{index}] is at file offset {header.p_offset:#x} with "
                f"{header.p_filesz:#x} bytes, but the file ends at {self.source.size:#x}",
                file=self.source.name,
                field="p_filesz",
                offset=self._offset_of(index, "p_filesz"),
                value=header.p_filesz,
                limit=max(self.source.size - header.p_offset, 0),
                advice=_GET_AGAIN,
            )

    def _check_target(self, index: int, start: int, size: int) -> None:
        if not self.memory.contains(start, size):
            shortage, advice = self.memory.shortage(start, size)
            raise errors.Elf.ReadKernelImage(
                f"PT_LOAD[{index}] needs guest RAM {Range(start, size)} but {shortage}",
                file=self.source.name,
                field="p_paddr",
                offset=self._offset_of(index, "p_paddr"),
                value=start,
                limit=self.memory.last_address,
                advice=advice,
            )

    def _check_bss(self, segment: Segment) -> None:
        """Ours: what the kernel will zero has to be RAM as well."""
        span = segment.range
        if not self.memory.contains(span.start, span.size):
            shortage, advice = self.memory.shortage(span.start, span.size)
            raise MemoryOverflow(
                f"PT_LOAD[{segment.index}] with its BSS needs guest RAM {span} but {shortage}",
                file=self.source.name,
                field="p_memsz",
                offset=self._offset_of(segment.index, "p_memsz"),
                value=segment.header.p_memsz,
                limit=self.memory.last_address,
                advice=advice,
            )

    def _offset_of(self, index: int, field: str) -> int:
        table = self.header.e_phoff + index * ProgramHeader.SIZE
        return table + ProgramHeader.OFFSETS[field]

    def _pvh(self) -> PvhBootCapability:
        if self.offset is not None:
            return PvhBootCapability(PvhState.IGNORED)
        return self.notes.capability(max((s.header.p_align for s in self.segments), default=0))

    def _findings(self, claimed: list[Segment]) -> Iterator[Finding]:
        yield from _segment_findings(claimed)
        yield from self._entry_findings(claimed)
        if self.notes.segments > 1:
            yield Finding(
                "second-note-segment",
                f"there are {self.notes.segments} PT_NOTE segments; a Xen note in any of them "
                "counts, while linux-loader lets a later segment hide it",
            )
        if self.notes.overlong_segment is not None:
            yield Finding(
                "note-past-segment",
                f"a note in PT_NOTE[{self.notes.overlong_segment}] runs past the segment's end",
            )
        if self.header.e_ident[EI_CLASS] != ELFCLASS64:
            yield Finding("elf-class", "EI_CLASS does not say 64-bit, but the headers are 64-bit")

    def _entry_findings(self, claimed: list[Segment]) -> Iterator[Finding]:
        if not claimed:
            yield Finding("no-load-segment", "no PT_LOAD segment puts anything into memory")
            return
        first = min(segment.start for segment in claimed)
        entry = self.kernel_load
        if not any(s.range.start <= entry < s.range.end for s in claimed):
            yield Finding(
                "entry-outside-segments", f"the entry address {entry:#x} is in no PT_LOAD segment"
            )
        elif entry - first >= ENTRY_FAR:
            yield Finding(
                "entry-far-from-start",
                f"the entry address {entry:#x} is {format_size(entry - first)} above the first "
                f"segment at {first:#x}: kernel_load does not say where the kernel begins",
            )


def _read_header(source: ImageSource) -> ElfHeader:
    """The ELF header, after the four checks that linux-loader makes, in its order."""
    if source.size < ElfHeader.SIZE:
        raise errors.Elf.ReadElfHeader(
            f"the file has {source.size} bytes but an ELF header needs {ElfHeader.SIZE}",
            file=source.name,
            value=source.size,
            limit=ElfHeader.SIZE,
            advice="give the path of a kernel image",
        )
    header = ElfHeader.from_bytes(source.data)
    magic = header.e_ident[: len(ELF_MAGIC)]
    if magic != ELF_MAGIC:
        raise errors.Elf.InvalidElfMagicNumber(
            f"the file begins with {magic.hex(' ')}, not with the ELF magic 7f 45 4c 46",
            file=source.name,
            field="e_ident",
            offset=0,
            value=magic,
            limit=ELF_MAGIC,
        )
    if header.e_ident[EI_DATA] != ELFDATA2LSB:
        raise _bad(
            errors.Elf.BigEndianElfOnLittle, source, "EI_DATA", header.e_ident[EI_DATA], EI_DATA
        )
    if header.e_phentsize != ProgramHeader.SIZE:
        raise _bad(
            errors.Elf.InvalidProgramHeaderSize, source, "e_phentsize", header.e_phentsize, None
        )
    if header.e_phoff < ElfHeader.SIZE:
        raise _bad(errors.Elf.InvalidProgramHeaderOffset, source, "e_phoff", header.e_phoff, None)
    return header


# What each header field has to be, for the message.
_REQUIRED: Final = {
    "EI_DATA": (ELFDATA2LSB, "little-endian"),
    "e_phentsize": (ProgramHeader.SIZE, "64-bit program headers; a 32-bit kernel is not supported"),
    "e_phoff": (ElfHeader.SIZE, "at least the size of the ELF header"),
}


def _bad(
    kind: type[LoaderError], source: ImageSource, field: str, value: int, offset: int | None
) -> LoaderError:
    limit, meaning = _REQUIRED[field]
    return kind(
        f"{field} is {value:#x}, not {limit:#x} ({meaning})",
        file=source.name,
        field=field,
        offset=ElfHeader.OFFSETS[field] if offset is None else offset,
        value=value,
        limit=limit,
        advice="give an uncompressed x86-64 kernel (vmlinux)",
    )


def _program_headers(source: ImageSource, header: ElfHeader) -> Iterator[tuple[int, ProgramHeader]]:
    """Index and content of the PT_LOAD and PT_NOTE headers; all headers have to be in the file.

    One that repeats its predecessor is left out: loading it again changes nothing.
    """
    end = header.e_phoff + header.e_phnum * ProgramHeader.SIZE
    if header.e_phnum and end > source.size:
        raise errors.Elf.ReadProgramHeader(
            f"{header.e_phnum} program headers at file offset {header.e_phoff:#x} end at "
            f"{end:#x}, but the file ends at {source.size:#x}",
            file=source.name,
            field="e_phoff",
            offset=ElfHeader.OFFSETS["e_phoff"],
            value=header.e_phoff,
            limit=source.size,
            advice=_GET_AGAIN,
        )
    if not header.e_phnum:
        return
    rows = ProgramHeader.CODEC.iter_unpack(source.data[header.e_phoff : end])
    previous = None
    for index, row in enumerate(rows):
        if (row[0] == PT_LOAD or row[0] == PT_NOTE) and row != previous:
            previous = row
            yield index, ProgramHeader(*row)


def _hull(segments: list[Segment], kernel_load: int) -> Range:
    if not segments:
        return Range(kernel_load, 0)
    return Range.between(
        min(segment.range.start for segment in segments),
        max(segment.range.end for segment in segments),
    )


def _entry_points(machine: str | None, kernel_load: int, pvh: PvhBootCapability) -> dict[str, int]:
    if machine in ("aarch64", "riscv64"):
        return {}
    points = {} if machine == "i386" else {"linux64": kernel_load}
    if pvh.entry is not None:
        points["pvh"] = pvh.entry
    return points


def _segment_findings(claimed: list[Segment]) -> Iterator[Finding]:
    for segment in claimed:
        header = segment.header
        if header.p_filesz > header.p_memsz:
            yield Finding(
                "file-size-beyond-memory-size",
                f"PT_LOAD[{segment.index}] has p_filesz {header.p_filesz:#x} above p_memsz "
                f"{header.p_memsz:#x}: kernel_end does not cover all that was written",
            )
            break
    for segment in claimed:
        header = segment.header
        if header.p_memsz > header.p_filesz:
            yield Finding(
                "bss-beyond-image",
                f"PT_LOAD[{segment.index}] needs {format_size(header.p_memsz - header.p_filesz)} "
                f"of RAM behind its bytes in the file, up to {segment.range.end - 1:#x}",
            )
    ordered = sorted(claimed, key=lambda segment: segment.start)
    for low, high in pairwise(ordered):
        if low.range.overlaps(high.range):
            yield Finding(
                "overlapping-segments",
                f"PT_LOAD[{low.index}] and PT_LOAD[{high.index}] overlap in guest memory",
            )
            break
