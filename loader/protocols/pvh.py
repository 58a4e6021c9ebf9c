"""The x86/HVM direct boot ABI (PVH): 32-bit, paging off, EBX -> hvm_start_info.

Source: Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import ATTR_CODE32, ATTR_TSS_BUSY, Segment, X86Registers
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, Handover, bootparams, entry_point, region
from bootproof.loader.protocols.e820 import memory_map
from bootproof.loader.result import KernelLoaderResult

NAME: Final = "pvh"
ARCH: Final = "x86_64"

START_INFO_MAGIC: Final = 0x336EC578
START_INFO_VERSION: Final = 1
_START_INFO = struct.Struct("<IIII QQQQ II")  # struct hvm_start_info, version 1
_MODULE = struct.Struct("<QQQQ")  # struct hvm_modlist_entry
_MEMMAP = struct.Struct("<QQII")  # struct hvm_memmap_table_entry
_ACPI_ENTRIES: Final = 2  # the tables' own, and what is left of the RAM entry behind them
_SELECTOR_CS, _SELECTOR_DS, _SELECTOR_TSS = 0x08, 0x10, 0x18


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    entry_point(kernel, NAME)
    entries = len(memory_map(ram)) + (_ACPI_ENTRIES if request.cpus > 1 else 0)
    wanted = [
        bootparams.low_wanted("start_info", _START_INFO.size, 16),
        bootparams.low_wanted("memmap", _MEMMAP.size * entries, 16),
        bootparams.low_wanted("modlist", _MODULE.size, 16),
    ]
    return bootparams.plan(ram, kernel, request, wanted)


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure."""
    regions = plan([bank.range for bank in memory.banks], kernel, request)
    start_info = _write_start_info(memory, regions, request)
    code = Segment(_SELECTOR_CS, attributes=ATTR_CODE32)
    data = Segment(_SELECTOR_DS)
    tss = Segment(_SELECTOR_TSS, limit=0x67, attributes=ATTR_TSS_BUSY)
    flat = X86Registers.with_segments(
        entry_point(kernel, NAME),
        code,
        data,
        bootparams.write_gdt(memory, regions, [code, data, tss]),
    )
    registers = replace(flat, rbx=start_info, tr=tss)
    return Handover(registers, tuple(regions))


def _write_start_info(memory: GuestMemory, regions: Sequence[Region], request: BootRequest) -> int:
    places = {
        name: region(regions, name) for name in ("start_info", "memmap", "modlist", "cmdline")
    }
    start_info, memmap, modlist, cmdline = places.values()
    assert start_info and memmap and modlist and cmdline
    initrd = region(regions, "initrd")
    rsdp = bootparams.write_acpi(memory, regions, request)
    entries = memory_map([bank.range for bank in memory.banks], region(regions, "acpi"))
    memory.write(cmdline.start, request.cmdline + b"\0")
    if initrd is not None and request.initrd is not None:
        memory.write(initrd.start, request.initrd)
        memory.write(modlist.start, _MODULE.pack(initrd.start, initrd.size, 0, 0))
    memory.write(
        memmap.start,
        b"".join(_MEMMAP.pack(e.range.start, e.range.size, e.type, 0) for e in entries),
    )
    modules = 1 if initrd else 0
    info = _START_INFO.pack(
        *(START_INFO_MAGIC, START_INFO_VERSION, 0, modules),
        *(modlist.start if modules else 0, cmdline.start, rsdp, memmap.start),
        *(len(entries), 0),
    )
    memory.write(start_info.start, info)
    return start_info.start
