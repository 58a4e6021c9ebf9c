"""The notes of an ELF kernel, as far as booting needs them: the PVH entry and its relocation.

Owns walking PT_NOTE segments. The walk for the entry refuses exactly what linux-loader refuses and
reads exactly as far; the walk for the relocation note, which is ours, refuses nothing. Layout of a
note: ELF specification 1.2, "Note Section", with 4-byte alignment of name and descriptor as
Linux has it. Note types: Xen public/elfnote.h. Knows nothing of memory or of loading.
"""

import struct
from collections.abc import Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import U32_MAX
from bootproof.loader.declared import U32, Declared
from bootproof.loader.errors import GET_AGAIN, Elf, Facts
from bootproof.loader.image import ImageSource
from bootproof.loader.result import PvhBootCapability, PvhRelocation, PvhState

NOTE_ALIGNMENT: Final = 4
XEN_NAME: Final = b"Xen\0"
XEN_ELFNOTE_PHYS32_ENTRY: Final = 18
XEN_ELFNOTE_PHYS32_RELOC: Final = 19

# Defaults of XEN_ELFNOTE_PHYS32_RELOC; p_align counts from a page on.
DEFAULT_RELOC_ALIGN: Final = 0x20_0000
DEFAULT_RELOC_MIN: Final = 0
DEFAULT_RELOC_MAX: Final = U32_MAX
PAGE_SIZE: Final = 0x1000

# A kernel has some ten notes: walking more than this many is only ever a waste of time. Zeros,
# which are notes without content, are skipped by the chunk once there were a few.
_MOST_NOTES: Final = 1 << 15
_ZEROS: Final = bytes(12 * 4096)
_ZEROS_AT_LEAST: Final = 64
_CHUNK_COST: Final = 16  # notes that a chunk of zeros counts as
_SEGMENT_COST: Final = 4

_XEN_KINDS: Final = (XEN_ELFNOTE_PHYS32_ENTRY, XEN_ELFNOTE_PHYS32_RELOC)
_PADDING: Final = NOTE_ALIGNMENT - 1
_MOST_PADDED: Final = U32_MAX & ~_PADDING  # more than this and the padded size exceeds 32 bits


@dataclass(frozen=True, slots=True)
class NoteHeader(Declared):
    """Elf64_Nhdr; the name follows, then the descriptor, each padded to NOTE_ALIGNMENT."""

    n_namesz: U32
    n_descsz: U32
    n_type: U32


@dataclass(frozen=True, slots=True)
class NoteSegment:
    """A PT_NOTE program header: its index in the table, file offset, size in the file."""

    index: int
    offset: int
    size: int


