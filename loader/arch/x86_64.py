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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, pairwise
from typing import Final, Self

from bootproof.dataclass import dataclass
from bootproof.loader.address import GIB, Range, align_up
from bootproof.loader.arch import (
    Architecture,
    Copy,
    Read,
    Stub,
    StubError,
    check_width,
    code_at,
    refuse,
    x86_paging,
)

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
_ATTRIBUTES: Final = 0xF0FF
ATTR_GRANULARITY = 0x8000


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register with its hidden cache.

    `limit` is the offset of the last byte, already scaled; `attributes` as the ATTR_* constants.
    Bits 8 to 11 of them, where a descriptor has a part of its limit, say nothing.
    """

    selector: int
    base: int = 0
    limit: int = 0xFFFFFFFF
    attributes: int = ATTR_DATA

    @property
    def is_tss(self) -> bool:
        """Whether it is a task state segment, of 16 or 32 bits, busy or not."""
        return self.attributes & 0x95 == 0x81

    @property
    def unused(self) -> bool:
        """Whether a null selector leaves nothing of it that a program could notice."""
        local = self.attributes & 0x9F == ATTR_LDT
        return not self.selector and not self.base and (local or not self.attributes & 0x80)

    @property
    def null(self) -> bool:
        """Whether it is one that can be used although its selector is null: hypervisors can give a
        CPU that, instructions cannot.
        """
        return not self.selector >> 3 and not self.unused

    def parts(self) -> Mapping[str, int]:
        """What an entry probe can see of it.

        Whether a TSS is busy is not shown by TCG; and every other descriptor that is loaded, is
        accessed. A stub gives another selector to one with the null selector.
        """
        if self.unused:
            return {"selector": self.selector, "base": 0, "limit": 0, "attributes": 0}
        attributes = self.attributes & _ATTRIBUTES
        attributes = attributes & ~0x2 if self.is_tss else attributes | attributes >> 4 & 0x1
        cache = {"base": self.base, "limit": self.limit, "attributes": attributes}
        return cache if self.null and self != TR_AT_RESET else {"selector": self.selector} | cache

    def descriptor(self) -> int:
        """The 8-byte GDT descriptor that loads this cache (SDM 3.4.5), as an integer.

        A busy TSS is given as an available one, because LTR refuses a busy one and marks it itself.
        """
        limit = self.limit >> 12 if self.attributes & ATTR_GRANULARITY else self.limit
        attributes = self.attributes
        if self.is_tss:
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

    def __post_init__(self) -> None:
        """Bits that read as 1 whatever is written to them."""
        object.__setattr__(self, "cr0", self.cr0 | CR0_ET)
        object.__setattr__(self, "rflags", self.rflags | RFLAGS_RESERVED)

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

    def page_tables(self, read: Read) -> Iterator[int]:
        """The guest-physical pages of the page tables in use, in 64-bit mode."""
        if not self.long_mode:
            return iter(())
        return x86_paging.Walker(read, self.cr3, self.cr4, self.efer).tables()


# --- which states a stub can bring about: any other would end as a guest that resets without a word

_GENERAL: Final = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")  # by their encodings
_EXTENDED: Final = tuple(f"r{number}" for number in range(8, 16))

_CR4_PCIDE: Final = 1 << 17  # cannot be set outside of long mode
# All bits that CPUs may have (SDM 2.2.1 and 2.5; AMD64 Programmer's Manual vol. 2, 3.1.7).
_CR0: Final = 0xE005003F
_CR4: Final = 0x1BFF7FFF
_EFER: Final = 0x36FD01
_MOST_PHYSICAL: Final = 52  # bits of an address (SDM 4.1.4); CR3's others are reserved, or PCIDE's
# What POPF changes at privilege level 0, but TF: the stub itself would be trapped.
_FLAGS: Final = 0x247ED5 | RFLAGS_RESERVED

# Descriptor bits: type, then S, DPL and P; bit 14 is D/B.
_READ_WRITE, _CODE = 0x2, 0x8
_NOT_SYSTEM, _PRIVILEGE, _PRESENT = 0x10, 0x60, 0x80
_DEFAULT_32: Final = 0x4000


def _check(r: X86Registers) -> None:
    """Raises StubError naming the register when the state cannot be reached from CPU reset."""
    _check_control(r)
    _check_code(r.cs)
    for name in ("ds", "es", "fs", "gs", "ss"):
        _check_data(name, getattr(r, name), r.long_mode)
    if r.tr != TR_AT_RESET:
        _check_descriptor("tr", r.tr)
        if not r.tr.is_tss:
            refuse("tr", r.tr, "must be a task state segment that is present, such as 0x8b")
    if not r.ldtr.unused:
        _check_descriptor("ldtr", r.ldtr)
        if r.ldtr.attributes & 0x9F != ATTR_LDT:
            refuse("ldtr", r.ldtr, f"must be of type {ATTR_LDT:#x}")
    width = 64 if r.long_mode else 32
    _check_table("gdtr", r.gdtr, width)
    _check_table("idtr", r.idtr, width)
    for name in ("rip", *_GENERAL):
        check_width(name, getattr(r, name), width)
    for name in _EXTENDED:
        check_width(name, getattr(r, name), 64 if r.long_mode else 0)
    if r.rflags & ~_FLAGS:
        refuse("rflags", hex(r.rflags), "has flags that cannot be set")
    _wanted(r)


def _check_control(r: X86Registers) -> None:
    for name in ("cr0", "cr4"):
        check_width(name, getattr(r, name), 32)
    check_width("cr3", r.cr3, _MOST_PHYSICAL if r.long_mode else 32)
    check_width("efer", r.efer, 64)
    for name, known in (("cr0", _CR0), ("cr4", _CR4), ("efer", _EFER)):
        value = getattr(r, name)
        if value & ~known:
            refuse(name, hex(value), f"has bits that are reserved: {value & ~known:#x}")
    if not r.cr0 & CR0_PE:
        refuse("cr0", hex(r.cr0), "must have PE")
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
    if segment.unused and (long_mode or name != "ss"):
        return
    _check_loadable(name, segment)
    if segment.attributes & (_CODE | _READ_WRITE) == _CODE:
        refuse(name, segment, "cannot be read")
    writable = segment.attributes & (_CODE | _READ_WRITE) == _READ_WRITE
    if name == "ss" and (not writable or segment.attributes & _PRIVILEGE):
        refuse(name, segment, "must be a writable segment of privilege level 0")


def _check_loadable(name: str, segment: Segment) -> None:
    _check_descriptor(name, segment)
    needed = _PRESENT | _NOT_SYSTEM
    if segment.attributes & needed != needed:
        refuse(name, segment, "must be a present code or data segment (bits 7 and 4)")


def _check_descriptor(name: str, segment: Segment) -> None:
    """Whether a selector of the GDT can load this cache."""
    check_width(name, segment.selector, 16, part="selector")
    check_width(name, segment.base, 32, part="base")
    check_width(name, segment.limit, 32, part="limit")
    if segment.selector & 7:
        refuse(name, segment, "must have a GDT selector of privilege level 0")
    check_width(name, segment.attributes, 16, part="attributes")
    coarse = segment.attributes & ATTR_GRANULARITY
    if segment.limit & 0xFFF != 0xFFF if coarse else segment.limit >> 20:
        refuse(name, segment, "has a limit that its granularity cannot express")


def _check_table(name: str, table: DescriptorTable, width: int) -> None:
    check_width(name, table.base, width, part="base")
    check_width(name, table.limit, 16, part="limit")


_SEGMENT_REGISTERS: Final = ("es", "cs", "ss", "ds", "fs", "gs")  # by MOV Sreg's encodings


def _segments(r: X86Registers) -> dict[str, Segment]:
    """Those that are loaded by a selector, by their registers."""
    found = {name: getattr(r, name) for name in _SEGMENT_REGISTERS}
    found |= {} if r.tr == TR_AT_RESET else {"tr": r.tr}
    return found | ({} if r.ldtr.unused else {"ldtr": r.ldtr})


def _wanted(r: X86Registers) -> dict[int, Segment]:
    """What must be in the GDT that the selectors are loaded from, by index. Raises StubError."""
    wanted: dict[int, Segment] = {}
    for name, segment in _segments(r).items():
        index = segment.selector >> 3
        if index and wanted.setdefault(index, segment) != segment:
            what = f"{name}: selector {segment.selector:#x} is demanded with two descriptors"
            raise StubError(what, field=name)
    return wanted


# --- the stub ----------------------------------------------------------------------------------

_MSR_EFER: Final = 0xC0000080
_RESET_CS_BASE: Final = 0xFFFF0000
_STUB_SIZE: Final = 0x1000
_ENTRIES: Final = 1 << 13  # of a descriptor table: a selector has 13 bits for its index
# TCG checks no segment limit, so that the CPU reaches more than 64 KiB from its reset; absolute
# addresses in 64-bit code are 32 bits wide and signed.
_STUB_LIMIT: Final = 2 * GIB
_STUB_HIGHEST: Final = _STUB_LIMIT - _STUB_SIZE


def _stub(registers: X86Registers, address: int, copies: Sequence[Copy], read: Read) -> Stub:
    if copies:
        raise StubError("the x86 stub does not copy memory", field="copies", value=len(copies))
    if address % 16 or not 0 <= address <= _STUB_HIGHEST:
        what, limit = "an x86 stub must be 16-byte aligned and end below 2 GiB", hex(_STUB_HIGHEST)
        raise StubError(what, field="stub address", value=hex(address), limit=limit)
    _check(registers)
    own = _own_mapping(registers, address, read)
    code = _Assembler(registers, own.blob if own else address, own).assemble()
    start = (own.blob if own else address) - _RESET_CS_BASE
    return Stub(address, own.page(code) if own else code, start & 0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class _OwnMapping:
    """How a stub runs whose page the guest's page tables do not map to itself.

    One page is table of every level and code at once: each of its entries leads to the page itself,
    so that whatever level is asked, the stub's linear address leads back to it. The first entry of
    the top table is lent for that; once it is put back, the translation only lives in the TLB.
    """

    address: int
    # The guest's top table; or the page itself, until CR3 can be given all of its bits.
    cr3: int
    # The top table's entry that is lent, as it is and must be again; None of the page itself.
    lent: int | None
    value: int
    levels: int

    @property
    def _selected(self) -> list[int]:
        top = self.levels - (self.lent is not None)
        return [x86_paging.index(self.address, level) for level in range(top, 0, -1)]

    @property
    def _alias(self) -> int:
        """The entry that maps the top table; beside the others, so that they part the page less."""
        lowest = x86_paging.index(self.address, 1)
        near = sorted(range(512), key=lambda entry: abs(entry - lowest))
        return next(entry for entry in near if entry not in self._selected)

    @property
    def entries(self) -> dict[int, int]:
        """The page's entries, by index."""
        itself = dict.fromkeys(self._selected, self.address | _OWN_ENTRY)
        if self.lent is None:
            return itself
        return itself | {self._alias: self.cr3 & x86_paging.ADDRESS | _OWN_ENTRY}

    @property
    def lent_seen_at(self) -> int:
        """The linear address of the lent entry, as long as it is lent."""
        assert self.lent is not None
        place = self.address & ~0x1FFFFF | self._alias << 12
        return place + (self.lent & 0xFFF)

    @property
    def blob(self) -> int:
        """Where code and data begin: in the largest room between entries."""
        taken = sorted(self.entries)
        gaps = pairwise([-1, *taken, 512])
        low, _ = max(((low + 1, high) for low, high in gaps), key=lambda gap: gap[1] - gap[0])
        return self.address + align_up(8 * low, 16)

    @property
    def room(self) -> int:
        """Bytes for code and data, from `blob` on."""
        after = [8 * entry for entry in self.entries if 8 * entry >= self.blob - self.address]
        return min([*after, _STUB_SIZE]) - (self.blob - self.address)

    def page(self, blob: bytes) -> bytes:
        """The whole page."""
        if len(blob) > self.room - _STACK:
            raise StubError(
                "the page tables map no page for the code that sets the registers, and the"
                " selectors are too high for it to do without",
                field="cr3",
                value=hex(self.cr3),
                advice="use selectors below 0x100, or map a free page below 2 GiB to itself",
            )
        page = bytearray(_STUB_SIZE)
        for entry, value in self.entries.items():
            struct.pack_into("<Q", page, 8 * entry, value)
        start = self.blob - self.address
        page[start : start + len(blob)] = blob
        return bytes(page)


