"""Which register states a reset stub can bring about; all else is refused, naming the register.

A descriptor that cannot be loaded, a reserved flag or a number that is too wide would otherwise end
as a guest that resets without a word, or in another state than the one demanded. Knows no encodings
(bootproof.loader.stub has those).

Sources: Intel SDM vol. 3A 2.3 (flags), 2.5 (control registers), 3.4.5 and 5.5 to 5.8 (what a
segment register can be loaded with), 9.8.5 (into long mode); Arm ARM (DDI 0487) C5.2.18 (SPSR).
"""

from __future__ import annotations

from typing import Final, NoReturn

from bootproof.loader.errors import LoaderError
from bootproof.loader.registers import (
    ATTR_GRANULARITY,
    ATTR_LDT,
    ATTR_LONG,
    ATTR_TSS_BUSY,
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    LDTR_AT_RESET,
    PSTATE_DAIF,
    PSTATE_EL1H,
    PSTATE_EL2H,
    RFLAGS_RESERVED,
    TR_AT_RESET,
    Arm64Registers,
    DescriptorTable,
    Segment,
    X86Registers,
)

_GENERAL: Final = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
_EXTENDED: Final = tuple(f"r{number}" for number in range(8, 16))

_CR4_PCIDE: Final = 1 << 17  # cannot be set outside of long mode
# What POPF changes at privilege level 0, but TF: the stub itself would be trapped.
_FLAGS: Final = 0x247ED5 | RFLAGS_RESERVED

# Descriptor bits: type, then S, DPL and P; bit 14 is D/B.
_ACCESSED, _READ_WRITE, _CODE = 0x1, 0x2, 0x8
_NOT_SYSTEM, _PRIVILEGE, _PRESENT = 0x10, 0x60, 0x80
_DEFAULT_32: Final = 0x4000
_ATTRIBUTES: Final = 0xF0FF
_NULL: Final = Segment(0, limit=0, attributes=0)

_NZCV: Final = 0xF0000000
_MODE: Final = 0x1F


class StubError(LoaderError):
    """A register state or address that no reset stub can bring about."""

    code = "Stub::Unrealisable"


def check_x86(r: X86Registers) -> None:
    """Raises StubError naming the register when the state cannot be reached from CPU reset."""
    _check_control(r)
    _check_code(r.cs)
    for name in ("ds", "es", "fs", "gs", "ss"):
        _check_data(name, getattr(r, name), r.long_mode)
    if r.tr != TR_AT_RESET:
        _check_system("tr", r.tr, ATTR_TSS_BUSY)
    if r.ldtr != LDTR_AT_RESET:
        _check_system("ldtr", r.ldtr, ATTR_LDT)
    width = 64 if r.long_mode else 32
    _check_table("gdtr", r.gdtr, width)
    _check_table("idtr", r.idtr, width)
    for name in ("rip", *_GENERAL):
        _check_width(name, getattr(r, name), width)
    for name in _EXTENDED:
        _check_width(name, getattr(r, name), 64 if r.long_mode else 0)
    if r.rflags & ~_FLAGS or not r.rflags & RFLAGS_RESERVED:
        _refuse("rflags", hex(r.rflags), "has flags that cannot be set, or lacks bit 1")


def check_arm64(r: Arm64Registers) -> None:
    """Raises StubError naming the register; see check_x86."""
    if r.pstate & _MODE not in (PSTATE_EL1H, PSTATE_EL2H):
        _refuse("pstate", hex(r.pstate), "must be EL1 or EL2 with a stack pointer of its own")
    if r.pstate & ~(_MODE | _NZCV | PSTATE_DAIF):
        _refuse("pstate", hex(r.pstate), "may have the flags N, Z, C, V, D, A, I and F only")
    values = {"pc": r.pc, "sp": r.sp} | {f"x{number}": value for number, value in enumerate(r.x)}
    for name, value in values.items():
        _check_width(name, value, 64)
    if r.pc % 4:
        _refuse("pc", hex(r.pc), "must be a multiple of 4")


