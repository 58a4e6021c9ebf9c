"""What a kernel finds at the address of its initrd: an archive, packed or not, that is all there.

Looks at its beginning, and at the headers of an archive that is not packed. Pure.

Sources: Documentation/driver-api/early-userspace/buffer-format.rst; lib/decompress.c and
init/do_mounts_rd.c of the kernel for what else may be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from bootproof.loader.address import MIB, PAGE, U32_MAX, Range, align_down, align_up
from bootproof.loader.boot_parameters import Read
from bootproof.loader.packing.kinds import lacking_in_kernels, sniff
from bootproof.loader.rules import Findings, RuleFinding, documents, violation

CODE: Final = "initrd"
Grade = Callable[..., RuleFinding]

_HEADER: Final = re.compile(rb"07070[12]([0-9A-Fa-f]{104})")
_HEADER_SIZE: Final = 110
_WITH_SUMS: Final = b"070702"
_KIND, _REGULAR = 0o170000, 0o100000  # of a mode
_TRAILER: Final = b"TRAILER!!!\0"
_NAME_MAX: Final = 4096
_MOST_ZEROS: Final = 4 * MIB
_MOST_MEMBERS: Final = 1 << 12
# File systems that old kernels take for a RAM disk: offset and magic (init/do_mounts_rd.c).
_FILE_SYSTEMS: Final = (
    *((0, b"hsqs"), (0, b"-rom1fs-"), (0, b"\x45\x3d\xcd\x28"), (0x200, b"\x45\x3d\xcd\x28")),
    *((0x410, b"\x7f\x13"), (0x410, b"\x8f\x13"), (0x438, b"\x53\xef")),
)


def check(read: Read, place: Range, pointer: str, unknown: Grade = violation) -> Findings:
    """`unknown` makes the finding for bytes that Linux does not take for an initrd."""
    first = read(place.start, min(PAGE, place.size))
    if not first:
        return  # not in RAM: said of the piece
    where = f"the initrd at {place} ({pointer})"
    begin = _behind_zeros(read, place)
    if begin is None:
        what = f"{where} begins with {len(first):#x} zeros"
        yield violation(CODE, what, documents.INITRAMFS, address=place.start)
        return
    rest = Range.between(begin, place.end)
    head = read(begin, min(PAGE, rest.size)) or b""
    if _HEADER.match(head):
        yield from _archive(read, rest, where)
    elif not _is_packed(head) and not _is_file_system(first):
        lacking = lacking_in_kernels(memoryview(head.lstrip(b"\0")))
        why = lacking or "no archive, and not packed as kernels do"
        what = f"{where} begins with {head[:8].hex(' ')}: {why}"
        yield unknown(CODE, what, documents.INITRAMFS, address=place.start)


def _behind_zeros(read: Read, place: Range) -> int | None:
    """Where an archive may begin behind the zeros that may come first; None with nothing there."""
    for at in range(place.start, place.start + min(place.size, _MOST_ZEROS), PAGE):
        rest = (read(at, min(PAGE, place.end - at)) or b"").lstrip(b"\0")
        if rest:
            behind = min(at + PAGE, place.end) - len(rest)
            return place.start + align_down(behind - place.start, 4)
    return None


def _is_packed(head: bytes) -> bool:
    """What is packed may begin anywhere behind zeros, unlike an archive."""
    rest = memoryview(head.lstrip(b"\0"))
    return sniff(rest) is not None and not lacking_in_kernels(rest)


def _is_file_system(head: bytes) -> bool:
    return any(head.startswith(magic, offset) for offset, magic in _FILE_SYSTEMS)


def _archive(read: Read, place: Range, where: str) -> Findings:
    """Follows the members of a cpio archive to its trailer."""
    at = place.start
    for _ in range(_MOST_MEMBERS):
        header = _HEADER.match(read(at, _HEADER_SIZE) or b"") if at < place.end else None
        if header is None:
            yield violation(
                CODE,
                f"{where} is cut or overwritten: its archive has no member at {at:#x} and no"
                " trailer before",
                documents.INITRAMFS,
                address=at,
            )
            return
        numbers = [int(header.group(1)[i : i + 8], 16) for i in range(0, 104, 8)]
        size, name_size = numbers[6], numbers[11]
        name = read(at + _HEADER_SIZE, min(name_size, _NAME_MAX)) or b""
        content = place.start + align_up(at + _HEADER_SIZE + name_size - place.start, 4)
        at = place.start + align_up(content + size - place.start, 4)
        summed = header[0].startswith(_WITH_SUMS) and numbers[1] & _KIND == _REGULAR
        if summed and sum(read(content, size) or b"") & U32_MAX != numbers[12]:
            what = f"{where} has a file at {content:#x} that is not as its checksum says"
            yield violation(CODE, what, documents.INITRAMFS, address=content)
            return
        if name == _TRAILER:
            break
    if at > align_up(place.end, 4):
        what = f"{where} is cut: its archive goes on to {at:#x}"
        yield violation(CODE, what, documents.INITRAMFS, address=place.end, limit=at)
