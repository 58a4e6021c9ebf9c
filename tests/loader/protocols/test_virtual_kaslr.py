"""A vmlinux at another virtual address: its table is read and applied, or the file is refused."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import pytest

from bootproof.loader.address import MIB
from bootproof.loader.elf import Elf
from bootproof.loader.image import open_image
from bootproof.loader.memory import AddressSpace, GuestMemory
from bootproof.loader.protocols import ProtocolError, pvh, virtual_kaslr
from bootproof.loader.protocols.virtual_kaslr import (
    VirtualKaslrError,
    VirtualMove,
    moved,
    read_relocations,
)
from bootproof.loader.result import KernelLoaderResult, PvhState
from tests.builders.images import ElfFile, load, notes, pvh_entry

LINKED = 16 * MIB
WIDE, INVERSE, NARROW = 0x81000010, 0x81000020, 0x81000030
BEFORE = struct.pack("<QII", 0xFFFFFFFF81000000, 0x1000, 0x81000000)


def table(*groups: list[int]) -> bytes:
    words = [word for group in groups for word in (0, *group)]
    return struct.pack(f"<{len(words)}I", *words)


OLD = table([WIDE], [INVERSE], [NARROW])  # until Linux 6.15
NEW = table([WIDE], [NARROW])


def vmlinux(behind: bytes = OLD) -> bytes:
    code = bytearray(0x1000)
    struct.pack_into("<Q", code, 0x10, 0xFFFFFFFF81000000)
    struct.pack_into("<I", code, 0x20, 0x1000)
    struct.pack_into("<I", code, 0x30, 0x81000000)
    segments = (load(LINKED, bytes(code)), notes(pvh_entry(LINKED)))
    return replace(ElfFile(segments), entry=LINKED).build() + behind


def relocate(
    data: bytes, move: VirtualMove, *, offset: int | None = None
) -> tuple[KernelLoaderResult, tuple[Any, ...]]:
    """The result, and the three places: 64 bits, inverse, 32 bits."""
    with GuestMemory([(0, 64 * MIB)]) as memory, open_image(data) as source:
        kernel = Elf().load(memory, source, kernel_offset=offset)
        found = moved(kernel, source, memory, move)
        start = LINKED + (offset or 0)
        wide = struct.unpack("<Q", memory.read(start + 0x10, 8))
        inverse = struct.unpack("<I", memory.read(start + 0x20, 4))
        return found, (*wide, *inverse, *struct.unpack("<I", memory.read(start + 0x30, 4)))


@pytest.mark.parametrize("offset", [None, 2 * MIB])
def test_every_place_is_moved(offset: int | None) -> None:
    kernel, places = relocate(vmlinux(), VirtualMove(0x2000000), offset=offset)
    assert places == (0xFFFFFFFF83000000, (0x1000 - 0x2000000) & 0xFFFFFFFF, 0x83000000)
    assert kernel.virtual_start == 0xFFFFFFFF83000000
    assert dict(kernel.entry_points) == {"linux64": LINKED + (offset or 0)}
    assert kernel.pvh_boot_cap.state is PvhState.IGNORED
    with pytest.raises(ProtocolError, match="makes its page tables by where it was linked; enter"):
        pvh.entry_point(kernel)


def test_table_of_newer_kernels_has_no_inverse_places() -> None:
    _, places = relocate(vmlinux(NEW), VirtualMove(0x200000))
    assert places == (0xFFFFFFFF81200000, 0x1000, 0x81200000)


def test_a_seed_is_the_same_place_each_time() -> None:
    starts = {relocate(vmlinux(), VirtualMove(seed=seed))[0].virtual_start for seed in range(40)}
    assert len(starts) > 30
    assert all(start and start % (2 * MIB) == 0 for start in starts)
    lowest, highest = 0xFFFFFFFF81200000, virtual_kaslr.KERNEL_MAP + (1 << 30) - 2 * MIB
    assert all(start and lowest <= start <= highest for start in starts)
    again = relocate(vmlinux(), VirtualMove(seed=7))[0].virtual_start
    assert again == relocate(vmlinux(), VirtualMove(seed=7))[0].virtual_start


@pytest.mark.parametrize(
    ("behind", "move", "reason"),
    [
        (b"", VirtualMove(0x200000), "no relocation table"),
        (bytes(12), VirtualMove(0x200000), "no relocation table"),
        (table([WIDE], [], [], [NARROW]), VirtualMove(0x200000), "no relocation table"),
        (b"\1" + OLD, VirtualMove(0x200000), "no relocation table"),
        (table([0x81000FFC], [NARROW]), VirtualMove(0x200000), "0xffffffff81000ffc, where"),
        (table([WIDE], [0x1000]), VirtualMove(0x200000), "0xffffffff00001000, where"),
        (OLD, VirtualMove(0x1000), "a multiple of 2 MiB, at most 0x3ee00000"),
        (OLD, VirtualMove(1 << 30), "a multiple of 2 MiB, at most 0x3ee00000"),
        (OLD, VirtualMove(-(2 << 20)), "a multiple of 2 MiB"),
    ],
)
def test_refused(behind: bytes, move: VirtualMove, reason: str) -> None:
    """And nothing was written."""
    data = vmlinux(behind)
    with GuestMemory([(0, 64 * MIB)]) as memory, open_image(data) as source:
        kernel = Elf().load(memory, source)
        before = memory.read(LINKED, 0x1000)
        with pytest.raises(VirtualKaslrError) as refused:
            moved(kernel, source, memory, move)
        assert memory.read(LINKED, 0x1000) == before
    assert reason in str(refused.value)


def test_all_that_is_refused_is_foreseen_without_ram() -> None:
    with open_image(vmlinux(b"")) as source:
        kernel = Elf().load(AddressSpace([(0, 64 * MIB)]), source)
        with pytest.raises(VirtualKaslrError):
            moved(kernel, source, AddressSpace([(0, 64 * MIB)]), VirtualMove(0x200000))


def test_an_elf_for_another_machine_is_refused() -> None:
    data = replace(ElfFile((load(LINKED, b"x" * 64),)), machine=183).build() + OLD
    with GuestMemory([(0, 64 * MIB)]) as memory, open_image(data) as source:
        kernel = Elf().load(memory, source)
        with pytest.raises(VirtualKaslrError, match="only a vmlinux of x86_64"):
            moved(kernel, source, memory, VirtualMove(0x200000))


def test_tables_are_read_in_order() -> None:
    with open_image(vmlinux()) as source:
        found = read_relocations(source)
    assert [list(part) for part in (found.wide, found.inverse, found.narrow)] == [
        [WIDE],
        [INVERSE],
        [NARROW],
    ]