class PvhNotes:
    """What the PT_NOTE segments of one image say about PVH. Feed it with scan(), in order."""

    def __init__(self, image: ImageSource) -> None:
        self._image = image
        self._segments: list[NoteSegment] = []
        self._entry: int | None = None
        self._beyond: Elf.InvalidPvhNote | None = None
        self._overlong: int | None = None
        self._walked = 0

    @property
    def segments(self) -> int:
        """How many PT_NOTE segments were scanned."""
        return len(self._segments)

    @property
    def overlong_segment(self) -> int | None:
        """The index of the first segment with an ordinary note that runs past it."""
        return self._overlong

    def scan(self, segment: NoteSegment) -> None:
        """Looks for the PVH entry note in one segment; the first there counts.

        Raises Elf.ReadNoteHeader, Elf.Overflow and Elf.InvalidPvhNote where linux-loader does.
        """
        self._count(_SEGMENT_COST, segment)
        self._segments.append(segment)
        for at, note in self._walk(segment):
            if note.n_type == XEN_ELFNOTE_PHYS32_ENTRY:
                name = self._bytes(at + NoteHeader.SIZE, len(XEN_NAME), segment)
                if name == XEN_NAME:
                    self._entry = self._read_entry(at, note, segment)
                    return

    def capability(self, most_alignment: int) -> PvhBootCapability:
        """The verdict over all segments; `most_alignment` is the largest p_align of a PT_LOAD.

        Raises Elf.InvalidPvhNote when an entry note ran past its segment.
        """
        if self._beyond is not None:
            raise self._beyond
        if self._entry is None:
            return PvhBootCapability(PvhState.NOT_PRESENT)
        relocation = self._relocation(most_alignment)
        return PvhBootCapability(PvhState.PRESENT, self._entry, relocation)

    def _walk(self, segment: NoteSegment) -> Iterator[tuple[int, NoteHeader]]:
        """(file offset, header) of each note that may be Xen's, until the segment is used up.

        The others are checked as linux-loader checks them, without an object for each.
        """
        at, end, zeros = segment.offset, segment.offset + segment.size, 0
        unpack, data = NoteHeader.CODEC.unpack_from, self._image.data
        while at < end:
            try:
                namesz, descsz, kind = unpack(data, at)
            except (struct.error, OverflowError):
                raise self._cut_short(at, NoteHeader.SIZE, segment) from None
            if namesz == len(XEN_NAME) and kind in _XEN_KINDS:
                yield at, NoteHeader(namesz, descsz, kind)
            self._count(1, segment)
            if namesz > _MOST_PADDED or descsz > _MOST_PADDED:
                raise self._overflow(at, NoteHeader(namesz, descsz, kind), segment)
            desc = at + NoteHeader.SIZE + (namesz + _PADDING & ~_PADDING)
            if desc + descsz > end and self._overlong is None:
                self._overlong = segment.index
            at = desc + (descsz + _PADDING & ~_PADDING)
            zeros = 0 if namesz or descsz or kind else zeros + 1
            if zeros == _ZEROS_AT_LEAST:
                at, zeros = self._skip_zeros(at, end, segment), 0

    def _skip_zeros(self, at: int, end: int, segment: NoteSegment) -> int:
        """The file offset behind a run of zeros at `at`, counted in whole chunks."""
        # Bytes compare ten times faster than views.
        while at < end and bytes(self._image.data[at : at + len(_ZEROS)]) == _ZEROS:
            self._count(_CHUNK_COST, segment)
            at += len(_ZEROS)
        return at

    def _count(self, notes: int, segment: NoteSegment) -> None:
        self._walked += notes
        if self._walked > _MOST_NOTES:
            what = f"PT_NOTE[{segment.index}] brings the image to more than {_MOST_NOTES} notes"
            at: Facts = {"field": "p_filesz", "offset": segment.offset}
            raise Elf.InvalidPvhNote(what, **at, value=segment.size, limit=_MOST_NOTES)

    def _bytes(self, at: int, size: int, segment: NoteSegment) -> bytes:
        found = bytes(self._image.data[at : at + size])
        if len(found) < size:
            raise self._cut_short(at, size, segment)
        return found

    def _cut_short(self, at: int, size: int, segment: NoteSegment) -> Elf.ReadNoteHeader:
        what, end = f"PT_NOTE[{segment.index}] has a note at file offset {at:#x}", self._image.size
        facts: Facts = {"field": "p_filesz", "offset": at, "value": at + size, "limit": end}
        error = f"{what} that needs {size} bytes, but the file ends at {end:#x}"
        return Elf.ReadNoteHeader(error, **facts, advice=GET_AGAIN)

    def _overflow(self, at: int, note: NoteHeader, segment: NoteSegment) -> Elf.Overflow:
        field = "n_namesz" if note.n_namesz > _MOST_PADDED else "n_descsz"
        size = getattr(note, field)
        what = f"the note at file offset {at:#x} in PT_NOTE[{segment.index}] has {field} {size:#x}"
        facts = NoteHeader.at(field, at) | {"value": size, "limit": U32_MAX}
        error = f"{what}, which padded to {NOTE_ALIGNMENT} bytes exceeds 32 bits"
        return Elf.Overflow(error, **facts)

    def _read_entry(self, at: int, note: NoteHeader, segment: NoteSegment) -> int:
        size, what = note.n_descsz, f"the PVH entry note at file offset {at:#x}"
        facts = NoteHeader.at("n_descsz", at) | {"value": size}
        if size < _ADDRESS.size:
            what += f" in PT_NOTE[{segment.index}] has a descriptor of {size} bytes"
            error = f"{what} but an address needs {_ADDRESS.size}"
            raise Elf.InvalidPvhNote(error, **facts, limit=_ADDRESS.size)
        start = at + NoteHeader.SIZE + len(XEN_NAME)
        (entry,) = _ADDRESS.unpack(self._bytes(start, _ADDRESS.size, segment))
        end = segment.offset + segment.size
        if start + size > end and self._beyond is None:
            what += f" runs to {start + size:#x} but its segment PT_NOTE[{segment.index}] ends at"
            advice = "the file is damaged; get it again, or load it with an offset, without PVH"
            self._beyond = Elf.InvalidPvhNote(f"{what} {end:#x}", **facts, limit=end, advice=advice)
        return int(entry)

    def _relocation(self, most_alignment: int) -> PvhRelocation | None:
        for segment in self._segments:
            values = self._relocation_values(segment)
            if values is not None:
                align = most_alignment if most_alignment >= PAGE_SIZE else DEFAULT_RELOC_ALIGN
                defaults = (align, DEFAULT_RELOC_MIN, DEFAULT_RELOC_MAX)
                return PvhRelocation(*values, *defaults[len(values) :])
        return None

    def _relocation_values(self, segment: NoteSegment) -> tuple[int, ...] | None:
        """The one to three values of a relocation note in the segment, or () or None."""
        end = segment.offset + segment.size
        try:
            for at, note in self._walk(segment):
                name = at + NoteHeader.SIZE
                start = name + len(XEN_NAME)
                if (
                    note.n_type == XEN_ELFNOTE_PHYS32_RELOC
                    and start + note.n_descsz <= end
                    and bytes(self._image.data[name:start]) == XEN_NAME
                ):
                    count = min(note.n_descsz // _ADDRESS.size, 3)
                    return struct.unpack_from(f"<{count}I", self._image.data, start)
        except (Elf.ReadNoteHeader, Elf.Overflow, Elf.InvalidPvhNote, struct.error):
            return None
        return None


_ADDRESS = struct.Struct("<I")
