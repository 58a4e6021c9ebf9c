"""Reads initramfs archives as the kernel unpacks them, and says where one is not what it should be.

Owns: how archives follow one another, packed or not, what a member is, and where it would be
written. Must not know: what is in our own archive, but for the directory that is its own (that is
loader/initramfs.py's), nor how a stream is decoded (loader/packing).

Source: Documentation/driver-api/early-userspace/buffer-format.rst and init/initramfs.c of the
kernel; Documentation/admin-guide/bootconfig.rst for what may lie behind the last archive.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Generator, Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader import programs
from bootproof.loader.address import counted
from bootproof.loader.errors import LoaderError
from bootproof.loader.initramfs import MAGIC, TRAILER
from bootproof.loader.packing import Output, Packed, decode, lacking_in_kernels, sniff
from bootproof.loader.programs import Item

_WITH_SUMS: Final = b"070702"
_MAGICS: Final = (MAGIC, _WITH_SUMS)
_OLD: Final = (b"070707", b"\xc7\x71", b"\x71\xc7")
_HEADER: Final = re.compile(rb"07070[12]([0-9A-Fa-f]{104})")
_HEADER_SIZE: Final = 110
# Of the header's thirteen numbers.
_INODE, _MODE, _LINKS, _SIZE, _MAJOR, _MINOR, _NAME_SIZE, _CHECK = 0, 1, 4, 6, 7, 8, 11, 12
_MOST_UNPACKED: Final = 1 << 30
_NOT_ZERO: Final = re.compile(rb"[^\0]")
_BOOTCONFIG: Final = b"#BOOTCONFIG\n"
_BOOTCONFIG_FOOT: Final = struct.Struct("<II")  # size and checksum, before the magic


class InitramfsError(LoaderError):
    """Base of everything that is wrong with an initramfs."""

    code = "Initramfs"
    summary = "the initramfs cannot be unpacked"


class Initramfs:
    """The reasons, by name: `Initramfs.Truncated` has the code `Initramfs::Truncated`."""

    class NotAnArchive(InitramfsError):
        """Bytes that are neither a cpio archive nor packed as kernels unpack them."""

        code = "Initramfs::NotAnArchive"
        summary = "it is no cpio archive"

    class Truncated(InitramfsError):
        """An archive ends before its trailer."""

        code = "Initramfs::Truncated"
        summary = "the archive is incomplete"

    class Damaged(InitramfsError):
        """A member's content is not what its checksum was made of."""

        code = "Initramfs::Damaged"
        summary = "a member is damaged"

    class Reserved(InitramfsError):
        """A member would be written where the proof's own files are."""

        code = "Initramfs::Reserved"
        summary = "a member would replace the proof's own files"


@dataclass(frozen=True, slots=True)
class Member:
    """One member; `data` is a file's content or a symbolic link's target."""

    offset: int  # of its header, in bytes
    path: bytes
    mode: int
    data: memoryview
    # What names of one file have in common: where their archive begins, and what it calls the file
    # (init/initramfs.c, find_link).
    inode: tuple[int, int, int, int]
    links: int


# Gives the members, each with what it is packed in, and returns the offset behind them.
_Members = Generator[tuple[str, Member], None, int]


def check(data: bytes, name: str, reserved: str) -> bool:
    """Whether there is an /init.

    Raises unless a kernel would unpack `data`, and write nothing below /`reserved`.

    That no name and no link has `reserved` in it is enough for that, and as long as links may lead
    to the root directory, nothing less is. `name` is the file's. Raises an `InitramfsError`, or an
    `UnpackError` for what is packed.
    """
    has_init = False
    for where, member in _members(memoryview(data)[: _end(data)], name):
        has_init |= [*filter(None, member.path.split(b"/"))] in ([b"init"], [b".", b"init"])
        target = bytes(member.data).partition(b"\0")[0] if stat.S_ISLNK(member.mode) else b""
        if reserved.encode() in (*member.path.split(b"/"), *target.split(b"/")):
            shown = member.path.decode("utf-8", "backslashreplace")
            raise Initramfs.Reserved(
                f"{where}the member {shown!r} at {member.offset:#x} could replace bootproof's own"
                f" init, which is in /{reserved}",
                file=name,
                offset=member.offset,
                advice="give it another name",
            )
    return has_init


def items(data: bytes, name: str) -> Iterator[Item]:
    """What becomes of each member, with no more of its content than tells what program it is.

    Raises as `check`.
    """
    for where, member in _members(memoryview(data)[: _end(data)], name):
        kept = programs.HEAD if member.mode & 0o111 else 0
        target = stat.S_ISLNK(member.mode)
        head = bytes(member.data).partition(b"\0")[0] if target else bytes(member.data[:kept])
        several = member.links > 1 and stat.S_ISREG(member.mode)
        inode = (where, *member.inode) if several else None
        yield Item(member.path, member.mode, len(member.data), head, inode)


