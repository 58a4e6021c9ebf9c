"""The architectural state a boot protocol demands at the kernel's first instruction.

One frozen value per CPU. The reset stub is made from it, and an entry probe can compare it field by
field with the real CPU; it therefore holds the hidden segment caches and control registers too.
Knows nothing of memory contents or of QEMU.

Sources: Intel SDM vol. 3A sections 2.5 (control registers), 3.4.5 (segment descriptors) and 9.1
(state after reset); Arm ARM (DDI 0487) C5.2 (PSTATE and SPSR).
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Self

from bootproof.loader import strictjson

CR0_PE = 1 << 0
CR0_ET = 1 << 4  # hard-wired to 1 since the i486
CR0_PG = 1 << 31
CR4_PAE = 1 << 5
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
RFLAGS_RESERVED = 1 << 1  # always reads as 1

# Segment attributes: bits 8-23 of a descriptor's second word, shifted down by 8 (SDM 3.4.5).
ATTR_CODE32 = 0xC09B  # present, execute/read, accessed, 32-bit, 4 KiB granularity
ATTR_CODE64 = 0xA09B  # present, execute/read, accessed, long mode, 4 KiB granularity
ATTR_DATA = 0xC093  # present, read/write, accessed, 32-bit, 4 KiB granularity
ATTR_TSS_BUSY = 0x008B
ATTR_LDT = 0x0082
ATTR_LONG = 0x2000
ATTR_GRANULARITY = 0x8000

PSTATE_DAIF = 0x3C0  # debug, SError, IRQ and FIQ masked
PSTATE_EL1H = 0x5
PSTATE_EL2H = 0x9


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register with its hidden cache.

    `limit` is the offset of the last byte, already scaled; `attributes` as the ATTR_* constants.
    """

    selector: int
    base: int = 0
    limit: int = 0xFFFFFFFF
    attributes: int = ATTR_DATA

    def descriptor(self) -> int:
        """The 8-byte GDT descriptor that loads this cache (SDM 3.4.5), as an integer.

        A busy TSS is given as an available one, because LTR refuses a busy one and marks it itself.
        """
        limit = self.limit >> 12 if self.attributes & ATTR_GRANULARITY else self.limit
        attributes = self.attributes
        if attributes & 0x1F == ATTR_TSS_BUSY & 0x1F:
            attributes &= ~0x2
        return (
            limit & 0xFFFF
            | (self.base & 0xFFFFFF) << 16
            | (attributes & 0xFF) << 40
            | (limit >> 16 & 0xF) << 48
            | (attributes >> 12 & 0xF) << 52
            | (self.base >> 24 & 0xFF) << 56
        )


@dataclass(frozen=True, slots=True)
class DescriptorTable:
    """GDTR or IDTR: guest-linear base and the offset of the last byte."""

    base: int = 0
    limit: int = 0


TR_AT_RESET = Segment(0, 0, 0xFFFF, ATTR_TSS_BUSY)
LDTR_AT_RESET = Segment(0, 0, 0xFFFF, ATTR_LDT)


@dataclass(frozen=True, slots=True)
class X86Registers:
    """The state of one x86 CPU; what a field does not name is as after reset."""

    rip: int
    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    gdtr: DescriptorTable
    idtr: DescriptorTable = DescriptorTable()
    tr: Segment = TR_AT_RESET
    ldtr: Segment = LDTR_AT_RESET
    cr0: int = CR0_PE | CR0_ET
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    rflags: int = RFLAGS_RESERVED
    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rbp: int = 0
    rsp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0

    @classmethod
    def with_segments(cls, rip: int, code: Segment, data: Segment, gdtr: DescriptorTable) -> Self:
        """Registers whose data segments are all the same; everything else is as after reset."""
        return cls(rip=rip, cs=code, ds=data, es=data, fs=data, gs=data, ss=data, gdtr=gdtr)

    @property
    def pc(self) -> int:
        """Guest-linear address of the first instruction."""
        return self.cs.base + self.rip

    def entered_at(self, address: int) -> Self:
        """A copy whose first instruction is at guest-linear `address`."""
        return replace(self, rip=address - self.cs.base)

    @property
    def long_mode(self) -> bool:
        """Whether the CPU executes 64-bit code."""
        return bool(self.efer & EFER_LMA and self.cs.attributes & ATTR_LONG)

    @property
    def mode(self) -> str:
        """The CPU's mode in words."""
        if self.long_mode:
            return "64-bit mode"
        return "protected mode" if self.cr0 & CR0_PE else "real mode"

    @property
    def page_table_root(self) -> int | None:
        """Guest-physical address of the top page table (64-bit paging), None without paging."""
        return self.cr3 & 0x000FFFFFFFFFF000 if self.long_mode else None


