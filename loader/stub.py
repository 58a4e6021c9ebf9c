"""Register state -> machine code that realises it, started straight from CPU reset.

QEMU's generic loader can only set a program counter. The stub starts there and makes everything
else of `Registers` true, then jumps to the kernel. It touches no memory but its own bytes and the
copies it is asked to make, so the kernel sees the RAM the loader wrote.
Knows nothing of kernels or protocols: any register state in, code out.

x86: the CPU starts in 16-bit real mode with CS.base 0xffff0000 and the loader device sets only EIP,
so EIP = address + 0x10000 starts at linear `address` (SDM vol. 3A 9.1.4; the sum wraps at 2^32).
aarch64: an exception return installs PSTATE and pc together, so no register has to hold the target.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from bootproof.loader.reachable import StubError, check_arm64, check_x86
from bootproof.loader.registers import (
    CR0_ET,
    CR0_PE,
    EFER_LMA,
    LDTR_AT_RESET,
    TR_AT_RESET,
    Arm64Registers,
    DescriptorTable,
    Registers,
    Segment,
    X86Registers,
)

X86_STUB_LIMIT = 0x10000  # 16-bit addressing and a DS limit of 64 KiB after reset
X86_STUB_SIZE = 0x1000
ARM64_STUB_SIZE = 0x1000
_X86_RESET_CS_BASE = 0xFFFF0000


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes the stub moves before anything else; guest-physical, 16-byte aligned, size too."""

    source: int
    destination: int
    size: int


@dataclass(frozen=True, slots=True)
class Stub:
    """Code for guest-physical `address`; `loader_entry` is what the loader device must be given."""

    address: int
    code: bytes
    loader_entry: int


def build(registers: Registers, address: int, copies: tuple[Copy, ...] = ()) -> Stub:
    """Makes the stub that brings one CPU from reset to `registers`.

    `address` is guest-physical: below 64 KiB on x86, 16-byte aligned on aarch64.
    Raises StubError for a state that cannot be reached this way.
    """
    if isinstance(registers, Arm64Registers):
        check_arm64(registers)
        return Stub(address, _arm64_code(registers, address, copies), address)
    if copies:
        raise StubError("the x86 stub does not copy memory", field="copies", value=len(copies))
    if address % 16 or not 0 <= address <= X86_STUB_LIMIT - X86_STUB_SIZE:
        raise StubError(
            "an x86 stub must be 16-byte aligned and end below 64 KiB",
            field="stub address",
            value=hex(address),
            limit=hex(X86_STUB_LIMIT - X86_STUB_SIZE),
        )
    check_x86(registers)
    code = _X86Assembler(registers, address).assemble()
    return Stub(address, code, (address - _X86_RESET_CS_BASE) & 0xFFFFFFFF)


# --- x86 ---------------------------------------------------------------------------------------

_GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")  # in the order of the encodings
_GPRS_EXTENDED = tuple(f"r{number}" for number in range(8, 16))
_SEGMENT_REGISTERS = ("es", "cs", "ss", "ds", "fs", "gs")  # in the order of MOV Sreg's encodings
_MSR_EFER = 0xC0000080


