"""What lies at the first instruction: something, and inside the kernel. For every protocol."""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import PAGE, Range, align_down
from bootproof.loader.arch import R
from bootproof.loader.formats import Format
from bootproof.loader.imageheader import ImageHeader
from bootproof.loader.rules import Findings, Hardware, documents, violation

_LOOKED_AT: Final = 16
_IMAGE_ALIGNMENT: Final = 2 << 20


def held_at(hardware: Hardware[R], address: int, section: str) -> Findings:
    """For the guest-physical address of the first instruction."""
    code = hardware.read(address, _LOOKED_AT)
    if code is None:
        what = f"the CPU starts at {address:#x}, which is not RAM{hardware.ram_text}"
        yield violation("entry", what, section, address=address)
    elif not any(code):
        what = f"the CPU starts at {address:#x}, where there are only zeros"
        yield violation("entry", what, section, address=address)
    kernel = hardware.footprint
    if kernel is not None and not kernel.contains(Range(address, 1)):
        what = f"the CPU starts at {address:#x}, outside of the region 'kernel' {kernel}"
        yield violation("entry", what, documents.BOOT_IMAGE, address=address)


def image_at(hardware: Hardware[R], address: int, magic: int) -> ImageHeader | None:
    """The header of an Image, which begins with the first instruction."""
    raw = hardware.read(address, ImageHeader.SIZE)
    header = ImageHeader.from_bytes(raw) if raw else None
    return header if header and header.magic == magic else None


def no_image(hardware: Hardware[R], pc: int, magic: int, section: str) -> Findings:
    """For a first instruction with no Image there: whether it is in the middle of one, or where a
    file begins that is no code, as it was read from a disk.
    """
    if file := _file_at(hardware, pc):
        what = f"the CPU starts at {pc:#x}, where {file} begins, and no code"
        yield violation("entry", what, section, address=pc)
        return
    kernel = hardware.footprint
    bases = {align_down(pc, _IMAGE_ALIGNMENT), *([kernel.start] if kernel else [])}
    for base in sorted(bases):
        header = image_at(hardware, base, magic)
        if header and base < pc < base + header.image_size:
            what = f"the CPU starts at {pc:#x}, {pc - base:#x} bytes into the image at {base:#x}"
            yield violation("entry", what, section, address=pc, limit=base)


def _file_at(hardware: Hardware[R], address: int) -> str | None:
    """What a file is that begins there, if one does that must be unpacked before it can run."""
    from bootproof.loader import identify, otherfiles  # few entries are of no Image

    head = memoryview(hardware.read(address, PAGE) or hardware.read(address, _LOOKED_AT) or b"")
    found = identify.identify_bytes(head)
    if found.format is Format.IMAGE:
        return f"an Image for {found.arch}"
    if found.format in (Format.UNKNOWN, Format.LZMA):  # which has no magic: code may begin so
        other = otherfiles.by_magic(head)
        return other.what if other else None
    return f"a file in the format {found.format}"
