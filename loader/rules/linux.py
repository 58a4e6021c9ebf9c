"""What the 64-bit and the 32-bit boot protocol of x86 Linux demand.

Source: Documentation/arch/x86/boot.rst ("32-bit Boot Protocol", "64-bit Boot Protocol").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bootproof.loader.address import PAGE, U32_MAX, Range, common, joined
from bootproof.loader.arch import x86_64
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.arch.x86_paging import Walker
from bootproof.loader.rules import (
    Findings,
    Hardware,
    documents,
    paging,
    tolerated,
    violation,
    x86,
    zero_page,
)
from bootproof.loader.rules.paging import Wanted
from bootproof.loader.rules.pieces import KERNEL, Piece
from bootproof.loader.rules.zero_page import Told

_BOOT_CS: Final = 0x10
_BOOT_DS: Final = 0x18
_CODE, _DATA, _PRESENT = 0x1A, 0x12, 0x80  # of a descriptor's access byte, without accessed
_DATA_SEGMENTS: Final = ("ds", "es", "ss")
_TABLES: Final = "page table"


def linux64(hardware: Hardware[X86Registers]) -> Findings:
    r, section = hardware.registers, documents.LINUX64
    if not (r.cr0 & x86_64.CR0_PG and r.cr0 & x86_64.CR0_PE and r.cr4 & x86_64.CR4_PAE):
        what = f"64-bit paging is off (cr0 {r.cr0:#x}, cr4 {r.cr4:#x})"
        yield violation("paging", what, section, value=r.cr0)
    if r.efer & (x86_64.EFER_LME | x86_64.EFER_LMA) != x86_64.EFER_LME | x86_64.EFER_LMA:
        what = f"the CPU is not in long mode (efer {r.efer:#x})"
        yield violation("long-mode", what, section, value=r.efer)
    yield from x86.code_of_64_bits(r, section)
    yield from x86.code_and_data(r, section, _DATA_SEGMENTS, tolerated)
    yield from _linux_selectors(hardware, section)
    yield from _interrupts_off(r, section)
    yield from x86.entry(hardware, section)
    yield from x86.every_cpu(hardware)
    told = zero_page.look(hardware, r.rsi, in_64_bits=True)
    walker = Walker(hardware.read, r.cr3, r.cr4, r.efer)
    paged = bool(r.cr0 & x86_64.CR0_PG)
    if told is None:
        yield from zero_page.missing("RSI", r.rsi)
    else:
        yield from zero_page.check(hardware, told, "RSI", _own_tables(r, told, walker, paged))
    if paged:
        yield from paging.check(r, walker, _to_be_mapped(hardware, told))


def linux32(hardware: Hardware[X86Registers]) -> Findings:
    r, section = hardware.registers, documents.LINUX32
    yield from x86.protected_mode_without_paging(r, section)
    yield from x86.stack_of_32_bits(r, section)
    yield from x86.flat_segments(r, section, _DATA_SEGMENTS)
    yield from x86.code_and_data(r, section, _DATA_SEGMENTS)
    yield from _linux_selectors(hardware, section)
    yield from _interrupts_off(r, section)
    for name in ("rbp", "rdi", "rbx"):
        value = getattr(r, name)
        if value & 0xFFFFFFFF:
            yield violation(f"{name}-zero", f"{name} is {value:#x}, not 0", section, value=value)
    yield from x86.entry(hardware, section)
    yield from x86.every_cpu(hardware)
    told = zero_page.look(hardware, r.rsi & 0xFFFFFFFF, in_64_bits=False)
    if told is None:
        yield from zero_page.missing("ESI", r.rsi)
    else:
        yield from zero_page.check(hardware, told, "ESI", list(_gdt(r, section)))
        if told.cmdline_ptr + len(told.cmdline or b"") > U32_MAX:
            what = f"the command line at {told.cmdline_ptr:#x} does not end within 4 GiB, which are"
            what += " all that a kernel has mapped that is entered in 32 bits, when it reads it"
            yield violation("above-4-gib", what, section, address=told.cmdline_ptr)


def _linux_selectors(hardware: Hardware[X86Registers], section: str) -> Findings:
    """boot.rst names the selectors and wants their descriptors; kernels load their own at once."""
    r = hardware.registers
    if r.cs.selector != _BOOT_CS:
        what = f"CS is {r.cs.selector:#x}, not __BOOT_CS {_BOOT_CS:#x}"
        yield tolerated("cs-selector", what, section, value=r.cs.selector, limit=_BOOT_CS)
    for name in _DATA_SEGMENTS:
        selector = getattr(r, name).selector
        if selector != _BOOT_DS:
            what = f"{name} is {selector:#x}, not __BOOT_DS {_BOOT_DS:#x}"
            yield tolerated(f"{name}-selector", what, section, value=selector, limit=_BOOT_DS)
    yield from _descriptors(hardware, section)


def _descriptors(hardware: Hardware[X86Registers], section: str) -> Findings:
    """Those of the selectors that the CPU has, whether boot.rst names these or not."""
    r = hardware.registers
    for name, letter, selector, wanted in (
        ("__BOOT_CS", _BOOT_CS, r.cs.selector, _PRESENT | _CODE),
        ("__BOOT_DS", _BOOT_DS, r.ds.selector, _PRESENT | _DATA),
    ):
        called = name if selector == letter else f"{name[-2:]} {selector:#x}"
        if not selector >> 3:
            continue
        if r.gdtr.limit < selector | 7:
            what = f"the GDT ends at offset {r.gdtr.limit:#x}, before {called}"
            yield tolerated("gdt", what, section, value=r.gdtr.limit, limit=selector | 7)
            continue
        place = r.gdtr.base + (selector & ~7)
        found = int.from_bytes(hardware.read(place, 8) or b"", "little")
        if found >> 40 & (_PRESENT | _CODE) != wanted:
            what = f"the descriptor of {called} at {place:#x} is {found:#x}, no segment of its kind"
            yield tolerated("gdt", what, section, address=place, value=found)


def _own_tables(r: X86Registers, told: Told, walker: Walker, paged: bool) -> list[Piece]:
    """GDT and page tables; a kernel that came here from its 32-bit entry has them in itself."""
    group = KERNEL if told.entered.file.contains(Range(r.gdtr.base, 1)) else _TABLES
    pages = (
        Piece(_TABLES, place, "CR3", documents.LINUX64, "identity-map", group=group)
        for place in joined(Range(page, PAGE) for page in (walker.tables() if paged else ()))
    )
    return [*(replace(gdt, group=group) for gdt in _gdt(r, documents.LINUX64)), *pages]


def _gdt(r: X86Registers, section: str) -> Iterator[Piece]:
    """As much of the GDT as boot.rst asks for."""
    place = Range(r.gdtr.base, min(r.gdtr.limit + 1, _BOOT_DS + 8))
    yield Piece("gdt", place, "GDTR", section, "gdt", dispensable=True)


def _interrupts_off(r: X86Registers, section: str) -> Findings:
    yield from x86.flags_clear(r, ("VM", "TF"), documents.EFLAGS)
    if r.rflags & x86.RFLAGS["IF"]:
        what = f"interrupts are on (rflags {r.rflags:#x})"
        yield violation("interrupts", what, section, value=r.rflags)


def _to_be_mapped(hardware: Hardware[X86Registers], told: Told | None) -> Iterator[Wanted]:
    """boot.rst: the range of the kernel, zero page and command line must be identity mapped. What
    is not in RAM is said of the piece.
    """
    yield Wanted("the first instruction", Range(hardware.registers.rip, 1), written=False)
    if told is None:
        return
    yield Wanted("the zero page", Range(told.address, 0x1000))
    for piece in told.kernel(hardware):
        for part in common([piece.range], hardware.ram):
            yield Wanted("the kernel", part)
    for part in common(told.entered.code, hardware.ram):
        yield Wanted("the kernel's own unpacking code", part, executed=True)
    if told.cmdline is not None and told.cmdline_ptr:
        place = Range(told.cmdline_ptr, len(told.cmdline) + 1)
        yield Wanted("the command line", place, written=False)
