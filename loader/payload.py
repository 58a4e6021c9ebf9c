"""Where the packed kernel lies inside a file, for each format that has one inside.

Owns: reading a container's own fields (bzImage, EFI zboot, unified kernel image, plain
compressed file) and checking them against the file.  Must not know: how a stream is
decoded, nor where the result goes.

Spec: Documentation/arch/x86/boot.rst (payload_offset, payload_length; protocol 2.08),
scripts/Makefile.lib (`size_append`), zboot-header.S and Makefile.zboot, the UAPI group's
UKI specification, RFC 1952 (ISIZE).
"""

from __future__ import annotations

from dataclasses import dataclass

from bootproof.loader.identify import PROTOCOL_2_08, Format, Identity, payload_start, setup_header
from bootproof.loader.packing import Packed, Packing, Unpack, sniff
from bootproof.loader.pecoff import PeFile, Section
from bootproof.loader.structures import SetupHeader
from bootproof.loader.zboot import PACKINGS, ZbootHeader

SIZE_WORD = 4
"""Bytes of the unpacked size that a kernel build puts behind a stream."""


@dataclass(frozen=True, slots=True)
class Payload:
    """`size` bytes at file offset `offset`: a compressed stream, or, without `packing`, the
    content itself.  `declared` and `declared_at` are as in `Packed`.
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


def locate(name: str, data: memoryview, identity: Identity) -> Payload:
    """The payload of a file that `identify` called `identity`.

    Raises `Unpack.NotPacked` for a loadable kernel, `.Unrecognised` for an unknown file, and
    `.BadHeader`, `.Unsupported`, `.Truncated` for containers that do not keep their word.
    """
    if identity.format.loadable and identity.format is not Format.BZIMAGE:
        raise Unpack.NotPacked(
            f"this is a loadable kernel ({identity.format}); nothing is packed inside",
            file=name,
            value=str(identity.format),
        )
    if identity.format is Format.UNKNOWN:
        raise _unrecognised(name, data, identity)
    if identity.format is Format.BZIMAGE:
        return _bzimage_payload(name, data)
    if identity.format is Format.ZBOOT:
        return _zboot_payload(name, data)
    if identity.format is Format.UKI:
        linux = uki_sections(name, data)[".linux"]
        return Payload(Format.UKI, None, linux.offset, linux.size)
    return _whole_file(data, identity)


def _unrecognised(name: str, data: memoryview, identity: Identity) -> Unpack.Unrecognised:
    begins = f"it begins with {bytes(data[:8]).hex(' ')}" if data else "it is empty"
    remark = identity.remark or begins
    return Unpack.Unrecognised(
        f"neither a kernel nor a packed kernel ({remark})",
        file=name,
        advice="give a vmlinux, bzImage, Image, zboot or unified kernel image, or one of "
        "them compressed",
    )


def _whole_file(data: memoryview, identity: Identity) -> Payload:
    if identity.packing is not Packing.GZIP or len(data) < SIZE_WORD:
        return Payload(identity.format, identity.packing, 0, len(data))
    at = len(data) - SIZE_WORD
    return Payload(identity.format, Packing.GZIP, 0, len(data), _word(data, at), at)


def _word(data: memoryview, offset: int) -> int:
    return int.from_bytes(data[offset : offset + SIZE_WORD], "little")


def _bzimage_payload(name: str, data: memoryview) -> Payload:
    header = setup_header(data)
    assert header is not None
    _check_names_payload(name, header)
    start, size = payload_start(header), header.payload_length
    _inside(name, data, start, size, "payload_offset, payload_length")
    packing = sniff(data, start)
    if packing is None:
        raise Unpack.Unrecognised(
            f"the payload at {start:#x} is in no packing that the kernel build uses (it begins "
            f"with {bytes(data[start : start + 8]).hex(' ')})",
            file=name,
            field="payload",
            offset=start,
        )
    if size <= SIZE_WORD:
        raise Unpack.BadHeader(
            f"payload_length is {size}, which holds nothing but the size word",
            file=name,
            field="payload_length",
            value=size,
        )
    at = start + size - SIZE_WORD
    # gzip's own trailer is that size word; behind every other stream the build appends one.
    stream_size = size if packing is Packing.GZIP else size - SIZE_WORD
    return Payload(Format.BZIMAGE, packing, start, stream_size, _word(data, at), at)


def _check_names_payload(name: str, header: SetupHeader) -> None:
    advice = "load the bzImage as it is"
    if header.version < PROTOCOL_2_08:
        raise Unpack.Unsupported(
            f"boot protocol {header.version >> 8}.{header.version & 0xFF:02} does not say where "
            "the payload is; that needs 2.08 (Linux 2.6.24)",
            file=name,
            field="version",
            value=header.version,
            limit=PROTOCOL_2_08,
            advice=advice,
        )
    if not header.payload_length:
        raise Unpack.Unsupported(
            "the setup header names no payload (payload_length is 0)",
            file=name,
            field="payload_length",
            value=0,
            advice=advice,
        )


def _zboot_payload(name: str, data: memoryview) -> Payload:
    header = ZbootHeader.from_bytes(data)
    start, size = header.payload_offset, header.payload_size
    _inside(name, data, start, size, "payload offset and size")
    allowed = PACKINGS.get(header.compression_name)
    if allowed is None:
        raise Unpack.Unsupported(
            f"the zboot header names the compression {header.compression_name!r}",
            file=name,
            field="compression type",
            offset=ZbootHeader.OFFSETS["compression"],
            value=header.compression_name,
            advice=f"known ones are {', '.join(PACKINGS)}",
        )
    packing = sniff(data[: start + size], start)
    if packing not in allowed:
        raise Unpack.BadHeader(
            f"the zboot header says {header.compression_name}, but the payload at {start:#x} "
            f"is {packing or 'of no known packing'}",
            file=name,
            field="compression type",
            offset=ZbootHeader.OFFSETS["compression"],
            value=header.compression_name,
        )
    at = start + size - (SIZE_WORD if packing is Packing.GZIP else 0)
    if at + SIZE_WORD > len(data):
        raise Unpack.Truncated(
            f"the size word of the payload, at {at:#x}, is missing",
            file=name,
            field="payload size",
            offset=at,
        )
    return Payload(Format.ZBOOT, packing, start, size, _word(data, at), at)


def uki_sections(name: str, data: memoryview) -> dict[str, Section]:
    """The sections of a unified kernel image that the default boot uses, by name.

    They are the base sections, overridden by those of the first profile.  Raises
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
        _inside(name, data, section.offset, section.size, f"section {section.name}")
    return sections


def _inside(name: str, data: memoryview, offset: int, size: int, field: str) -> None:
    if offset + size <= len(data):
        return
    raise Unpack.BadHeader(
        f"{field}: bytes {offset:#x}-{offset + size - 1:#x} lie outside the file of "
        f"{len(data):#x} bytes",
        file=name,
        field=field,
        offset=offset,
        value=offset + size,
        limit=len(data),
        advice="the file is incomplete or damaged: copy or download it again",
    )