def _end(data: bytes) -> int:
    """Where the archives end: before a boot configuration, if there is one."""
    foot = len(data) - len(_BOOTCONFIG) - _BOOTCONFIG_FOOT.size
    if foot < 0 or not data.endswith(_BOOTCONFIG):
        return len(data)
    size: int = _BOOTCONFIG_FOOT.unpack_from(data, foot)[0]
    return max(0, foot - size)


def _members(data: memoryview, name: str) -> Iterator[tuple[str, Member]]:
    """Every member, and in what it is packed ("" for nothing): archives follow one another."""
    at = _skip_zeros(data, 0)
    while at < len(data):
        if data[at] == ord("0") and at % 4 == 0:
            at = yield from _archive(data, at, name, "")
        else:
            at = yield from _packed(data, at, name)
        at = _skip_zeros(data, at)


def _packed(data: memoryview, at: int, name: str) -> _Members:
    packing = sniff(data, at)
    if packing is None or lacking_in_kernels(data, at):
        raise _not_an_archive(data, at, name)
    packed = Packed(name, data, at, len(data), packing)
    inner = bytearray()
    end = decode(packed, Output(inner.extend, packed, limit=_MOST_UNPACKED))
    view, inside = memoryview(inner), 0
    where = f"in the {packing} stream at {at:#x}: "
    while inside < len(view):
        if view[inside] != ord("0") or inside % 4:
            raise _not_an_archive(view, inside, name, where)
        inside = yield from _archive(view, inside, name, where)
        inside = _skip_zeros(view, inside)
    return end


def _archive(data: memoryview, at: int, name: str, where: str) -> _Members:
    """The members of the archive at `at`; gives the offset behind its trailer."""
    start = at
    while True:
        member, at = _member(data, at, name, where, start)
        if member.path == TRAILER and not stat.S_ISLNK(member.mode):
            return at
        yield where, member


def _member(data: memoryview, at: int, name: str, where: str, start: int) -> tuple[Member, int]:
    header = _HEADER.fullmatch(bytes(data[at : at + _HEADER_SIZE]))
    if header is None:
        if len(data) - at < _HEADER_SIZE and (not len(data) - at or _begins(data, at)):
            raise _truncated(len(data), name, where)
        raise _not_an_archive(data, at, name, where)
    digits = header.group(1)
    numbers = [int(digits[i : i + 8], 16) for i in range(0, len(digits), 8)]
    name_at = at + _HEADER_SIZE
    name_end = name_at + numbers[_NAME_SIZE]
    content = _aligned(name_end)
    end = content + numbers[_SIZE]
    if (end if numbers[_SIZE] else name_end) > len(data):
        raise _truncated(len(data), name, where)
    path = bytes(data[name_at:name_end])
    if not path.endswith(b"\0"):
        raise _not_an_archive(data, name_at, name, where)
    inode = start, numbers[_INODE], numbers[_MAJOR], numbers[_MINOR]
    what = numbers[_MODE], data[content:end], inode, numbers[_LINKS]
    member = Member(at, path.partition(b"\0")[0], *what)
    summed = header[0].startswith(_WITH_SUMS) and stat.S_ISREG(member.mode)
    if summed and sum(member.data) & 0xFFFFFFFF != numbers[_CHECK]:
        raise _wrong_sum(at, name, where)
    return member, _aligned(end)


def _begins(data: memoryview, at: int) -> bool:
    rest = bytes(data[at : at + len(MAGIC)])
    return any(magic.startswith(rest) or rest == magic for magic in _MAGICS)


def _truncated(at: int, name: str, where: str) -> InitramfsError:
    return Initramfs.Truncated(
        f"{where}the cpio archive breaks off at {at:#x}, before its trailer",
        file=name,
        offset=at,
        advice="the file is incomplete: copy or make it again",
    )


def _wrong_sum(at: int, name: str, where: str) -> InitramfsError:
    return Initramfs.Damaged(
        f"{where}the content of the member at {at:#x} is not as its checksum says",
        file=name,
        offset=at,
        advice="the file is damaged: copy or make it again",
    )


def _not_an_archive(data: memoryview, at: int, name: str, where: str = "") -> InitramfsError:
    begin = bytes(data[at : at + 6])
    advice = "give a cpio archive (cpio -H newc), packed or not, or several one after the other"
    if lacking := "" if where else lacking_in_kernels(data, at):
        advice = lacking
    elif begin in _MAGICS:
        zeros = counted(-at % 4, "zero byte")
        advice = f"kernels want archives at multiples of 4: put {zeros} before it"
    elif begin.startswith(_OLD):
        advice = "this is an older cpio format: make it with cpio -H newc"
    return Initramfs.NotAnArchive(
        f"{where}no cpio archive begins at {at:#x} (there is {begin.hex(' ')})",
        file=name,
        offset=at,
        advice=advice,
    )


def _skip_zeros(data: memoryview, at: int) -> int:
    found = _NOT_ZERO.search(data, at)
    return found.start() if found else len(data)


def _aligned(offset: int) -> int:
    return -(-offset // 4) * 4
