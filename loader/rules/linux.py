"""What the 64-bit and the 32-bit boot protocol of x86 Linux demand.

Source: Documentation/arch/x86/boot.rst ("32-bit Boot Protocol", "64-bit Boot Protocol").
"""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch import x86_64
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.boot_parameters import text_at
from bootproof.loader.rules import Findings, Hardware, tolerated, violation, x86
from bootproof.loader.structures import ZeroPage

_BOOT_CS: Final = 0x10
_BOOT_DS: Final = 0x18


def linux64(hardware: Hardware[X86Registers]) -> Findings:
    r = hardware.registers
    if not (r.cr0 & x86_64.CR0_PG and r.cr0 & x86_64.CR0_PE and r.cr4 & x86_64.CR4_PAE):
        yield violation("paging", f"64-bit paging is off (cr0 {r.cr0:#x}, cr4 {r.cr4:#x})")
    if r.efer & (x86_64.EFER_LME | x86_64.EFER_LMA) != x86_64.EFER_LME | x86_64.EFER_LMA:
        yield violation("long-mode", f"the CPU is not in long mode (efer {r.efer:#x})")
    if not r.cs.attributes & x86_64.ATTR_LONG:
        yield violation("cs-64-bit", "CS is not a 64-bit code segment")
    yield from x86.code_and_data(r)
    yield from _linux_selectors(r)
    yield from _interrupts_off(r)
    yield from _zero_page(hardware, r.rsi)
    yield from _identity_mapped(hardware, r)


def linux32(hardware: Hardware[X86Registers]) -> Findings:
    r = hardware.registers
    yield from x86.protected_mode_without_paging(r)
    yield from x86.flat_segments(r)
    yield from x86.code_and_data(r)
    yield from _linux_selectors(r)
    yield from _interrupts_off(r)
    for name in ("rbp", "rdi", "rbx"):
        value = getattr(r, name)
        if value & 0xFFFFFFFF:
            yield violation(f"{name}-zero", f"{name} is {value:#x}, not 0")
    yield from _zero_page(hardware, r.rsi & 0xFFFFFFFF)


def _linux_selectors(r: X86Registers) -> Findings:
    """boot.rst names the selectors; kernels load their own at once."""
    if r.cs.selector != _BOOT_CS:
        yield tolerated("cs-selector", f"CS is {r.cs.selector:#x}, not __BOOT_CS {_BOOT_CS:#x}")
    for name in ("ds", "es", "ss"):
        selector = getattr(r, name).selector
        if selector != _BOOT_DS:
            yield tolerated(
                f"{name}-selector", f"{name} is {selector:#x}, not __BOOT_DS {_BOOT_DS:#x}"
            )
    if r.gdtr.limit < _BOOT_DS + 7:
        yield tolerated("gdt", f"the GDT ends at offset {r.gdtr.limit:#x}, before __BOOT_DS")


def _interrupts_off(r: X86Registers) -> Findings:
    if r.rflags & x86.RFLAGS_IF:
        yield violation("interrupts", f"interrupts are on (rflags {r.rflags:#x})")


def _zero_page(hardware: Hardware[X86Registers], address: int) -> Findings:
    raw = hardware.read(address, ZeroPage.SIZE)
    if raw is None:
        yield violation("zero-page", f"RSI {address:#x} does not point to 4096 bytes of RAM")
        return
    page = ZeroPage.from_bytes(raw)
    header = page.setup_header
    if not page.e820_entries or not any(page.e820_table[:20]):
        yield violation("e820", f"the zero page at {address:#x} has no E820 map")
    cmdline = header.cmd_line_ptr
    if cmdline and text_at(hardware.read, cmdline) is None:
        yield violation("cmdline", f"cmd_line_ptr {cmdline:#x} does not point to a string in RAM")
    ramdisk, size = header.ramdisk_image, header.ramdisk_size
    if size and hardware.read(ramdisk + size - 1, 1) is None:
        yield violation("ramdisk", f"the initrd at {ramdisk:#x} with {size:#x} bytes leaves RAM")
    if size and not header.type_of_loader:
        yield violation("type-of-loader", "type_of_loader is 0: the kernel ignores the initrd")
    yield from x86.acpi_tables(hardware, page.acpi_rsdp_addr)


def _identity_mapped(hardware: Hardware[X86Registers], r: X86Registers) -> Findings:
    """boot.rst: the range of the kernel, zero page and command line must be identity mapped."""
    wanted = [Range(r.rip, 1), Range(r.rsi, 0x1000)]
    wanted += [hardware.footprint] if hardware.footprint else []
    for area in wanted:
        for address in range(area.start & ~0x1FFFFF, area.end, 0x200000):
            probe = max(address, area.start)
            physical = _translate(hardware, r.cr3, probe)
            if physical != probe:
                where = "nothing" if physical is None else f"{physical:#x}"
                yield violation("identity-map", f"{probe:#x} is mapped to {where}")
                return


def _translate(hardware: Hardware[X86Registers], cr3: int, address: int) -> int | None:
    """Walks four-level page tables (SDM vol. 3A 4.5.4): the physical address, or None."""
    table = cr3 & 0x000FFFFFFFFFF000
    for shift in (39, 30, 21, 12):
        raw = hardware.read(table + 8 * (address >> shift & 0x1FF), 8)
        entry = int.from_bytes(raw, "little") if raw else 0
        if not entry & 1:
            return None
        base = entry & 0x000FFFFFFFFFF000
        if shift == 12 or (shift < 39 and entry & 0x80):
            size = 1 << shift
            return base & ~(size - 1) | address & (size - 1)
        table = base
    return None