@dataclass(frozen=True, slots=True)
class Arm64Registers:
    """The state of one aarch64 CPU; MMU and caches are off, as after reset.

    `x` holds x0 to x30; `pstate` is in the layout of SPSR_ELx, so it names the exception level.
    """

    pc: int
    x: tuple[int, ...] = (0,) * 31
    sp: int = 0
    pstate: int = PSTATE_DAIF | PSTATE_EL1H

    def __post_init__(self) -> None:
        if len(self.x) != 31:
            raise ValueError(f"aarch64 has x0 to x30: 31 values, not {len(self.x)}")

    def entered_at(self, address: int) -> Self:
        """A copy whose first instruction is at `address`."""
        return replace(self, pc=address)

    @property
    def exception_level(self) -> int:
        return self.pstate >> 2 & 3

    @property
    def mode(self) -> str:
        """The CPU's mode in words."""
        return f"EL{self.exception_level}"

    @property
    def page_table_root(self) -> int | None:
        """None: the boot protocol has the MMU off."""
        return None

    def with_x(self, **values: int) -> Self:
        """A copy with the named registers changed, for example `with_x(x0=dtb)`."""
        x = list(self.x)
        for name, value in values.items():
            x[int(name.removeprefix("x"))] = value
        return replace(self, x=tuple(x))


Registers = X86Registers | Arm64Registers

REGISTERS_BY_ARCH: dict[str, type[Registers]] = {
    "x86_64": X86Registers,
    "aarch64": Arm64Registers,
}


def to_json(registers: Registers) -> dict[str, Any]:
    """The registers as JSON-able data; numbers are hexadecimal strings: a double is too narrow."""
    return {f.name: _to_json(getattr(registers, f.name)) for f in fields(registers)}


def from_json(arch: str, data: object, path: str = "$") -> Registers:
    """Reads back what `to_json` gave; fields left out have their default.

    Raises ValueError naming the JSON path, the value and what is allowed.
    """
    cls = REGISTERS_BY_ARCH.get(arch)
    if cls is None:
        known = ", ".join(sorted(REGISTERS_BY_ARCH))
        raise ValueError(f"{path}: no registers for architecture {arch!r} (known: {known})")
    value = _record_from_json(cls, data, path)
    assert isinstance(value, X86Registers | Arm64Registers)
    return value


_NESTED: dict[str, type] = {
    **dict.fromkeys(("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr"), Segment),
    **dict.fromkeys(("gdtr", "idtr"), DescriptorTable),
}


def _to_json(value: object) -> object:
    if isinstance(value, Segment | DescriptorTable):
        return {f.name: hex(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [hex(item) for item in value]
    assert isinstance(value, int)
    return hex(value)


def _record_from_json(cls: type, data: object, path: str) -> object:
    required = [f.name for f in fields(cls) if f.default is MISSING]
    optional = [f.name for f in fields(cls) if f.default is not MISSING]
    items = strictjson.record(data, path, required, optional)
    return cls(**{key: _field_from_json(key, item, f"{path}.{key}") for key, item in items.items()})


def _field_from_json(name: str, value: object, path: str) -> object:
    if name in _NESTED:
        return _record_from_json(_NESTED[name], value, path)
    if name == "x":
        items = strictjson.array(value, path, 31, 31)
        return tuple(strictjson.number(item, f"{path}[{i}]") for i, item in enumerate(items))
    return strictjson.number(value, path)