_OWN_ENTRY: Final = 0x63  # present, writable, accessed, dirty
_STACK: Final = 64


def _own_mapping(r: X86Registers, address: int, read: Read) -> _OwnMapping | None:
    """What is needed where the guest's own tables do not map the stub, or are where CR3 cannot lead
    before the CPU is in long mode; None where they do.
    """
    if not r.long_mode:
        return None
    found = x86_paging.Walker(read, r.cr3, r.cr4, r.efer).walk(address)
    mapped = found.physical == address and found.writable and found.executable
    count, high = x86_paging.levels(r.cr4), r.cr3 >= 4 * GIB
    if mapped:
        return _OwnMapping(address, address, None, 0, count) if high else None
    lent = (r.cr3 & x86_paging.ADDRESS) + 8 * x86_paging.index(address, count)
    value = read(lent, 8)
    if value is None:  # no tables at all: the CPU will not get far
        return None
    if high:
        what = f"the page tables map no page for the code that sets the registers ({address:#x})"
        advice = "map a free page below 2 GiB to itself, or put the tables below 4 GiB"
        raise StubError(what, field="cr3", value=hex(r.cr3), advice=advice)
    return _OwnMapping(address, r.cr3, lent, int.from_bytes(value, "little"), count)


class _Assembler:
    """Writes the stub front to back; data (the stub's own GDT and pointers) lies behind the code.

    The caches are loaded from the stub's own GDT, in which every demanded selector has exactly the
    demanded descriptor; GDTR gets its final value afterwards, which leaves the caches as they are.
    """

    CODE_SIZE = 0x200

    def __init__(self, registers: X86Registers, address: int, own: _OwnMapping | None) -> None:
        self.r = registers
        self.address = address
        self.own = own
        self.out = bytearray()
        self.segments = _segments(registers)
        wanted = _wanted(registers)
        (code32, data32), stands_for = self._beside(wanted)
        self.code32, self.data32 = code32 << 3, data32 << 3
        self.selectors = {
            name: stands_for.get(segment, 0) << 3 if segment.null else segment.selector
            for name, segment in self.segments.items()
        }
        gdt_at = address + self.CODE_SIZE
        entries = {index: segment.descriptor() for index, segment in wanted.items()}
        entries |= {index: segment.descriptor() for segment, index in stands_for.items()}
        entries |= {code32: 0x00CF9B000000FFFF, data32: 0x00CF93000000FFFF}
        self.gdt, table = self._table(entries, gdt_at)
        pointers_at = gdt_at + len(self.gdt)
        self.own_gdtr_at, self.gdtr_at, self.idtr_at, self.target_at = (
            pointers_at + 16 * index for index in range(4)
        )
        self.scratch_stack = address + (own.room if own else _STUB_SIZE) & ~0xF
        tables = table, registers.gdtr, registers.idtr
        self.data = self.gdt + b"".join(map(_pointer, tables)) + struct.pack("<Q", registers.rip)

    def _beside(self, wanted: Mapping[int, Segment]) -> tuple[tuple[int, int], dict[Segment, int]]:
        """Entries near those that are wanted: private code and data, and one for each segment that
        has no selector to load it by.
        """
        near = min(wanted, default=1)
        around = chain.from_iterable((near - far, near + far) for far in range(1, _ENTRIES))
        free = (i for i in chain((near,), around) if 0 < i < _ENTRIES and i not in wanted)
        code, data = next(free), next(free)
        nameless = dict.fromkeys(s for s in self.segments.values() if s.null)
        return (code, data), {segment: next(free) for segment in nameless}

    def _table(self, entries: Mapping[int, int], at: int) -> tuple[bytes, DescriptorTable]:
        """The part of the table that has entries, and what leads to the whole of it."""
        first, last = min(entries), max(entries)
        rows = [entries.get(index, 0) for index in range(first, last + 1)]
        gdt = struct.pack(f"<{len(rows)}Q", *rows)
        base = at - 8 * first
        if self.CODE_SIZE + len(gdt) + 64 > _STUB_SIZE - 64 or (base < 0 and self.r.long_mode):
            highest = max(self.segments.items(), key=lambda item: item[1].selector)
            what = f"{highest[0]}: selector {highest[1].selector:#x} is too high for the stub's GDT"
            raise StubError(what, field=highest[0])
        whole = DescriptorTable(base & 0xFFFFFFFF, 8 * last + 7)
        return gdt.ljust(align_up(len(gdt), 16), b"\0"), whole

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
        self.emit("67 66 0f 01 15", _u32(self.own_gdtr_at))  # lgdt [disp32]
        self.emit("66 b8", _u32(CR0_PE | CR0_ET))  # mov eax, imm32
        self.emit("0f 22 c0")  # mov cr0, eax
        self.emit("66 ea", _u32(self.here() + 8), _u16(self.code32))  # jmp code32:next

    def _protected_mode(self) -> None:
        """Control registers, task register, final CS; ends with CS as demanded, in its mode."""
        self._load_segments({"ss": self.data32, "ds": self.data32})
        if "tr" in self.selectors:
            self.emit("66 b8", _u16(self.selectors["tr"]))
            self.emit("0f 00 d8")  # ltr ax
        if "ldtr" in self.selectors:
            self.emit("66 b8", _u16(self.selectors["ldtr"]))
            self.emit("0f 00 d0")  # lldt ax
        if self.own and self.own.lent is not None:
            self._lend(self.own, self.own.lent)
        self._mov_cr(4, self.r.cr4)
        self._mov_cr(2, self.r.cr2)
        self._mov_cr(3, self.own.cr3 if self.own else self.r.cr3)
        if self.r.efer:
            self.emit("b9", _u32(_MSR_EFER))
            self.emit("b8", _u32(self.r.efer & ~EFER_LMA & 0xFFFFFFFF))
            self.emit("ba", _u32(self.r.efer >> 32))
            self.emit("0f 30")  # wrmsr
        self._mov_cr(0, self.r.cr0)
        self.emit("ea", _u32(self.here() + 7), _u16(self.selectors["cs"]))  # jmp cs:next

    def _lend(self, own: _OwnMapping, lent: int) -> None:
        """Paging is still off."""
        for half in (0, 4):
            value = (own.address | _OWN_ENTRY) >> 8 * half
            self.emit("c7 05", _u32(lent + half), _u32(value))  # mov dword [disp32], imm32

    def _give_back(self, own: _OwnMapping) -> None:
        if own.lent is None:
            self.emit("48 b8", struct.pack("<Q", self.r.cr3))  # mov rax, imm64
            self.emit("0f 22 d8")  # mov cr3, rax
            return
        self.emit("48 b8", struct.pack("<Q", own.value))  # mov rax, imm64
        self.emit("48 a3", struct.pack("<Q", own.lent_seen_at))  # mov [moffs64], rax

    def _mov_cr(self, number: int, value: int) -> None:
        self.emit("b8", _u32(value))
        self.emit(f"0f 22 {0xC0 | number << 3:02x}")

    def _load_segments(self, selectors: dict[str, int]) -> None:
        for name, selector in selectors.items():
            self.emit("66 b8", _u16(selector))  # mov ax, imm16
            self.emit(f"8e {0xC0 | _SEGMENT_REGISTERS.index(name) << 3:02x}")  # mov sreg, ax

    def _demanded_data_segments(self) -> dict[str, int]:
        return {name: self.selectors[name] for name in ("ds", "es", "fs", "gs", "ss")}

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
        if self.own:
            self._give_back(self.own)
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


