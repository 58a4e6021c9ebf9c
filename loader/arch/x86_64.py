"""x86_64: the state of a CPU, which states a reset stub can bring about, and the stub.

The complete state includes the hidden segment caches. A stub starts in 16-bit real mode, straight
from CPU reset: CS.base is 0xffff0000 and QEMU's loader device sets only EIP, so that
EIP = address + 0x10000 starts at linear `address` (SDM vol. 3A 9.1.4; the sum wraps at 2^32). It
touches no memory but its own bytes, so the kernel sees the RAM the loader wrote. Knows nothing of
kernels or protocols.

Sources: Intel SDM vol. 3A 2.3 (flags), 2.5 (control registers), 3.4.5 and 5.5 to 5.8 (segment
descriptors and what a segment register can be loaded with), 9.1 (state after reset), 9.8.5 (into
long mode).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

from bootproof.loader.address import Range, align_up
from bootproof.loader.arch import Architecture, Copy, Stub, StubError, check_width, refuse

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


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register with its hidden cache.

    `limit` is the offset of the last byte, already scaled; `attributes` as the ATTR_* constants.
    """

    selector: int
    base: int = 0
    limit: int = 0xFFFFFFFF
    attributes: int = ATTR_DATA

    def parts(self) -> Mapping[str, int]:
        """What an entry probe can see of it: whether a TSS is busy is not shown by TCG."""
        system, type_ = not self.attributes & 0x10, self.attributes & 0xF
        busy = 0x2 if system and type_ & 0x5 == 0x1 else 0
        cache = {"base": self.base, "limit": self.limit, "attributes": self.attributes & ~busy}
        return {"selector": self.selector} | cache

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


# --- which states a stub can bring about: any other would end as a guest that resets without a word

_GENERAL: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")  # by their encodings
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


def _check(r: X86Registers) -> None:
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
        check_width(name, getattr(r, name), width)
    for name in _EXTENDED:
        check_width(name, getattr(r, name), 64 if r.long_mode else 0)
    if r.rflags & ~_FLAGS or not r.rflags & RFLAGS_RESERVED:
        refuse("rflags", hex(r.rflags), "has flags that cannot be set, or lacks bit 1")


def _check_control(r: X86Registers) -> None:
    for name in ("cr0", "cr3", "cr4"):
        check_width(name, getattr(r, name), 32)
    check_width("efer", r.efer, 64)
    if not r.cr0 & CR0_PE or not r.cr0 & CR0_ET:
        refuse("cr0", hex(r.cr0), "must have PE, and ET, which is hard-wired")
    paging, enabled, active = (
        bool(bit) for bit in (r.cr0 & CR0_PG, r.efer & EFER_LME, r.efer & EFER_LMA)
    )
    if active != (paging and enabled) or active != bool(r.cs.attributes & ATTR_LONG):
        refuse("efer", hex(r.efer), "LMA, LME, CR0.PG and CS.L do not agree on the CPU's mode")
    if active and not r.cr4 & CR4_PAE:
        refuse("cr4", hex(r.cr4), "must have PAE in long mode")
    if r.cr4 & _CR4_PCIDE:
        refuse("cr4", hex(r.cr4), "PCIDE can be set by the guest only")


def _check_code(cs: Segment) -> None:
    _check_loadable("cs", cs)
    if not cs.attributes & _CODE or cs.attributes & _PRIVILEGE:
        refuse("cs", cs, "must be a code segment of privilege level 0")
    if bool(cs.attributes & ATTR_LONG) == bool(cs.attributes & _DEFAULT_32):
        refuse("cs", cs, "must be a 32-bit or a 64-bit segment")
    if cs.base or (not cs.attributes & ATTR_LONG and cs.limit != 0xFFFFFFFF):
        refuse("cs", cs, "must be flat")


def _check_data(name: str, segment: Segment, long_mode: bool) -> None:
    if segment == _NULL and (long_mode or name != "ss"):
        return
    _check_loadable(name, segment)
    if segment.attributes & (_CODE | _READ_WRITE) == _CODE:
        refuse(name, segment, "cannot be read")
    writable = segment.attributes & (_CODE | _READ_WRITE) == _READ_WRITE
    if name == "ss" and (not writable or segment.attributes & _PRIVILEGE):
        refuse(name, segment, "must be a writable segment of privilege level 0")


def _check_loadable(name: str, segment: Segment) -> None:
    _check_descriptor(name, segment)
    needed = _PRESENT | _NOT_SYSTEM | _ACCESSED
    if segment.attributes & needed != needed:
        refuse(name, segment, "must be present and, as loading makes it, accessed")


def _check_system(name: str, segment: Segment, attributes: int) -> None:
    _check_descriptor(name, segment)
    if segment.attributes & 0xFF & ~_PRIVILEGE != attributes:
        refuse(name, segment, f"must be of type {attributes:#x}")


