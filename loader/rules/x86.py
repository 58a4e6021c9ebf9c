"""What several boot protocols of x86 demand in the same words.

Sources: Documentation/arch/x86/boot.rst ("32-bit Boot Protocol", "64-bit Boot Protocol"); Xen's
docs/misc/pvh.pandoc; Intel SDM vol. 3A 3.4.5 (descriptors).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import (
    ATTR_LONG,
    CR0_PE,
    CR0_PG,
    TR_AT_RESET,
    X86_64,
    Segment,
    X86Registers,
)
from bootproof.loader.rules import (
    Findings,
    Hardware,
    RuleFinding,
    documents,
    secondary,
    tolerated,
    violation,
)
from bootproof.loader.rules.entry import held_at

Grade = Callable[..., RuleFinding]
_INTERRUPTS: Final = "Intel SDM vol. 3A, 6.10 (Interrupt Descriptor Table)"
_GATE: Final = 7  # the limit of a table with one
_SELECTORS: Final = "Intel SDM vol. 3A, 3.4.2 (Segment Selectors)"
_DESCRIPTORS: Final = "Intel SDM vol. 3A, 3.4.5 (Segment Descriptors)"
_FLAT: Final = 0xFFFFFFFF
RFLAGS: Final = {"TF": 1 << 8, "IF": 1 << 9, "VM": 1 << 17}
_CODE_READABLE: Final = 0b1010
_DATA_WRITABLE: Final = 0b0010
_TYPE_MASK: Final = 0b1110  # without the accessed bit, which the CPU sets by itself
_ATTR_S: Final = 1 << 4
_ATTR_P: Final = 1 << 7
_ATTR_DB: Final = 1 << 14


def entry(hardware: Hardware[X86Registers], section: str) -> Findings:
    """There is something at the first instruction, and it is the kernel's."""
    yield from held_at(hardware, hardware.registers.pc, section)


def interrupt_table(hardware: Hardware[X86Registers]) -> Findings:
    """Where no RAM is behind it, a fault before the kernel has a table of its own resets the CPU: a
    limit of 0 does the same, and says so.
    """
    table = hardware.registers.idtr
    place = Range(table.base, table.limit + 1)
    if table.limit >= _GATE and not hardware.in_ram(place):
        what = f"the IDT {place} is not all RAM{hardware.ram_text}: its limit should be 0"
        yield tolerated("idt", what, _INTERRUPTS, address=table.base, value=table.limit, limit=0)


def every_cpu(hardware: Hardware[X86Registers]) -> Findings:
    """What is asked of every CPU, whatever the protocol."""
    yield from selectors(hardware.registers)
    yield from interrupt_table(hardware)
    yield from secondary.wait(hardware, X86_64.runs, documents.START_UP)


def protected_mode_without_paging(r: X86Registers, section: str) -> Findings:
    if not r.cr0 & CR0_PE:
        what = f"protected mode is off (cr0 {r.cr0:#x})"
        yield violation("protected-mode", what, section, value=r.cr0)
    if r.cr0 & CR0_PG:
        yield violation("paging-off", f"paging is on (cr0 {r.cr0:#x})", section, value=r.cr0)
    if not r.cs.attributes & _ATTR_DB or r.cs.attributes & ATTR_LONG:
        yield violation("cs-32-bit", "CS is not a 32-bit code segment", section)


def code_of_64_bits(r: X86Registers, section: str) -> Findings:
    if not r.cs.attributes & ATTR_LONG:
        yield violation("cs-64-bit", "CS is not a 64-bit code segment", section)
    elif r.cs.attributes & _ATTR_DB:
        what = "CS has both L and D set, which no CPU loads, and none enters a guest with"
        yield violation("cs-64-bit", what, _DESCRIPTORS, value=r.cs.attributes)


def stack_of_32_bits(r: X86Registers, section: str) -> Findings:
    if not r.ss.attributes & _ATTR_DB:
        what = "SS is not a 32-bit segment: until kernels load theirs, they push below 64 KiB"
        yield tolerated("ss-32-bit", what, section, value=r.ss.attributes)


def selectors(r: X86Registers) -> Findings:
    """Kernels that load their own segments at once, as all do, never see the difference."""
    names = [name for name in ("cs", "ds", "es", "fs", "gs", "ss") if getattr(r, name).null]
    names += ["tr"] if r.tr.null and r.tr != TR_AT_RESET else []
    if names:
        what = (
            f"{', '.join(names)}: a segment that can be used, by the null selector: no instruction"
        )
        yield tolerated("null-selector", f"{what} loads that (run takes another)", _SELECTORS)


def flags_clear(r: X86Registers, names: Sequence[str], section: str) -> Findings:
    for name in names:
        if r.rflags & RFLAGS[name]:
            what = f"EFLAGS.{name} is set ({r.rflags:#x})"
            yield violation(f"eflags-{name.lower()}", what, section, value=r.rflags)


def flat_segments(r: X86Registers, section: str, data: Sequence[str]) -> Findings:
    """CS, and those of `data` by name."""
    for name in ("cs", *data):
        segment: Segment = getattr(r, name)
        if segment.base or segment.limit != _FLAT:
            what = f"{name} is base {segment.base:#x}, limit {segment.limit:#x}"
            value, limit = segment.limit, _FLAT
            yield violation(f"{name}-flat", what, section, value=value, limit=limit)


def code_and_data(
    r: X86Registers, section: str, data: Sequence[str], grade: Grade = violation
) -> Findings:
    """The types of CS and of `data`, by name. `grade` makes the finding: a CPU in 64-bit mode does
    not look at them (Intel SDM vol. 3A, 3.4.4).
    """
    usable = _ATTR_P | _ATTR_S
    attributes = r.cs.attributes
    if attributes & (usable | _TYPE_MASK) != usable | _CODE_READABLE:
        what = f"CS has attributes {attributes:#x}, not execute/read"
        yield grade("cs-type", what, section, value=attributes)
    for name in data:
        attributes = getattr(r, name).attributes
        if attributes & (usable | _TYPE_MASK) != usable | _DATA_WRITABLE:
            what = f"{name} has attributes {attributes:#x}, not read/write"
            yield grade(f"{name}-type", what, section, value=attributes)
