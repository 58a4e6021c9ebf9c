"""What a boot image hands to its kernel, read back out of RAM: command line, memory map, loader.

The way round from the protocol modules, for images that another program has made: it follows the
registers and trusts nothing that it finds. What cannot be read is None.

Sources: Documentation/arch/x86/zero-page.rst and boot.rst; Xen's start_info.h; Devicetree
Specification v0.4, chapter 5.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from bootproof.loader import device_tree
from bootproof.loader.address import Range
from bootproof.loader.arch import Registers
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.device_tree import DeviceTree, DeviceTreeError
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import acpi_found
from bootproof.loader.protocols.e820 import E820_RAM, LEGACY_HOLE

_PAGE: Final = 0x1000
_TEXT_LIMIT: Final = 1 << 16
_MOST_ENTRIES: Final = 128  # E820_MAX_ENTRIES_ZEROPAGE; also what is asked of other maps

# Offsets within struct boot_params.
_ACPI_RSDP_ADDR: Final = 0x70
_EXT_CMD_LINE_PTR, _E820_ENTRIES, _TYPE_OF_LOADER, _EXT_LOADER_TYPE = 0xC8, 0x1E8, 0x210, 0x227
_CMD_LINE_PTR, _PAYLOAD_LENGTH, _E820_TABLE = 0x228, 0x24C, 0x2D0
# Offsets within struct hvm_start_info.
_PVH_CMDLINE, _PVH_RSDP, _PVH_MEMMAP, _PVH_MEMMAP_ENTRIES = 24, 32, 40, 48
_EXTENDED_TYPE: Final = 0xE  # boot.rst, type_of_loader: the number is in ext_loader_type


@dataclass(frozen=True, slots=True)
class Handed:
    """`ram` is the System RAM that the kernel will make of its memory map, None where the machine
    tells it; `loader_type` what /proc/sys/kernel/bootloader_type must read; `unpacks` says that the
    kernel decompresses itself; `label` the request in a device tree of ours; `cpus` how many CPUs
    ACPI tables or device tree tell of, None where there is neither.
    """

    cmdline: str | None = None
    ram: tuple[Range, ...] | None = None
    loader_type: int | None = None
    unpacks: bool = False
    label: str | None = None
    cpus: int | None = None


def read(protocol: str, registers: Registers, memory: GuestMemory) -> Handed:
    """What a kernel that is entered with `registers` is given. Raises nothing for what is wrong."""
    reader = _READERS.get(protocol)
    return reader(registers, memory) if reader else Handed()


def _linux(registers: Registers, memory: GuestMemory) -> Handed:
    assert isinstance(registers, X86Registers)
    page = _bytes(memory, registers.rsi, _PAGE)
    if page is None:
        return Handed()
    pointer = _u32(page, _CMD_LINE_PTR) | _u32(page, _EXT_CMD_LINE_PTR) << 32
    table = page[_E820_TABLE : _E820_TABLE + 20 * min(page[_E820_ENTRIES], _MOST_ENTRIES)]
    type_ = page[_TYPE_OF_LOADER]
    if type_ >> 4 == _EXTENDED_TYPE:
        type_ = type_ & 0xF | page[_EXT_LOADER_TYPE] + 0x10 << 4
    return Handed(
        cmdline=_text(memory, pointer),
        ram=_usable(struct.iter_unpack("<QQI", table)),
        loader_type=type_,
        unpacks=bool(_u32(page, _PAYLOAD_LENGTH)),
        cpus=_acpi_cpus(memory, _u64(page, _ACPI_RSDP_ADDR)),
    )


def _pvh(registers: Registers, memory: GuestMemory) -> Handed:
    assert isinstance(registers, X86Registers)
    info = _bytes(memory, registers.rbx, 56)
    if info is None:
        return Handed()
    entries = min(_u32(info, _PVH_MEMMAP_ENTRIES), _MOST_ENTRIES)
    table = _bytes(memory, _u64(info, _PVH_MEMMAP), 24 * entries) or b""
    rows = ((start, size, kind) for start, size, kind, _ in struct.iter_unpack("<QQII", table))
    return Handed(
        cmdline=_text(memory, _u64(info, _PVH_CMDLINE)),
        ram=_usable(rows),
        loader_type=0xB0,  # set by the kernel's own PVH entry
        cpus=_acpi_cpus(memory, _u64(info, _PVH_RSDP)),
    )


def _arm64(registers: Registers, memory: GuestMemory) -> Handed:
    assert isinstance(registers, Arm64Registers)
    address = registers.x[0]
    head = _bytes(memory, address, 8)
    size = int.from_bytes(head[4:], "big") if head else 0
    try:
        raw = _bytes(memory, address, size) if size <= device_tree.DTB_MAX else None
        tree = DeviceTree.parse(raw or b"")
    except DeviceTreeError:
        return Handed()
    return Handed(
        cmdline=_decoded(tree.chosen.get(b"bootargs")),
        label=_decoded(tree.chosen.get(device_tree.LABEL)),
        cpus=tree.cpus,
    )


def _acpi_cpus(memory: GuestMemory, rsdp: int) -> int | None:
    if not rsdp:
        return None
    return acpi_found.follow(lambda address, size: _bytes(memory, address, size), rsdp).cpus


_READERS: Final[Mapping[str, Callable[[Registers, GuestMemory], Handed]]] = {
    "linux64": _linux,
    "linux32": _linux,
    "pvh": _pvh,
    "arm64": _arm64,
}


def _usable(rows: Iterable[tuple[int, ...]]) -> tuple[Range, ...]:
    """RAM as x86 kernels take it: without page 0 and what lies below 1 MiB for VGA and ROMs."""
    found = []
    for start, size, kind in rows:
        if kind == E820_RAM and size:
            found += [Range(start, size)]
    for hole in (Range(0, _PAGE), LEGACY_HOLE):
        found = [part for area in found for part in _without(area, hole)]
    return tuple(sorted(found))


def _without(area: Range, hole: Range) -> list[Range]:
    if not area.overlaps(hole):
        return [area]
    below = Range(area.start, max(0, hole.start - area.start))
    above = Range.between(min(hole.end, area.end), area.end)
    return [part for part in (below, above) if part.size]


def _bytes(memory: GuestMemory, address: int, size: int) -> bytes | None:
    return memory.read(address, size) if memory.contains(address, size) else None


def _text(memory: GuestMemory, address: int) -> str | None:
    """The NUL-terminated string at a guest-physical address."""
    if not address:
        return None
    data = b""
    while len(data) < _TEXT_LIMIT:
        byte_count = _PAGE - (address + len(data)) % _PAGE
        chunk = _bytes(memory, address + len(data), byte_count)
        if chunk is None:
            return None
        text, end, _ = chunk.partition(b"\0")
        data += text
        if end:
            return _decoded(data)
    return None


def _decoded(data: bytes | None) -> str | None:
    """As /proc/cmdline reads in the guest's own words: a blank at either end is lost there."""
    if data is None:
        return None
    return data.rstrip(b"\0").decode("utf-8", "backslashreplace").strip(" \t")


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")