def _check_descriptor(name: str, segment: Segment) -> None:
    """Whether a selector of the GDT can load this cache."""
    check_width(name, segment.selector, 16, part="selector")
    check_width(name, segment.base, 32, part="base")
    check_width(name, segment.limit, 32, part="limit")
    if segment.selector & 7 or not segment.selector:
        refuse(name, segment, "must have a GDT selector of privilege level 0 that is not null")
    if segment.attributes & ~_ATTRIBUTES:
        refuse(name, segment, "has attributes that no descriptor has")
    coarse = segment.attributes & ATTR_GRANULARITY
    if segment.limit & 0xFFF != 0xFFF if coarse else segment.limit >> 20:
        refuse(name, segment, "has a limit that its granularity cannot express")


def _check_table(name: str, table: DescriptorTable, width: int) -> None:
    check_width(name, table.base, width, part="base")
    check_width(name, table.limit, 16, part="limit")


# --- the stub ----------------------------------------------------------------------------------

_SEGMENT_REGISTERS: Final = ("es", "cs", "ss", "ds", "fs", "gs")  # by MOV Sreg's encodings
_MSR_EFER: Final = 0xC0000080
_RESET_CS_BASE: Final = 0xFFFF0000
_STUB_LIMIT: Final = 0x10000  # 16-bit addressing and a DS limit of 64 KiB after reset
_STUB_SIZE: Final = 0x1000
_STUB_HIGHEST: Final = _STUB_LIMIT - _STUB_SIZE


def _stub(registers: X86Registers, address: int, copies: Sequence[Copy]) -> Stub:
    if copies:
        raise StubError("the x86 stub does not copy memory", field="copies", value=len(copies))
    if address % 16 or not 0 <= address <= _STUB_HIGHEST:
        what, limit = "an x86 stub must be 16-byte aligned and end below 64 KiB", hex(_STUB_HIGHEST)
        raise StubError(what, field="stub address", value=hex(address), limit=limit)
    _check(registers)
    code = _Assembler(registers, address).assemble()
    return Stub(address, code, (address - _RESET_CS_BASE) & 0xFFFFFFFF)


