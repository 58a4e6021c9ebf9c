"""A vmlinux that runs at another virtual address than the one it was linked for.

What the decompressor of a bzImage does for KASLR, done by the loader: the payload of a bzImage has,
behind the ELF file, a table of every place that holds a virtual address. linux-loader has no such
thing (rust-vmm/rust-vmm issue 84).

Source: Linux's arch/x86/boot/compressed/misc.c (handle_relocations) and kaslr.c, arch/x86/tools/
relocs.c. From the end of the table backwards: 32-bit places, zero; until Linux 6.15 places that
count downwards (inverse 32-bit), zero; 64-bit places, zero. Each is a virtual address that is 32
bits wide, sign-extended.
"""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import GIB, MIB, U32_MAX, U64_MAX, Range, align_down
from bootproof.loader.elfheader import ElfHeader
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify_bytes
from bootproof.loader.image import ImageSource
from bootproof.loader.memory import AddressSpace, GuestMemory
from bootproof.loader.protocols import linux64
from bootproof.loader.result import KernelLoaderResult, PvhBootCapability, PvhState
from bootproof.loader.segments import ProgramHeader

ALIGNMENT: Final = 2 * MIB  # CONFIG_PHYSICAL_ALIGN; page tables have pages of this size
KERNEL_MAP: Final = 0xFFFFFFFF80000000  # __START_KERNEL_map: guest-virtual, of guest-physical 0
KERNEL_IMAGE_SIZE: Final = GIB  # behind it there are the modules

_SIGN: Final = 0xFFFFFFFF00000000


class VirtualKaslrError(LoaderError):
    """A kernel that cannot be moved to this virtual address."""

    code = "VirtualKaslr::NotRelocatable"


@dataclass(frozen=True, slots=True)
class VirtualMove:
    """How far above its linked virtual address a kernel is to run: in bytes, or by a seed."""

    offset: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Relocations:
    """The places that hold an address, as the low 32 bits of their own virtual addresses."""

    wide: Sequence[int]  # 64 bits
    inverse: Sequence[int]  # 32 bits, from which the offset is subtracted
    narrow: Sequence[int]  # 32 bits


def read_relocations(source: ImageSource) -> Relocations:
    """The table behind an ELF file. Raises VirtualKaslrError for a file without one."""
    end = _elf_end(source)
    table = bytes(source.data[end:])
    words = array("I", table[: len(table) // 4 * 4])
    zeros = [index for index, word in enumerate(words) if not word]
    if len(zeros) not in (2, 3) or zeros[0] != 0 or len(words) == len(zeros):
        raise VirtualKaslrError(
            "the kernel has no relocation table behind its ELF file, so that it cannot run at"
            " another virtual address",
            field="relocations",
            offset=end,
            advice="give the bzImage it comes from, built with CONFIG_RANDOMIZE_BASE",
        )
    parts = [words[start + 1 : stop] for start, stop in zip(zeros, [*zeros[1:], None], strict=True)]
    wide, *inverse, narrow = parts
    return Relocations(wide, inverse[0] if inverse else (), narrow)


def moved(
    kernel: KernelLoaderResult, source: ImageSource, memory: GuestMemory, move: VirtualMove
) -> KernelLoaderResult:
    """A vmlinux that was loaded into `memory`, relocated there; it can be entered by linux64 only.

    Raises VirtualKaslrError naming what is allowed; memory is unchanged then.
    """
    if (
        identify_bytes(source.data).format is not Format.ELF
        or linux64.NAME not in kernel.entry_points
    ):
        what = "only a vmlinux of x86_64 is moved to another virtual address by its loader"
        advice = "unpack the kernel to that (--format elf)"
        raise VirtualKaslrError(what, field="format", advice=advice)
    relocations = read_relocations(source)
    linked = Range(kernel.footprint.start - kernel.moved_by, kernel.footprint.size)
    offset = _offset(move, linked)
    patches = _patches(relocations, linked, offset)
    if not isinstance(memory, AddressSpace):
        _apply(memory, kernel.footprint, patches)
    return replace(
        kernel,
        entry_points={linux64.NAME: kernel.entry_points[linux64.NAME]},
        pvh_boot_cap=PvhBootCapability(PvhState.IGNORED),
        virtual_start=KERNEL_MAP + linked.start + offset,
    )


def _elf_end(source: ImageSource) -> int:
    """Where the ELF file ends by its own headers."""
    data = source.data
    header = ElfHeader.from_bytes(data)
    ends = [header.e_shoff + header.e_shnum * header.e_shentsize]
    for number in range(header.e_phnum):
        at = header.e_phoff + number * ProgramHeader.SIZE
        if at + ProgramHeader.SIZE <= len(data):
            segment = ProgramHeader.from_bytes(data, at)
            ends.append(segment.p_offset + segment.p_filesz)
    return min(max(ends), len(data))


def _offset(move: VirtualMove, linked: Range) -> int:
    most = align_down(max(KERNEL_IMAGE_SIZE - linked.end, 0), ALIGNMENT)
    if move.offset is None:
        slots = most // ALIGNMENT
        digest = hashlib.sha256(f"bootproof {move.seed}".encode()).digest()
        return ALIGNMENT * (1 + int.from_bytes(digest, "big") % slots) if slots else 0
    if move.offset % ALIGNMENT or not 0 <= move.offset <= most:
        raise VirtualKaslrError(
            f"the kernel cannot run {move.offset:#x} above its linked virtual address"
            f" {KERNEL_MAP + linked.start:#x}",
            field="virtual offset",
            value=move.offset,
            limit=most,
            advice=f"give a multiple of 2 MiB, at most {most:#x}",
        )
    return move.offset


# Where a place is in the kernel's own RAM, how many bytes it has, and what is added to it.
_Patches = list[tuple[int, int, int]]


def _patches(relocations: Relocations, linked: Range, offset: int) -> _Patches:
    groups: tuple[tuple[Iterable[int], int, int], ...] = (
        (relocations.wide, 8, offset),
        (relocations.inverse, 4, -offset),
        (relocations.narrow, 4, offset),
    )
    found = []
    base = KERNEL_MAP + linked.start
    for places, size, change in groups:
        for place in places:
            at = (_SIGN | place) - base
            if not 0 <= at <= linked.size - size:
                raise VirtualKaslrError(
                    f"the relocation table names the virtual address {_SIGN | place:#x}, where the"
                    " kernel has nothing",
                    field="relocations",
                    value=_SIGN | place,
                    advice="the file is damaged; get it again",
                )
            found.append((at, size, change))
    return found


def _apply(memory: GuestMemory, footprint: Range, patches: _Patches) -> None:
    data = bytearray(memory.read(footprint.start, footprint.size))
    narrow, wide = struct.Struct("<I"), struct.Struct("<Q")
    for at, size, change in patches:
        codec, mask = (wide, U64_MAX) if size == 8 else (narrow, U32_MAX)
        codec.pack_into(data, at, codec.unpack_from(data, at)[0] + change & mask)
    memory.write_sparse(footprint.start, bytes(data))