class _X86Assembler:
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
        self.scratch_stack = address + X86_STUB_SIZE
        self.data = (
            self.gdt
            + _pointer(DescriptorTable(gdt_at, len(self.gdt) - 1))
            + _pointer(registers.gdtr)
            + _pointer(registers.idtr)
            + struct.pack("<Q", registers.rip)
        )

    def _own_gdt(self) -> tuple[bytes, int, int]:
        """The stub's GDT and the selectors of its private flat 32-bit code and data segments."""
        wanted: dict[int, Segment] = {}
        names = (*_SEGMENT_REGISTERS, "tr", "ldtr")
        for name in names:
            segment: Segment = getattr(self.r, name)
            index = segment.selector >> 3
            if index and wanted.setdefault(index, segment) != segment:
                raise StubError(
                    f"{name}: selector {segment.selector:#x} is demanded with two descriptors",
                    field=name,
                )
        code32, data32 = max(wanted, default=0) + 2, max(wanted, default=0) + 3
        entries = [0] * (data32 + 1)
        for index, segment in wanted.items():
            entries[index] = segment.descriptor()
        entries[code32], entries[data32] = 0x00CF9B000000FFFF, 0x00CF93000000FFFF
        gdt = struct.pack(f"<{len(entries)}Q", *entries)
        if self.CODE_SIZE + len(gdt) + 64 > X86_STUB_SIZE - 64:
            highest = max(wanted) << 3
            name = next(n for n in names if getattr(self.r, n).selector == highest)
            raise StubError(
                f"{name}: selector {highest:#x} is too high for the stub's own GDT", field=name
            )
        return gdt.ljust(-(-len(gdt) // 16) * 16, b"\0"), code32 << 3, data32 << 3

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
        for number, name in enumerate(_GPRS):
            self.emit(f"{0xB8 + number:02x}", _u32(getattr(self.r, name)))
        self.emit("e9", _u32(self.r.rip - (self.here() + 5)))  # jmp rel32

    def _final_64(self) -> None:
        self._load_segments(self._demanded_data_segments())
        self.emit("0f 01 14 25", _u32(self.gdtr_at))  # lgdt [disp32]
        self.emit("0f 01 1c 25", _u32(self.idtr_at))  # lidt [disp32]
        self.emit("bc", _u32(self.scratch_stack))  # mov esp, imm32
        self.emit("68", _u32(self.r.rflags))  # push imm32
        self.emit("9d")  # popfq
        for number, name in enumerate(_GPRS):
            self.emit(f"48 {0xB8 + number:02x}", struct.pack("<Q", getattr(self.r, name)))
        for number, name in enumerate(_GPRS_EXTENDED):
            self.emit(f"49 {0xB8 + number:02x}", struct.pack("<Q", getattr(self.r, name)))
        self.emit("ff 24 25", _u32(self.target_at))  # jmp [disp32]


def _pointer(table: DescriptorTable) -> bytes:
    return struct.pack("<HQ", table.limit, table.base).ljust(16, b"\0")


def _u16(value: int) -> bytes:
    return struct.pack("<H", value)


def _u32(value: int) -> bytes:
    return struct.pack("<I", value & 0xFFFFFFFF)


# --- aarch64 -----------------------------------------------------------------------------------

_ELR_SPSR = {1: (0xD5184020, 0xD5184000), 2: (0xD51C4020, 0xD51C4000)}  # msr elr_elN / spsr_elN, x0
_COPY_LOOP = (
    0xA8C10C82,  # ldp x2, x3, [x4], #16
    0xA8810CA2,  # stp x2, x3, [x5], #16
    0xF10040C6,  # subs x6, x6, #16
    0x54FFFFA1,  # b.ne -12
)


def _arm64_code(registers: Arm64Registers, address: int, copies: tuple[Copy, ...]) -> bytes:
    code = _Arm64Assembler(address)
    for copy in copies:
        if (copy.source | copy.destination | copy.size) % 16 or not copy.size:
            raise StubError("a copy must be 16-byte aligned", field="copies", value=copy)
        code.load(4, copy.source)
        code.load(5, copy.destination)
        code.load(6, copy.size)
        code.words += _COPY_LOOP
    write_elr, write_spsr = _ELR_SPSR[registers.exception_level]
    code.load(0, registers.sp)
    code.words.append(0x9100001F)  # mov sp, x0
    code.load(0, registers.pc)
    code.words.append(write_elr)
    code.load(0, registers.pstate)
    code.words.append(write_spsr)
    for number, value in enumerate(registers.x):
        code.load(number, value)
    code.words += (0xD508751F, 0xD5033F9F, 0xD5033FDF)  # ic iallu; dsb sy; isb
    code.words.append(0xD69F03E0)  # eret
    assembled = code.assemble()
    if len(assembled) > ARM64_STUB_SIZE:
        raise StubError(
            "too many copies for one stub", field="copies", value=len(copies), limit=ARM64_STUB_SIZE
        )
    return assembled


class _Arm64Assembler:
    """Instructions with a literal pool behind them (Arm ARM C6.2, LDR literal)."""

    def __init__(self, address: int) -> None:
        if address % 16:
            raise StubError("must be 16-byte aligned", field="stub address", value=hex(address))
        self.words: list[int] = []
        self.literals: list[tuple[int, int, int]] = []  # instruction index, register, value

    def load(self, register: int, value: int) -> None:
        self.literals.append((len(self.words), register, value))
        self.words.append(0)

    def assemble(self) -> bytes:
        pool = sorted({value for _, _, value in self.literals})
        pool_at = len(self.words) + len(self.words) % 2
        for index, register, value in self.literals:
            distance = pool_at + 2 * pool.index(value) - index
            self.words[index] = 0x58000000 | distance << 5 | register
        code = struct.pack(f"<{len(self.words)}I", *self.words).ljust(pool_at * 4, b"\0")
        return code + struct.pack(f"<{len(pool)}Q", *pool)