class _Assembler:
    """Writes the stub front to back; data (the stub's own GDT and pointers) lies behind the code.

    The caches are loaded from the stub's own GDT, in which every demanded selector has exactly the
    demanded descriptor; GDTR gets its final value afterwards, which leaves the caches as they are.
    """

    CODE_SIZE = 0x200

    def __init__(self, registers: X86Registers, address: int) -> None:
        self.r = registers
        self.address = address
        self.out = bytearray()
        self.gdt, self.code32, self.data32 = self._own_gdt()
        gdt_at = address + self.CODE_SIZE
        pointers_at = gdt_at + len(self.gdt)
        self.own_gdtr_at, self.gdtr_at, self.idtr_at, self.target_at = (
            pointers_at + 16 * index for index in range(4)
        )
        self.scratch_stack = address + _STUB_SIZE
        tables = DescriptorTable(gdt_at, len(self.gdt) - 1), registers.gdtr, registers.idtr
        self.data = self.gdt + b"".join(map(_pointer, tables)) + struct.pack("<Q", registers.rip)

    def _own_gdt(self) -> tuple[bytes, int, int]:
        """The stub's GDT and the selectors of its private flat 32-bit code and data segments."""
        wanted: dict[int, Segment] = {}
        names = (*_SEGMENT_REGISTERS, "tr", "ldtr")
        for name in names:
            segment: Segment = getattr(self.r, name)
            index = segment.selector >> 3
            if index and wanted.setdefault(index, segment) != segment:
                what = f"{name}: selector {segment.selector:#x} is demanded with two descriptors"
                raise StubError(what, field=name)
        code32, data32 = max(wanted, default=0) + 2, max(wanted, default=0) + 3
        entries = [0] * (data32 + 1)
        for index, segment in wanted.items():
            entries[index] = segment.descriptor()
        entries[code32], entries[data32] = 0x00CF9B000000FFFF, 0x00CF93000000FFFF
        gdt = struct.pack(f"<{len(entries)}Q", *entries)
        if self.CODE_SIZE + len(gdt) + 64 > _STUB_SIZE - 64:
            highest = max(wanted) << 3
            name = next(n for n in names if getattr(self.r, n).selector == highest)
            what = f"{name}: selector {highest:#x} is too high for the stub's own GDT"
            raise StubError(what, field=name)
        return gdt.ljust(align_up(len(gdt), 16), b"\0"), code32 << 3, data32 << 3

    def assemble(self) -> bytes:
        self._real_mode()
        self._protected_mode()
        if self.r.long_mode:
            self._final_64()
        else:
            self._final_32()
        if len(self.out) > self.CODE_SIZE:
            raise AssertionError("the x86 stub has outgrown its code area")
        return bytes(self.out).ljust(self.CODE_SIZE, b"\xf4") + self.data

    def emit(self, text: str, *operands: bytes) -> None:
        self.out += bytes.fromhex(text) + b"".join(operands)

    def here(self) -> int:
        return self.address + len(self.out)

    def _real_mode(self) -> None:
        self.emit("fa fc")  # cli; cld
        self.emit("66 0f 01 16", _u16(self.own_gdtr_at))  # lgdt
        self.emit("66 b8", _u32(CR0_PE | CR0_ET))  # mov eax, imm32
        self.emit("0f 22 c0")  # mov cr0, eax
        self.emit("66 ea", _u32(self.here() + 8), _u16(self.code32))  # jmp code32:next

    def _protected_mode(self) -> None:
        """Control registers, task register, final CS; ends with CS as demanded, in its mode."""
        self._load_segments({"ss": self.data32, "ds": self.data32})
        if self.r.tr != TR_AT_RESET:
            self.emit("66 b8", _u16(self.r.tr.selector))
            self.emit("0f 00 d8")  # ltr ax
        if self.r.ldtr != LDTR_AT_RESET:
            self.emit("66 b8", _u16(self.r.ldtr.selector))
            self.emit("0f 00 d0")  # lldt ax
        self._mov_cr(4, self.r.cr4)
        self._mov_cr(2, self.r.cr2)
        self._mov_cr(3, self.r.cr3)
        if self.r.efer:
            self.emit("b9", _u32(_MSR_EFER))
            self.emit("b8", _u32(self.r.efer & ~EFER_LMA & 0xFFFFFFFF))
            self.emit("ba", _u32(self.r.efer >> 32))
            self.emit("0f 30")  # wrmsr
        self._mov_cr(0, self.r.cr0)
        self.emit("ea", _u32(self.here() + 7), _u16(self.r.cs.selector))  # jmp cs:next

    def _mov_cr(self, number: int, value: int) -> None:
        self.emit("b8", _u32(value))
        self.emit(f"0f 22 {0xC0 | number << 3:02x}")

    def _load_segments(self, selectors: dict[str, int]) -> None:
        for name, selector in selectors.items():
            self.emit("66 b8", _u16(selector))  # mov ax, imm16
            self.emit(f"8e {0xC0 | _SEGMENT_REGISTERS.index(name) << 3:02x}")  # mov sreg, ax

    def _demanded_data_segments(self) -> dict[str, int]:
        return {name: getattr(self.r, name).selector for name in ("ds", "es", "fs", "gs", "ss")}

    def _final_32(self) -> None:
        self.emit("bc", _u32(self.scratch_stack))  # mov esp, imm32
        self.emit("68", _u32(self.r.rflags))  # push imm32
        self.emit("9d")  # popfd
        self._load_segments(self._demanded_data_segments())
        self.emit("2e 0f 01 15", _u32(self.gdtr_at))  # lgdt cs:[disp32]
        self.emit("2e 0f 01 1d", _u32(self.idtr_at))  # lidt cs:[disp32]
        for number, name in enumerate(_GENERAL):
            self.emit(f"{0xB8 + number:02x}", _u32(getattr(self.r, name)))
        self.emit("e9", _u32(self.r.rip - (self.here() + 5)))  # jmp rel32

    def _final_64(self) -> None:
        self._load_segments(self._demanded_data_segments())
        self.emit("0f 01 14 25", _u32(self.gdtr_at))  # lgdt [disp32]
        self.emit("0f 01 1c 25", _u32(self.idtr_at))  # lidt [disp32]
        self.emit("bc", _u32(self.scratch_stack))  # mov esp, imm32
        self.emit("68", _u32(self.r.rflags))  # push imm32
        self.emit("9d")  # popfq
        for number, name in enumerate(_GENERAL):
            self.emit(f"48 {0xB8 + number:02x}", struct.pack("<Q", getattr(self.r, name)))
        for number, name in enumerate(_EXTENDED):
            self.emit(f"49 {0xB8 + number:02x}", struct.pack("<Q", getattr(self.r, name)))
        self.emit("ff 24 25", _u32(self.target_at))  # jmp [disp32]


def _pointer(table: DescriptorTable) -> bytes:
    return struct.pack("<HQ", table.limit, table.base).ljust(16, b"\0")


def _u16(value: int) -> bytes:
    return struct.pack("<H", value)


def _u32(value: int) -> bytes:
    return struct.pack("<I", value & 0xFFFFFFFF)


X86_64: Final = Architecture(
    name="x86_64",
    registers=X86Registers,
    stub_size=_STUB_SIZE,
    stub_window=Range.between(_STUB_SIZE, _STUB_LIMIT),  # page 0: real-mode vectors
    stub=_stub,
)
