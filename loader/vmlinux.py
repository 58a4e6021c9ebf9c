"""The PVH capability of the vmlinux inside a bzImage, from as little of it as needed.

Owns unpacking up to the notes and no further: they lie in the first half of a vmlinux. Must not
know: how a stream is decoded, nor how notes are laid out (loader/elfnotes.py).
"""

from __future__ import annotations

import contextlib
from typing import Final

from bootproof.loader.elfheader import ElfHeader
from bootproof.loader.elfnotes import NoteSegment, PvhNotes
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify_bytes
from bootproof.loader.image import ImageSource, open_image
from bootproof.loader.packing import Output, Unpack, decode
from bootproof.loader.payload import Payload
from bootproof.loader.result import PvhBootCapability
from bootproof.loader.segments import PT_LOAD, PT_NOTE, ProgramHeader

# The program headers of a kernel lie right behind its ELF header; 64 KiB holds over a thousand.
_HEADERS: Final = 64 << 10


def pvh_of_payload(kernel: ImageSource, payload: Payload, *, limit: int) -> PvhBootCapability:
    """The PVH capability that the vmlinux in `payload` of the bzImage `kernel` would have.

    Raises an `UnpackError` when the payload cannot be unpacked or is no ELF file, and the `Elf`
    errors for broken notes.
    """
    head = _unpack_head(kernel, payload, limit, _HEADERS)
    if identify_bytes(memoryview(head)).format is not Format.ELF or len(head) < ElfHeader.SIZE:
        at = payload.offset
        what = f"the payload at {at:#x} holds no vmlinux"
        raise Unpack.Unrecognised(what, field="payload", offset=at)
    _, segments = _note_segments(head)
    end = max((segment.offset + segment.size for segment in segments), default=0)
    if end > len(head):
        head = _unpack_head(kernel, payload, limit, end)
    return pvh_capability(open_image(head, kernel.name))


def pvh_capability(vmlinux: ImageSource) -> PvhBootCapability:
    """The PVH capability without an offset of an ELF kernel, or of its beginning with all notes.

    Raises the `Elf` errors for broken notes.
    """
    alignment, segments = _note_segments(vmlinux.data)
    notes = PvhNotes(vmlinux)
    for segment in segments:
        notes.scan(segment)
    return notes.capability(alignment)


def _note_segments(head: bytearray | memoryview) -> tuple[int, list[NoteSegment]]:
    """The largest alignment of a PT_LOAD, and the PT_NOTE segments, of an ELF file's beginning."""
    header = ElfHeader.from_bytes(head)
    # Bytes, not a view, as in loader/elf.py.
    table = bytes(head[header.e_phoff : header.e_phoff + header.e_phnum * ProgramHeader.SIZE])
    whole = len(table) - len(table) % ProgramHeader.SIZE
    alignment, notes = 0, []
    for index, row in enumerate(ProgramHeader.CODEC.iter_unpack(table[:whole])):
        p_type, _, p_offset, _, _, p_filesz, _, p_align = row
        if p_type == PT_LOAD:
            alignment = max(alignment, p_align)
        elif p_type == PT_NOTE:
            notes.append(NoteSegment(index, p_offset, p_filesz))
    return alignment, notes


class _EnoughError(Exception):
    """Ends a decoder from within its output."""


def _unpack_head(kernel: ImageSource, payload: Payload, limit: int, size: int) -> bytearray:
    """At least the first `size` unpacked bytes of `payload`, or all there are."""
    head = bytearray()

    def sink(chunk: bytes) -> None:
        head.extend(chunk)
        if len(head) >= size:
            raise _EnoughError

    packed = payload.stream(kernel.name, kernel.data)
    with contextlib.suppress(_EnoughError):
        decode(packed, Output(sink, packed, limit=limit))
    return head