def _check_control(r: X86Registers) -> None:
    for name in ("cr0", "cr3", "cr4"):
        _check_width(name, getattr(r, name), 32)
    _check_width("efer", r.efer, 64)
    if not r.cr0 & CR0_PE or not r.cr0 & CR0_ET:
        _refuse("cr0", hex(r.cr0), "must have PE, and ET, which is hard-wired")
    paging, enabled, active = (
        bool(bit) for bit in (r.cr0 & CR0_PG, r.efer & EFER_LME, r.efer & EFER_LMA)
    )
    if active != (paging and enabled) or active != bool(r.cs.attributes & ATTR_LONG):
        _refuse("efer", hex(r.efer), "LMA, LME, CR0.PG and CS.L do not agree on the CPU's mode")
    if active and not r.cr4 & CR4_PAE:
        _refuse("cr4", hex(r.cr4), "must have PAE in long mode")
    if r.cr4 & _CR4_PCIDE:
        _refuse("cr4", hex(r.cr4), "PCIDE can be set by the guest only")


def _check_code(cs: Segment) -> None:
    _check_loadable("cs", cs)
    if not cs.attributes & _CODE or cs.attributes & _PRIVILEGE:
        _refuse("cs", cs, "must be a code segment of privilege level 0")
    if bool(cs.attributes & ATTR_LONG) == bool(cs.attributes & _DEFAULT_32):
        _refuse("cs", cs, "must be a 32-bit or a 64-bit segment")
    if cs.base or (not cs.attributes & ATTR_LONG and cs.limit != 0xFFFFFFFF):
        _refuse("cs", cs, "must be flat")


def _check_data(name: str, segment: Segment, long_mode: bool) -> None:
    if segment == _NULL and (long_mode or name != "ss"):
        return
    _check_loadable(name, segment)
    if segment.attributes & (_CODE | _READ_WRITE) == _CODE:
        _refuse(name, segment, "cannot be read")
    writable = segment.attributes & (_CODE | _READ_WRITE) == _READ_WRITE
    if name == "ss" and (not writable or segment.attributes & _PRIVILEGE):
        _refuse(name, segment, "must be a writable segment of privilege level 0")


def _check_loadable(name: str, segment: Segment) -> None:
    _check_descriptor(name, segment)
    needed = _PRESENT | _NOT_SYSTEM | _ACCESSED
    if segment.attributes & needed != needed:
        _refuse(name, segment, "must be present and, as loading makes it, accessed")


def _check_system(name: str, segment: Segment, attributes: int) -> None:
    _check_descriptor(name, segment)
    if segment.attributes & 0xFF & ~_PRIVILEGE != attributes:
        _refuse(name, segment, f"must be of type {attributes:#x}")


def _check_descriptor(name: str, segment: Segment) -> None:
    """Whether a selector of the GDT can load this cache."""
    _check_width(f"{name} selector", segment.selector, 16, name)
    _check_width(f"{name} base", segment.base, 32, name)
    _check_width(f"{name} limit", segment.limit, 32, name)
    if segment.selector & 7 or not segment.selector:
        _refuse(name, segment, "must have a GDT selector of privilege level 0 that is not null")
    if segment.attributes & ~_ATTRIBUTES:
        _refuse(name, segment, "has attributes that no descriptor has")
    coarse = segment.attributes & ATTR_GRANULARITY
    if segment.limit & 0xFFF != 0xFFF if coarse else segment.limit >> 20:
        _refuse(name, segment, "has a limit that its granularity cannot express")


def _check_table(name: str, table: DescriptorTable, width: int) -> None:
    _check_width(f"{name} base", table.base, width, name)
    _check_width(f"{name} limit", table.limit, 16, name)


def _check_width(what: str, value: int, bits: int, field: str | None = None) -> None:
    if not 0 <= value < 1 << bits:
        where = "does not exist in 32-bit mode" if not bits else f"does not fit {bits} bits"
        _refuse(field or what, hex(value), f"{where} ({what})" if field else where)


def _refuse(name: str, value: object, why: str) -> NoReturn:
    raise StubError(f"{name} {value}: {why}", field=name, value=value)
