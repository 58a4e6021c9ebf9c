"""The PT_LOAD segments of an ELF kernel: where each goes, and whether it may.

Owns judging a table of up to 65,535 segments in linux-loader's order, fast enough for one that is
nothing but a trap: rows stay the tuples that struct gave, and one is looked at closely only when
a cheap test does not already let it pass. Must not know notes, nor how bytes are copied.
Layout: ELF-64 Object File Format 1.5, section 8.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from operator import attrgetter
from typing import Final, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.loader.address import U64_MAX, Range, checked_add, counted, format_size
from bootproof.loader.copying import Copy
from bootproof.loader.declared import U32, U64, Declared
from bootproof.loader.errors import GET_AGAIN, SMALLER_OFFSET, Elf, Facts, MemoryOverflow
from bootproof.loader.image import ImageSource
from bootproof.loader.memory import GuestMemory
from bootproof.loader.result import Finding

Row: TypeAlias = tuple[int, int, int, int, int, int, int, int]

PT_LOAD: Final = 1
PT_NOTE: Final = 4

_MOST_FINDINGS = 8


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


class Segments:
    """The PT_LOAD segments of one image on their way into one guest memory.

    `table` is the file offset of the program headers, `base` what is added to every p_paddr.
    """

    def __init__(self, memory: GuestMemory, image: ImageSource, table: int, base: int) -> None:
        self._memory = memory
        self._image = image
        self._table = table
        self._base = base
        self._indexes: list[int] = []
        self._rows: list[Row] = []
        # The largest bank, in which a segment needs no closer look.
        bank = max(memory.banks, key=attrgetter("size")).range
        self._low, self._high = bank.start - base, min(bank.end, U64_MAX) - base

    def take(self, rows: Iterable[Row]) -> Iterator[tuple[int, Row]]:
        """Takes every PT_LOAD of the table, checked as linux-loader checks it; yields index and
        content of each PT_NOTE, when its turn comes.

        Raises Elf.InvalidProgramHeaderAddress, Elf.ReadKernelImage and MemoryOverflow.
        """
        size, low, high, highest = self._image.size, self._low, self._high, U64_MAX - self._base
        keep_index, keep_row = self._indexes.append, self._rows.append
        for index, row in enumerate(rows):
            kind, _, offset, _, paddr, filesz, memsz, _ = row
            if kind != PT_LOAD:
                if kind == PT_NOTE:
                    yield index, row
                continue
            if filesz and (
                offset + filesz > size
                or paddr < low
                or paddr + filesz > high
                or paddr + memsz > highest
            ):
                self._check(index, ProgramHeader(*row))
            keep_index(index)
            keep_row(row)

    def check_bss(self) -> None:
        """Ours: what the kernel will zero has to be RAM as well. Raises MemoryOverflow."""
        low, high = self._low, self._high
        for index, row in self._numbered():
            paddr, filesz, memsz = row[4:7]
            size = memsz if memsz > filesz else filesz
            if paddr < low or paddr + size > high:
                self._check_bss(index, ProgramHeader(*row))

    @property
    def copies(self) -> list[Copy]:
        """What has to be copied, in the order of the table."""
        return [Copy(self._base + row[4], row[2], row[5]) for row in self._rows if row[5]]

    @property
    def kernel_end(self) -> int:
        """The highest end of a segment that has bytes in the file; 0 without one."""
        return max((self._base + row[4] + row[6] for row in self._rows if row[5]), default=0)

    @property
    def footprint(self) -> Range | None:
        """From the lowest to the highest byte that any segment claims, if one does."""
        claims = [(row[4], row[4] + max(row[5], row[6])) for row in self._rows]
        claims = [(start, end) for start, end in claims if start < end]
        if not claims:
            return None
        start, end = min(start for start, _ in claims), max(end for _, end in claims)
        return Range.between(self._base + start, self._base + end)

    @property
    def most_alignment(self) -> int:
        """The largest p_align; 0 without a segment."""
        return max((row[7] for row in self._rows), default=0)

    def covers(self, address: int) -> bool:
        """Whether a guest-physical address is in some segment."""
        paddr = address - self._base
        return any(row[4] <= paddr < row[4] + max(row[5], row[6]) for row in self._rows)

    def findings(self) -> Iterator[Finding]:
        """What is odd about the segments, each kind reported a few times at most."""
        yield from islice(self._larger_in_file(), 1)
        yield from self._bss()
        yield from islice(self._overlaps(), 1)

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        return zip(self._indexes, self._rows, strict=True)

    def _at(self, index: int, field: str) -> Facts:
        return ProgramHeader.at(field, self._table + index * ProgramHeader.SIZE)

    def _check(self, index: int, header: ProgramHeader) -> None:
        paddr, memsz, filesz = header.p_paddr, header.p_memsz, header.p_filesz
        start = checked_add(self._base, paddr)
        if start is None:
            what = f"PT_LOAD[{index}] has p_paddr {paddr:#x}, which with the kernel offset"
            facts = self._at(index, "p_paddr") | {"value": paddr, "limit": U64_MAX}
            what += f" {self._base:#x} is not a 64-bit address"
            raise Elf.InvalidProgramHeaderAddress(what, **facts, advice=SMALLER_OFFSET)
        size, offset = self._image.size, header.p_offset
        if offset + filesz > size:
            what = f"PT_LOAD[{index}] is at file offset {offset:#x} with {filesz:#x} bytes"
            facts = self._at(index, "p_filesz") | {"value": filesz, "limit": max(size - offset, 0)}
            error = f"{what}, but the file ends at {size:#x}"
            raise Elf.ReadKernelImage(error, **facts, advice=GET_AGAIN)
        facts = self._at(index, "p_paddr")
        self._memory.require(f"PT_LOAD[{index}]", start, filesz, Elf.ReadKernelImage, **facts)
        if checked_add(start, memsz) is None:
            what = f"PT_LOAD[{index}] begins at {start:#x} and has p_memsz {memsz:#x}, which goes"
            facts = self._at(index, "p_memsz") | {"value": memsz, "limit": U64_MAX - start}
            raise MemoryOverflow(f"{what} beyond 64 bits", **facts, advice=GET_AGAIN)

    def _check_bss(self, index: int, header: ProgramHeader) -> None:
        start, size = self._base + header.p_paddr, max(header.p_filesz, header.p_memsz)
        facts = self._at(index, "p_memsz") | {"value": header.p_memsz}
        what = f"PT_LOAD[{index}] with its BSS"
        self._memory.require(what, start, size, MemoryOverflow, **facts)

    def _larger_in_file(self) -> Iterator[Finding]:
        for index, row in self._numbered():
            if row[5] > row[6]:
                what = f"PT_LOAD[{index}] has p_filesz {row[5]:#x} above p_memsz {row[6]:#x}"
                why = "kernel_end does not cover all that was written"
                yield Finding("file-size-beyond-memory-size", f"{what}: {why}")

    def _bss(self) -> Iterator[Finding]:
        found = [(index, row) for index, row in self._numbered() if row[6] > row[5]]
        for index, row in found[:_MOST_FINDINGS]:
            what = f"PT_LOAD[{index}] needs {format_size(row[6] - row[5])} of RAM behind its bytes"
            end = self._base + row[4] + row[6] - 1
            yield Finding("bss-beyond-image", f"{what} in the file, up to {end:#x}")
        if len(found) > _MOST_FINDINGS:
            more = counted(len(found) - _MOST_FINDINGS, "more segment")
            what = f"RAM is needed behind the bytes of {more} in the file"
            yield Finding("bss-beyond-image", what)

    def _overlaps(self) -> Iterator[Finding]:
        claims = sorted(
            (row[4], index, row[4] + max(row[5], row[6]))
            for index, row in self._numbered()
            if row[5] or row[6]
        )
        for (_, low, end), (start, high, _) in pairwise(claims):
            if start < end:
                what = f"PT_LOAD[{low}] and PT_LOAD[{high}] overlap in guest memory"
                yield Finding("overlapping-segments", what)
