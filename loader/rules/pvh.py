"""What the x86/HVM direct boot ABI demands.

Source: Xen's docs/misc/pvh.pandoc.
"""

from __future__ import annotations

from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.boot_parameters import text_at
from bootproof.loader.rules import Findings, Hardware, violation, x86
from bootproof.loader.structures import START_INFO_MAGIC, MemmapEntry, ModlistEntry, StartInfo


def pvh(hardware: Hardware[X86Registers]) -> Findings:
    r = hardware.registers
    yield from x86.protected_mode_without_paging(r)
    if r.cr4:
        yield violation("cr4-zero", f"cr4 is {r.cr4:#x}, not 0")
    yield from x86.flat_segments(r)
    yield from x86.code_and_data(r)
    base, limit, kind = r.tr.base, r.tr.limit, r.tr.attributes & 0xF
    if base or limit != 0x67 or kind not in (0x9, 0xB):
        found = f"TR is base {base:#x}, limit {limit:#x}, type {kind:#x}"
        wanted = "it must be a 32-bit TSS at 0 with limit 0x67"
        yield violation("task-register", f"{found}; {wanted}")
    for name, bit in (("VM", x86.RFLAGS_VM), ("IF", x86.RFLAGS_IF), ("TF", x86.RFLAGS_TF)):
        if r.rflags & bit:
            yield violation(f"eflags-{name.lower()}", f"EFLAGS.{name} is set ({r.rflags:#x})")
    yield from _start_info(hardware, r.rbx & 0xFFFFFFFF)


def _start_info(hardware: Hardware[X86Registers], address: int) -> Findings:
    raw = hardware.read(address, StartInfo.SIZE)
    if raw is None:
        yield violation("start-info", f"EBX {address:#x} does not point to hvm_start_info in RAM")
        return
    info = StartInfo.from_bytes(raw)
    if info.magic != START_INFO_MAGIC:
        yield violation("start-info-magic", f"the magic of hvm_start_info is {info.magic:#x}")
        return
    if info.version > 1:
        yield violation("start-info-version", f"the version of hvm_start_info is {info.version}")
    at, entries = info.memmap_paddr, info.memmap_entries
    has_map = entries and hardware.read(at, MemmapEntry.SIZE * entries) is not None
    if info.version >= 1 and not has_map:
        yield violation("memmap", f"the memory map at {at:#x} has {entries} entries in RAM")
    at = info.modlist_paddr
    if info.nr_modules and hardware.read(at, ModlistEntry.SIZE * info.nr_modules) is None:
        yield violation("modlist", f"the module list at {at:#x} is not in RAM")
    if info.cmdline_paddr and text_at(hardware.read, info.cmdline_paddr) is None:
        yield violation("cmdline", f"cmdline_paddr {info.cmdline_paddr:#x} is no string in RAM")
    yield from x86.acpi_tables(hardware, info.rsdp_paddr)