_REFUSED: Final = {
    **{bytes((0x0F, 0x22, 0xC0 | number << 3)): f"cr{number}" for number in (0, 3, 4)},
    b"\x0f\x30": "efer",
}


def _sets(code: bytes) -> str:
    return next((name for opcode, name in _REFUSED.items() if code.startswith(opcode)), "")


# --- CPUs that wait for the kernel ---------------------------------------------------------------

_HLT: Final = 0xF4
_JUMP_TO_ITSELF: Final = b"\xeb\xfe"
_RFLAGS_IF: Final = 1 << 9


def _runs(r: X86Registers, first: X86Registers, read: Read) -> str:
    """What is in the registers of a CPU that waits for its SIPI is lost by that: after a reset, and
    where a VMM gives every CPU those of the first one. A firmware halts the others.
    """
    if r.pc in (_RESET_CS_BASE + 0xFFF0, first.pc):
        return ""
    place: int | None = r.pc
    if r.long_mode:
        place = x86_paging.Walker(read, r.cr3, r.cr4, r.efer).walk(r.pc).physical
    code = b"" if place is None else code_at(read, place - 1, 3)
    halts = _HLT in code[:2] or code[1:] == _JUMP_TO_ITSELF
    if not code or (halts and not r.rflags & _RFLAGS_IF):
        return ""
    return f"is at {r.pc:#x} in {r.mode}, neither halted nor in wait for its SIPI"


X86_64: Final = Architecture(
    name="x86_64",
    registers=X86Registers,
    stub_size=_STUB_SIZE,
    stub_window=Range.between(_STUB_SIZE, _STUB_LIMIT),  # page 0: real-mode vectors
    programs=(62, 3),
    check=_check,
    stub=_stub,
    runs=_runs,
    sets=_sets,
    landmark=lambda _head: ("_text", 0),
)
