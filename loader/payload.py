"""Where the packed kernel lies inside a file, for each format that has one inside.

Owns: reading a container's own fields (bzImage, EFI zboot, unified kernel image, plain
compressed file) and checking them against the file. Must not know: how a stream is
decoded, nor where the result goes.

Spec: Documentation/arch/x86/boot.rst (payload_offset, payload_length; protocol 2.08),
scripts/Makefile.lib (`size_append`), zboot-header.S and Makefile.zboot, the UAPI group's
UKI specification, RFC 1952 (ISIZE).
"""

from __future__ import annotations

from bootproof.dataclass import dataclass
from bootproof.loader.errors import Facts
from bootproof.loader.formats import Format
from bootproof.loader.identify import Identity
from bootproof.loader.packing import Packed, Packing, Unpack, sniff
from bootproof.loader.pecoff import PeFile, Section
from bootproof.loader.setupheader import PROTOCOL_2_08, payload_start, setup_header
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.zboot import PACKINGS, ZbootHeader

SIZE_WORD = 4
"""Bytes of the unpacked size that a kernel build puts behind a stream."""


@dataclass(frozen=True, slots=True)
class Payload:
    """`size` bytes at file offset `offset`: a compressed stream, or, without `packing`, the
    content itself. `declared` and `declared_at` are as in `Packed`.
    """

    container: Format
    packing: Packing | None
    offset: int
    size: int
    declared: int | None = None
    declared_at: int | None = None

    def stream(self, name: str, data: memoryview) -> Packed:
        """The compressed stream in the file `name` with the bytes `data`."""
        assert self.packing is not None
        end = self.offset + self.size
        return Packed(name, data, self.offset, end, self.packing, self.declared, self.declared_at)


def locate(data: memoryview, identity: Identity) -> Payload:
    """The payload of a file that `identify` called `identity`.

    Raises `Unpack.NotPacked` for a loadable kernel, `.Unrecognised` for an unknown file, and
    `.BadHeader`, `.Unsupported`, `.Truncated` for containers that do not keep their word.
    """
    if identity.format.loadable and identity.format is not Format.BZIMAGE:
        what = f"this is a loadable kernel ({identity.format}); nothing is packed inside"
        raise Unpack.NotPacked(what, value=str(identity.format))
    if identity.format is Format.UNKNOWN:
        raise _unrecognised(data, identity)
    if identity.format is Format.BZIMAGE:
        return _bzimage_payload(data)
    if identity.format is Format.ZBOOT:
        return _zboot_payload(data)
    if identity.format is Format.UKI:
        linux = uki_sections(data)[".linux"]
        return Payload(Format.UKI, None, linux.offset, linux.size)
    # The size at the end of a gzip file is not relied on: of one that was cut off it is anything.
    return Payload(identity.format, identity.packing, 0, len(data))


def _unrecognised(data: memoryview, identity: Identity) -> Unpack.Unrecognised:
    begins = f"it begins with {bytes(data[:8]).hex(' ')}" if data else "it is empty"
    remark = identity.remark or begins
    what = f"neither a kernel nor a packed kernel ({remark})"
    advice = "give a vmlinux, bzImage, Image, zboot or unified kernel image, or one of them"
    return Unpack.Unrecognised(what, advice=identity.advice or f"{advice} compressed")


def _word(data: memoryview, offset: int) -> int:
    return int.from_bytes(data[offset : offset + SIZE_WORD], "little")


def _bzimage_payload(data: memoryview) -> Payload:
    header = setup_header(data)
    assert header is not None
    _check_names_payload(header)
    start, size = payload_start(header), header.payload_length
    _inside(data, start, size, "payload_offset, payload_length")
    packing = sniff(data, start)
    if packing is None:
        begins = f"it begins with {bytes(data[start : start + 8]).hex(' ')}"
        what = f"the payload at {start:#x} is in no packing that the kernel build uses ({begins})"
        raise Unpack.Unrecognised(what, field="payload", offset=start)
    if size <= SIZE_WORD:
        what = f"payload_length is {size}, which holds nothing but the size word"
        raise Unpack.BadHeader(what, field="payload_length", value=size)
    at = start + size - SIZE_WORD
    # gzip's own trailer is that size word; behind every other stream the build appends one.
    stream_size = size if packing is Packing.GZIP else size - SIZE_WORD
    return Payload(Format.BZIMAGE, packing, start, stream_size, _word(data, at), at)


def _check_names_payload(header: SetupHeader) -> None:
    if header.version < PROTOCOL_2_08:
        what = f"boot protocol {header.version >> 8}.{header.version & 0xFF:02} does not say where"
        needs = "the payload is; that needs 2.08 (Linux 2.6.24)"
        facts: Facts = {"field": "version", "value": header.version, "limit": PROTOCOL_2_08}
        raise Unpack.Unsupported(f"{what} {needs}", **facts)
    if not header.payload_length:
        what = "the setup header names no payload (payload_length is 0)"
        raise Unpack.Unsupported(what, field="payload_length", value=0)


def _zboot_payload(data: memoryview) -> Payload:
    header = ZbootHeader.from_bytes(data)
    start, size = header.payload_offset, header.payload_size
    _inside(data, start, size, "payload offset and size")
    name = header.compression_name
    facts: Facts = {"field": "compression type", "offset": ZbootHeader.OFFSETS["compression"]}
    facts |= {"value": name}
    allowed = PACKINGS.get(name)
    if allowed is None:
        what, advice = f"the zboot header names the compression {name!r}", ", ".join(PACKINGS)
        raise Unpack.Unsupported(what, **facts, advice=f"known ones are {advice}")
    packing = sniff(data[: start + size], start)
    if packing not in allowed:
        what = f"the zboot header says {name}, but the payload at {start:#x} is"
        raise Unpack.BadHeader(f"{what} {packing or 'of no known packing'}", **facts)
    at = start + size - (SIZE_WORD if packing is Packing.GZIP else 0)
    if at + SIZE_WORD > len(data):
        what = f"the size word of the payload, at {at:#x}, is missing"
        raise Unpack.Truncated(what, field="payload size", offset=at)
    return Payload(Format.ZBOOT, packing, start, size, _word(data, at), at)


def uki_sections(data: memoryview) -> dict[str, Section]:
    """The sections of a unified kernel image that the default boot uses, by name.

    They are the base sections, overridden by those of the first profile. Raises
    `Unpack.BadHeader` when one of them lies outside the file.
    """
    pe = PeFile.parse(data)
    base: dict[str, Section] = {}
    first_profile: dict[str, Section] = {}
    current = base
    for section in pe.sections(data) if pe else ():
        if section.name == ".profile":
            if current is first_profile:
                break
            current = first_profile
        # A section may repeat (.dtbauto); the first one counts.
        current.setdefault(section.name, section)
    sections = base | first_profile
    for section in sections.values():
        _inside(data, section.offset, section.size, f"section {section.name}")
    return sections


def _inside(data: memoryview, offset: int, size: int, field: str) -> None:
    if offset + size <= len(data):
        return
    end, most = offset + size, len(data)
    what = f"{field}: bytes {offset:#x}-{end - 1:#x} lie outside the file of {most:#x} bytes"
    facts: Facts = {"field": field, "offset": offset, "value": end, "limit": most}
    advice = "the file is incomplete or damaged: copy or download it again"
    raise Unpack.BadHeader(what, **facts, advice=advice)
