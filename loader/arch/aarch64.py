"""aarch64: the state of a CPU, which states a reset stub can bring about, and the stub.

The MMU and the caches are off, as after reset. A stub is entered where the loader device points; an
exception return installs PSTATE and pc together, so no register has to hold the target. It touches
no memory but its own bytes and the copies it is asked to make. Knows nothing of kernels or
protocols.

Source: Arm ARM (DDI 0487) C5.2 (PSTATE and SPSR), C6.2 (instructions).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Self

from bootproof.dataclass import dataclass
from bootproof.loader.address import U64_MAX, Range
from bootproof.loader.arch import (
    Architecture,
    Copy,
    Read,
    Stub,
    StubError,
    around,
    check_width,
    refuse,
)

PSTATE_DAIF: Final = 0x3C0  # debug, SError, IRQ and FIQ masked
PSTATE_EL1H: Final = 0x5
PSTATE_EL2H: Final = 0x9
_NZCV: Final = 0xF0000000
_MODE: Final = 0x1F
_AARCH32: Final = 0x10  # Arm ARM C5.2.19 (SPSR_EL2): M[4], the execution state


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
    def exception_level(self) -> int | None:
        """None in AArch32, where these bits are part of a mode that tells no level."""
        return None if self.pstate & _AARCH32 else self.pstate >> 2 & 3

    @property
    def mode(self) -> str:
        """The CPU's mode in words."""
        level = self.exception_level
        return "AArch32" if level is None else f"EL{level}"

    def page_tables(self, read: Read) -> Iterator[int]:
        """None: the boot protocol has the MMU off."""
        return iter(())

    def with_x(self, **values: int) -> Self:
        """A copy with the named registers changed, for example `with_x(x0=dtb)`."""
        x = list(self.x)
        for name, value in values.items():
            x[int(name.removeprefix("x"))] = value
        return replace(self, x=tuple(x))


def _check(r: Arm64Registers) -> None:
    """Raises StubError naming the register when the state cannot be reached from CPU reset."""
    if r.pstate & _MODE not in (PSTATE_EL1H, PSTATE_EL2H):
        refuse("pstate", hex(r.pstate), "must be EL1 or EL2 with a stack pointer of its own")
    if r.pstate & ~(_MODE | _NZCV | PSTATE_DAIF):
        refuse("pstate", hex(r.pstate), "may have the flags N, Z, C, V, D, A, I and F only")
    values = {"pc": r.pc, "sp": r.sp} | {f"x{number}": value for number, value in enumerate(r.x)}
    for name, value in values.items():
        check_width(name, value, 64)
    if r.pc % 4:
        refuse("pc", hex(r.pc), "must be a multiple of 4")


STUB_SIZE: Final = 0x1000
_ELR_SPSR: Final = {  # msr elr_elN / spsr_elN, x0
    1: (0xD5184020, 0xD5184000),
    2: (0xD51C4020, 0xD51C4000),
}
_COPY_LOOP: Final = (
    0xA8C10C82,  # ldp x2, x3, [x4], #16
    0xA8810CA2,  # stp x2, x3, [x5], #16
    0xF10040C6,  # subs x6, x6, #16
    0x54FFFFA1,  # b.ne -12
)


def _stub(registers: Arm64Registers, address: int, copies: Sequence[Copy], _read: Read) -> Stub:
    _check(registers)
    code = _Assembler(address)
    for copy in copies:
        if (copy.source | copy.destination | copy.size) % 16 or not copy.size:
            raise StubError("a copy must be 16-byte aligned", field="copies", value=copy)
        code.load(4, copy.source)
        code.load(5, copy.destination)
        code.load(6, copy.size)
        code.words += _COPY_LOOP
    write_elr, write_spsr = _ELR_SPSR[registers.pstate >> 2 & 3]
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
    if len(assembled) > STUB_SIZE:
        raise StubError(
            "too many copies for one stub", field="copies", value=len(copies), limit=STUB_SIZE
        )
    return Stub(address, assembled, address)


class _Assembler:
    """Instructions with a literal pool behind them (LDR literal)."""

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


# --- CPUs that wait for the kernel ---------------------------------------------------------------

_WAITS: Final = (0xD503205F, 0xD503207F)  # wfe, wfi
_LOOP: Final = 4  # instructions, of a loop around one of them


def _runs(r: Arm64Registers, _first: Arm64Registers, read: Read) -> str:
    """One that is off has its pc where its reset left it; one that spins waits for an event."""
    code = around(read, r.pc, _LOOP)
    waits = not r.pc or not code or any(word in _WAITS for word in code)
    return "" if waits else f"is at {r.pc:#x}, in code that waits for nothing"


# --- kernels -------------------------------------------------------------------------------------

_B: Final = 0b000101  # bits 31-26


def _landmark(head: bytes) -> tuple[str, int] | None:
    """code0 of the Image header, or code1 behind what is "MZ" (arch/arm64/kernel/head.S)."""
    for at in (0, 4):
        word = int.from_bytes(head[at : at + 4], "little")
        if word >> 26 == _B:
            return "primary_entry", at + 4 * (word & 0x3FF_FFFF)
    return None


AARCH64: Final = Architecture(
    name="aarch64",
    registers=Arm64Registers,
    stub_size=STUB_SIZE,
    stub_window=Range(0, U64_MAX),
    programs=(183, 40),
    check=_check,
    stub=_stub,
    runs=_runs,
    landmark=_landmark,
)
