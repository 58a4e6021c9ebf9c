"""PE/COFF headers as far as boot images need them: the machine and the section table.

Owns: the layouts of the Microsoft PE format that bootproof reads (PE Format, "MS-DOS stub",
"COFF file header", "Section table"). Must not know: what a section means.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from collections.abc import Iterator
from typing import Annotated, Self

from bootproof.dataclass import dataclass
from bootproof.loader.declared import U16, U32, Declared
from bootproof.loader.errors import Facts, LoaderError
from bootproof.loader.image import ImageSource

TRUNCATED = "the file is truncated; get it again"
DOS_MAGIC = b"MZ"
_PE_MAGIC = b"PE\0\0"
_PE_POINTER = 0x3C  # the MS-DOS stub's field with the file offset of the PE signature


class TruncatedError(LoaderError):
    """A kernel file that ends before its own headers say it does."""

    code = "Assemble::Truncated"


@dataclass(frozen=True, slots=True)
class _CoffHeader(Declared):
    machine: U16
    number_of_sections: U16
    time_date_stamp: U32
    pointer_to_symbol_table: U32
    number_of_symbols: U32
    size_of_optional_header: U16
    characteristics: U16


@dataclass(frozen=True, slots=True)
class _SectionHeader(Declared):
    name: Annotated[bytes, "8s"]
    virtual_size: U32
    virtual_address: U32
    size_of_raw_data: U32
    pointer_to_raw_data: U32
    unused: Annotated[bytes, "12s"]
    characteristics: U32


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its name, and where its content lies in the file, in bytes.

    `size` leaves out the padding up to the file alignment. The content may lie outside the
    file: that is for the reader of the section to refuse.
    """

    name: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class PeFile:
    """The machine number of the COFF header, and the file offset and number of the sections."""

    machine: int
    section_table: int
    section_count: int

    @classmethod
    def parse(cls, data: memoryview) -> Self | None:
        """The PE headers of the file `data`, or None when it has none."""
        if data[:2] != DOS_MAGIC:
            return None
        signature = int.from_bytes(data[_PE_POINTER : _PE_POINTER + 4], "little")
        header = signature + len(_PE_MAGIC)
        if data[signature:header] != _PE_MAGIC or len(data) < header + _CoffHeader.SIZE:
            return None
        coff = _CoffHeader.from_bytes(data, header)
        table = header + _CoffHeader.SIZE + coff.size_of_optional_header
        return cls(coff.machine, table, coff.number_of_sections)

    def sections(self, data: memoryview) -> Iterator[Section]:
        """The sections in table order; a table that runs past the file is read as far as it goes.

        At most 65535 sections exist, the header's field being 16 bits wide.
        """
        end = self.section_table + self.section_count * _SectionHeader.SIZE
        table = data[self.section_table : min(end, len(data))]
        whole = len(table) - len(table) % _SectionHeader.SIZE
        for offset in range(0, whole, _SectionHeader.SIZE):
            yield _section(_SectionHeader.from_bytes(table, offset))


def _section(header: _SectionHeader) -> Section:
    # ukify gives .linux the virtual size that the kernel has in memory, beyond its content.
    size = header.size_of_raw_data
    if header.virtual_size:
        size = min(size, header.virtual_size)
    name = header.name.rstrip(b"\0").decode("latin-1")
    return Section(name, header.pointer_to_raw_data, size)


def check_complete(source: ImageSource) -> None:
    """Raises TruncatedError when a bzImage or Image ends before the last section of its PE header.

    linux-loader copies whatever is there, and the guest then hangs without a word. (Kernels
    without an EFI stub have no such header; an ELF says for itself what it needs.)
    """
    pe = PeFile.parse(source.data)
    for section in pe.sections(source.data) if pe else ():
        end = section.offset + section.size
        if end > source.size:
            what = f"the file ends at {source.size:#x}, but its section {section.name} ends at"
            facts: Facts = {"field": section.name, "offset": section.offset, "value": end}
            raise TruncatedError(f"{what} {end:#x}", **facts, limit=source.size, advice=TRUNCATED)
