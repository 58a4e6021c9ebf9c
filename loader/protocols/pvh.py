"""The x86/HVM direct boot ABI (PVH): 32-bit, paging off, EBX -> hvm_start_info.

Source: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import (
    ATTR_CODE32,
    ATTR_TSS_BUSY,
    X86_64,
    DescriptorTable,
    Segment,
    X86Registers,
)
from bootproof.loader.boot_parameters import BootParameters, Read, decoded, text_at, values
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, ProtocolError, placed, region, x86
from bootproof.loader.protocols.e820 import all_ram, memory_map, system_ram
from bootproof.loader.protocols.protocol import BootProtocol, Handover, Pointer
from bootproof.loader.protocols.table import PVH
from bootproof.loader.result import KernelLoaderResult, PvhState
from bootproof.loader.structures.start_info import MemmapEntry, ModlistEntry, StartInfo
from bootproof.loader.structures.zero_page import E820Entry

NAME: Final = PVH
BOOTLOADER_TYPE: Final = 0xB0  # set by the kernel's own PVH entry

_ACPI_ENTRIES: Final = 2  # the tables' own, and what is left of the RAM entry behind them
_SELECTOR_CS, _SELECTOR_DS, _SELECTOR_TSS = 0x08, 0x10, 0x18
_MOST_ENTRIES: Final = 128  # that are read back
_READ_BACK: Final = ("start_info.memmap_entries", "start_info.reserved")

_LACKING: Final = {
    PvhState.PRESENT: "the format has none",
    PvhState.NOT_PRESENT: "the kernel has no PVH note",
    PvhState.IGNORED: "the capability is ignored because an offset was requested",
}


def entry_point(kernel: KernelLoaderResult) -> int:
    """The guest-physical PVH entry of `kernel`; ProtocolError with the reason when it has none."""
    if NAME in kernel.entry_points:
        return x86.below_4_gib(NAME, kernel.entry_points[NAME])
    if kernel.virtual_start is not None:
        raise ProtocolError(
            "no PVH entry: the kernel was moved to another virtual address, and the code of that"
            " entry makes its page tables by where it was linked",
            field="protocol",
            value=NAME,
            advice="enter it through linux64, or leave its virtual address as it is",
        )
    vmlinux = kernel.setup_header is None and "linux64" in kernel.entry_points
    state = kernel.pvh_boot_cap.state if vmlinux else PvhState.PRESENT
    raise ProtocolError(f"no PVH entry: {_LACKING[state]}", field="protocol", value=NAME)


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    entry_point(kernel)
    entries = len(memory_map(ram)) + (_ACPI_ENTRIES if request.cpus > 1 else 0)
    wanted = [
        x86.low_wanted("start_info", StartInfo.SIZE, 16),
        x86.low_wanted("memmap", MemmapEntry.SIZE * entries, 16),
        x86.low_wanted("modlist", ModlistEntry.SIZE, 16),
    ]
    return x86.plan(ram, kernel, request, wanted)


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure."""
    regions = plan([bank.range for bank in memory.banks], kernel, request)
    start_info = _write_start_info(memory, regions, request)
    flat = state(entry_point(kernel), start_info)
    table = x86.write_gdt(memory, regions, [flat.cs, flat.ds, flat.tr])
    return Handover(replace(flat, gdtr=table), tuple(regions))


def state(entry: int, address: int) -> X86Registers:
    """See BootProtocol.state."""
    code = Segment(_SELECTOR_CS, attributes=ATTR_CODE32)
    data = Segment(_SELECTOR_DS)
    tss = Segment(_SELECTOR_TSS, limit=0x67, attributes=ATTR_TSS_BUSY)
    table = DescriptorTable(0, _SELECTOR_TSS + 7)
    return replace(X86Registers.with_segments(entry, code, data, table), rbx=address, tr=tss)


def _write_start_info(memory: GuestMemory, regions: Sequence[Region], request: BootRequest) -> int:
    rsdp, entries = x86.write_common(memory, regions, request)
    memmap = placed(regions, "memmap").start
    table = b"".join(MemmapEntry(e.addr, e.size, e.type).to_bytes() for e in entries)
    memory.write(memmap, table)
    initrd, modlist = region(regions, "initrd"), placed(regions, "modlist").start
    if initrd is not None:
        memory.write(modlist, ModlistEntry(initrd.start, initrd.size).to_bytes())
    info = StartInfo(
        nr_modules=1 if initrd else 0,
        modlist_paddr=modlist if initrd else 0,
        cmdline_paddr=placed(regions, "cmdline").start,
        rsdp_paddr=rsdp,
        memmap_paddr=memmap,
        memmap_entries=len(entries),
    )
    address = placed(regions, "start_info").start
    memory.write(address, info.to_bytes())
    return address


def _start_info(registers: X86Registers, read: Read) -> tuple[StartInfo, ModlistEntry] | None:
    """The structure that EBX points to, and its first module, which is zero without any."""
    raw = read(registers.rbx & 0xFFFFFFFF, StartInfo.SIZE)
    if raw is None:
        return None
    info = StartInfo.from_bytes(raw)
    module = read(info.modlist_paddr, ModlistEntry.SIZE) if info.nr_modules else None
    return info, ModlistEntry.from_bytes(module or bytes(ModlistEntry.SIZE))


def _read(registers: X86Registers, read: Read) -> BootParameters:
    found = _start_info(registers, read)
    if found is None:
        return BootParameters()
    info, module = found
    size = MemmapEntry.SIZE * min(info.memmap_entries, _MOST_ENTRIES)
    rows = MemmapEntry.all_from(read(info.memmap_paddr, size) or b"")
    entries = tuple(E820Entry(row.addr, row.size, row.type) for row in rows)
    return BootParameters(
        cmdline=decoded(text_at(read, info.cmdline_paddr)),
        initrd=Range(module.paddr, module.size) if module.size else None,
        memory_map=entries,
        ram=all_ram(entries),
        system_ram=system_ram(entries),
        bootloader_type=BOOTLOADER_TYPE,
        cpus=x86.cpus_told(read, info.rsdp_paddr),
    )


def _fields(registers: X86Registers, read: Read) -> Iterator[tuple[str, str]]:
    found = _start_info(registers, read)
    if found is None:
        return
    info, module = found
    yield from (row for row in values(info, "start_info.") if row[0] not in _READ_BACK)
    if info.nr_modules:
        yield "start_info.modlist[0].paddr", hex(module.paddr)
        yield "start_info.modlist[0].cmdline_paddr", hex(module.cmdline_paddr)


PROTOCOL: Final = BootProtocol(
    name=NAME,
    arch=X86_64,
    rank=0,
    plan=plan,
    configure=configure,
    state=state,
    pointer=Pointer("rbx", "hvm_start_info", StartInfo().to_bytes()[:4]),
    read=_read,
    fields=_fields,
    bootloader_type=BOOTLOADER_TYPE,
)
