"""What the x86/HVM direct boot ABI demands.

Sources: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h; what Linux has no room for
is that of arch/x86/platform/pvh/enlighten.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from bootproof.loader.address import GIB, U32_MAX, Range, counted
from bootproof.loader.arch.x86_64 import CR0_ET, CR0_PE, CR0_PG, X86Registers
from bootproof.loader.boot_parameters import text_at
from bootproof.loader.rules import (
    Findings,
    Hardware,
    RuleFinding,
    documents,
    firmware,
    initrd,
    memory_map,
    pieces,
    tolerated,
    violation,
    x86,
    zero_page,
)
from bootproof.loader.rules.pieces import INITRD, Piece
from bootproof.loader.structures.start_info import (
    START_INFO_MAGIC,
    MemmapEntry,
    ModlistEntry,
    StartInfo,
)
from bootproof.loader.structures.zero_page import E820Entry

_DATA_SEGMENTS: Final = ("ds", "es")  # the stack is the kernel's own
_MOST_READ: Final = 1024  # entries of a list
_MOST_ENTRIES: Final = 128  # that Linux has room for
_COMMAND_LINE_SIZE: Final = 2048  # of Linux, with the NUL
Entry = TypeVar("Entry", MemmapEntry, ModlistEntry)


def pvh(hardware: Hardware[X86Registers]) -> Findings:
    r, section = hardware.registers, documents.PVH
    yield from x86.protected_mode_without_paging(r, section)
    more = r.cr0 & ~(CR0_PE | CR0_PG | CR0_ET)
    if more:
        what = f"cr0 is {r.cr0:#x}: of the bits that can be written, PE alone is to be set"
        yield tolerated("cr0-bits", what, section, value=r.cr0, limit=CR0_PE)
    if r.cr4:
        yield violation("cr4-zero", f"cr4 is {r.cr4:#x}, not 0", section, value=r.cr4, limit=0)
    yield from x86.flat_segments(r, section, _DATA_SEGMENTS)
    yield from x86.code_and_data(r, section, _DATA_SEGMENTS)
    base, limit, kind = r.tr.base, r.tr.limit, r.tr.attributes & 0xF
    if base or limit != 0x67 or kind not in (0x9, 0xB):
        found = f"TR is base {base:#x}, limit {limit:#x}, type {kind:#x}"
        wanted = "it must be a 32-bit TSS at 0 with limit 0x67"
        # QEMU's own loader leaves it as after reset, and no kernel minds.
        yield tolerated("task-register", f"{found}; {wanted}", section, value=limit, limit=0x67)
    yield from x86.flags_clear(r, ("VM", "IF", "TF"), section)
    yield from x86.entry(hardware, section)
    yield from x86.every_cpu(hardware)
    yield from _start_info(hardware, r.rbx & U32_MAX)


def _start_info(hardware: Hardware[X86Registers], address: int) -> Findings:
    raw, section = hardware.read(address, StartInfo.SIZE), documents.START_INFO
    if raw is None:
        what = f"EBX {address:#x} does not point to hvm_start_info in RAM"
        yield violation("start-info", what, documents.PVH, address=address)
        return
    info = StartInfo.from_bytes(raw)
    if info.magic != START_INFO_MAGIC:
        what = f"the magic of hvm_start_info is {info.magic:#x}"
        yield violation(
            "start-info-magic",
            *(what, section),
            address=address,
            value=info.magic,
            limit=START_INFO_MAGIC,
        )
        return
    if info.version and info.reserved:
        what = f"the last field of hvm_start_info, which must be 0, is {info.reserved:#x}"
        yield tolerated("start-info-reserved", what, section, value=info.reserved, limit=0)
    if info.version > 1:
        what = f"the version of hvm_start_info is {info.version}: kernels take it for 1"
        yield tolerated("start-info-version", what, section, value=info.version, limit=1)
    yield from _references(hardware, address, info)


def _references(hardware: Hardware[X86Registers], address: int, info: StartInfo) -> Findings:
    """Everything that the structure leads to."""
    size = StartInfo.SIZE if info.version else StartInfo.OFFSETS["memmap_paddr"]
    place = Range(address, size)
    found = list(pieces.kernel(hardware, ()))
    found.append(Piece("start_info", place, "EBX", documents.START_INFO, "start-info"))
    count = info.memmap_entries if info.version else 0
    rows = _entries(hardware, MemmapEntry, info.memmap_paddr, count)
    if rows:
        size = MemmapEntry.SIZE * len(rows)
        place = Range(info.memmap_paddr, size)
        found.append(Piece("memmap", place, "memmap_paddr", documents.START_INFO, "memmap"))
    modules = _entries(hardware, ModlistEntry, info.modlist_paddr, info.nr_modules)
    if modules:
        place = Range(info.modlist_paddr, ModlistEntry.SIZE * len(modules))
        found.append(Piece("modlist", place, "modlist_paddr", documents.START_INFO, "modlist"))
        found += _modules(hardware, modules)
        yield from _module_findings(hardware, modules)
    found += _cmdline_piece(hardware, "cmdline", info.cmdline_paddr, "cmdline_paddr")
    tables = firmware.look(hardware.read, info.rsdp_paddr)
    found += tables.pieces()
    yield from _lists(info, rows, modules)
    yield from _beyond_first_gib(found)
    yield from _cmdline(hardware, info)
    yield from pieces.check(hardware, found)
    if rows:
        entries = [E820Entry(row.addr, row.size, row.type) for row in rows]
        told = zero_page.as_kernels_see(entries, "the memory map", documents.START_INFO)
        yield from memory_map.check(hardware, told, found)
    yield from firmware.check(hardware, tables)


def _entries(
    hardware: Hardware[X86Registers], kind: type[Entry], at: int, count: int
) -> tuple[Entry, ...]:
    """Those of a list, or its beginning, that is in RAM."""
    return kind.all_from(hardware.read(at, kind.SIZE * min(count, _MOST_READ)) or b"")


def _lists(
    info: StartInfo, rows: tuple[MemmapEntry, ...], modules: tuple[ModlistEntry, ...]
) -> Findings:
    section, at, entries = documents.START_INFO, info.memmap_paddr, info.memmap_entries
    if not info.version:
        what = "hvm_start_info of version 0 has no memory map: kernels ask Xen for one"
        yield violation("memmap", f"{what}, and nothing here is Xen", section, value=0, limit=1)
    if info.version and not rows:
        what = f"the memory map at {at:#x} has {counted(entries, 'entry', 'entries')} in RAM"
        yield violation("memmap", what, section, address=at, value=entries)
    elif info.version and entries > _MOST_ENTRIES:
        what = f"the memory map has {entries} entries; Linux has room for {_MOST_ENTRIES}"
        yield violation("map-count", what, section, value=entries, limit=_MOST_ENTRIES)
    if any(row.reserved for row in rows):
        number = next(number for number, row in enumerate(rows) if row.reserved)
        what = f"the last field of entry {number} of the memory map is not 0"
        yield tolerated("memmap-reserved", what, section, value=rows[number].reserved, limit=0)
    if info.nr_modules and not modules:
        at, count = info.modlist_paddr, info.nr_modules
        what = f"the list of {counted(count, 'module')} at {at:#x} is not in RAM"
        yield violation("modlist", what, section, address=at, value=count)


def _beyond_first_gib(found: Iterable[Piece]) -> Findings:
    for piece in found:
        if piece.name in ("memmap", "modlist") and piece.range.end > GIB:
            what = f"the {piece} ends above 1 GiB: that is all Linux has mapped when it reads it"
            address = piece.range.start
            yield violation("above-1-gib", what, piece.section, address=address, limit=GIB)


def _cmdline(hardware: Hardware[X86Registers], info: StartInfo) -> Findings:
    text = text_at(hardware.read, info.cmdline_paddr)
    at, section = info.cmdline_paddr, documents.START_INFO
    if at and text is None:
        what = f"cmdline_paddr {at:#x} is no string in RAM"
        yield violation("cmdline", what, section, address=at)
    if len(text or b"") >= _COMMAND_LINE_SIZE:
        size, limit = len(text or b""), _COMMAND_LINE_SIZE - 1
        what = f"the command line has {size} bytes; Linux keeps {limit} of them"
        yield violation("cmdline-size", what, documents.COMMAND_LINE, value=size, limit=limit)
    if at > U32_MAX:
        yield _beyond("cmdline_paddr", at)


def _cmdline_piece(
    hardware: Hardware[X86Registers], name: str, at: int, pointer: str
) -> Iterator[Piece]:
    text = text_at(hardware.read, at)
    if text is not None:
        yield Piece(name, Range(at, len(text) + 1), pointer, documents.START_INFO, "cmdline")


def _modules(
    hardware: Hardware[X86Registers], modules: tuple[ModlistEntry, ...]
) -> Iterator[Piece]:
    for number, module in enumerate(modules):
        name = f"module {number}" if number else INITRD
        place, pointer = Range(module.paddr, module.size), f"modlist[{number}].paddr"
        yield Piece(name, place, pointer, documents.START_INFO, "module")
        pointer = f"modlist[{number}].cmdline_paddr"
        yield from _cmdline_piece(
            hardware, f"command line of module {number}", module.cmdline_paddr, pointer
        )


def _module_findings(
    hardware: Hardware[X86Registers], modules: tuple[ModlistEntry, ...]
) -> Findings:
    section = documents.START_INFO
    for number, module in enumerate(modules):
        at = module.cmdline_paddr
        if at and text_at(hardware.read, at) is None:
            what = f"modlist[{number}].cmdline_paddr {at:#x} is no string in RAM"
            yield violation("cmdline", what, section, address=at)
        if not module.size:
            what = f"modlist[{number}] at {module.paddr:#x} has no bytes"
            yield tolerated("module", what, section, address=module.paddr, value=0)
    first = Range(modules[0].paddr, modules[0].size)
    if first.end > U32_MAX + 1:
        yield _beyond("modlist[0].paddr", first.start)
    if hardware.in_ram(first):
        yield from initrd.check(hardware.read, first, "modlist[0].paddr", tolerated)


def _beyond(name: str, value: int) -> RuleFinding:
    what = (
        f"{name} is {value:#x}: Linux keeps its lower 32 bits only when it is entered through PVH"
    )
    return violation("above-4-gib", what, documents.START_INFO, address=value, limit=U32_MAX)
