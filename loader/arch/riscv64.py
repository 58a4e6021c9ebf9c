"""riscv64: the state of a hart, which states a reset stub can bring about, and the stub.

Kernels run in S-mode above a firmware in M-mode, which the machine has put into RAM by its own. The
stub has two parts. The first is what every hart is reset to: it enters the firmware, which starts
hart 0 in the second, in S-mode, and keeps the others until the kernel asks for them. The second
makes the copies, and returns from an exception that never was: that installs interrupt enable and
pc together, so that no register has to hold the target. Knows nothing of kernels or protocols.

The firmware leaves a timer behind that never expires. A QEMU whose clock counts instructions takes
it for the next thing to happen when a debugger stops the guest, and jumps to the end of all time;
so the second part has it expire soon. Kernels set that timer before they listen to it.

Sources: RISC-V ISA manual, vol. I chapter 2 and vol. II chapter 10 (supervisor CSRs); OpenSBI's
docs/firmware/fw_dynamic.md and include/sbi/fw_dynamic.h; SBI specification v2.0, chapter 6
(timer); the reset ROM of QEMU's boards (hw/riscv/boot.c, riscv_setup_rom_reset_vec), which has the
address of the firmware's device tree.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, Self

from bootproof.dataclass import dataclass
from bootproof.loader.address import MIB, U64_MAX, Range
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
from bootproof.loader.layout import Region

PRIVILEGE_S, PRIVILEGE_M = 1, 3
_PRIVILEGES: Final = {0: "U-mode", PRIVILEGE_S: "S-mode", PRIVILEGE_M: "M-mode"}
_NUMBERS: Final = 32
A0, A1 = 10, 11

FIRMWARE: Final = Region("OpenSBI", Range(0x8000_0000, 2 * MIB))
"""Where the firmware is, and the RAM it may use: it is built to start what follows it behind that
(docs/platform/generic.md, FW_JUMP_ADDR), and protects what it uses of it."""


@dataclass(frozen=True, slots=True)
class RiscvRegisters:
    """The state of one riscv64 hart. `x` holds x0, which is always 0, to x31."""

    pc: int
    x: tuple[int, ...] = (0,) * _NUMBERS
    # As the supervisor's CSR has it; 0 without paging.
    satp: int = 0
    # Whether interrupts are taken in S-mode: sstatus.SIE, 0 or 1.
    sie: int = 0
    # 0: U, 1: S, 3: M.
    privilege: int = PRIVILEGE_S

    def __post_init__(self) -> None:
        if len(self.x) != _NUMBERS:
            raise ValueError(f"riscv64 has x0 to x31: 32 values, not {len(self.x)}")

    def entered_at(self, address: int) -> Self:
        """A copy whose first instruction is at `address`."""
        return replace(self, pc=address)

    @property
    def mode(self) -> str:
        """The hart's mode in words."""
        return _PRIVILEGES.get(self.privilege, f"mode {self.privilege}")

    def page_tables(self, read: Read) -> Iterator[int]:
        """None: the boot protocol has the MMU off."""
        return iter(())

    def with_x(self, **values: int) -> Self:
        """A copy with the named registers changed, for example `with_x(x11=dtb)`."""
        x = list(self.x)
        for name, value in values.items():
            x[int(name.removeprefix("x"))] = value
        return replace(self, x=tuple(x))


def _check(r: RiscvRegisters) -> None:
    """Raises StubError naming the register when the state cannot be reached from a reset."""
    if r.privilege != PRIVILEGE_S:
        refuse("privilege", r.privilege, "must be 1: the firmware starts kernels in S-mode only")
    check_width("sie", r.sie, 1)
    if r.x[0]:
        refuse("x0", hex(r.x[0]), "is always 0")
    values = {"pc": r.pc, "satp": r.satp} | {
        f"x{number}": value for number, value in enumerate(r.x)
    }
    for name, value in values.items():
        check_width(name, value, 64)
    if r.pc % 2:
        refuse("pc", hex(r.pc), "must be a multiple of 2")


STUB_SIZE: Final = 0x1000
_STARTED_AT, _INFO_AT, _SECOND_AT = 0x78, 0x80, 0x100  # the first is 8 bytes: zero, then not
_MHARTID, _SSTATUS, _SEPC, _SATP = 0xF14, 0x100, 0x141, 0x180
_SPIE, _SPP = 1 << 5, 1 << 8  # what interrupt enable and privilege become with an sret
_T0, _A2 = 5, 12
_FENCE_I, _SRET, _SFENCE_VMA = 0x0000100F, 0x10200073, 0x12000073
_READ, _WRITE, _SET, _CLEAR = 2, 1, 2, 3  # csrr is csrrs with x0
_COPY_LOOP: Final = (
    0x00053283,  # ld t0, 0(a0)
    0x00853303,  # ld t1, 8(a0)
    0x0055B023,  # sd t0, 0(a1)
    0x0065B423,  # sd t1, 8(a1)
    0x01050513,  # addi a0, a0, 16
    0x01058593,  # addi a1, a1, 16
    0xFF060613,  # addi a2, a2, -16
    0xFE0612E3,  # bnez a2, -28
)

_A6, _A7 = 16, 17
_TIMER: Final = 0x5449_4D45  # the extension; its function 0 sets the time
_EXPIRE_SOON: Final = (
    0xC0102573,  # rdtime a0
    0x3E850513,  # addi a0, a0, 1000
    0x00000073,  # ecall
)

# In the reset ROM: where the board has put the device tree that is for the firmware.
_FIRMWARE_DTB: Final = 0x1020
_INFO: Final = struct.Struct("<6Q")  # struct fw_dynamic_info
_INFO_MAGIC, _INFO_VERSION = 0x4942_534F, 2
_NO_BOOT_PRINTS: Final = 1  # include/sbi/sbi_scratch.h
_BOOT_HART: Final = 0


def _stub(registers: RiscvRegisters, address: int, copies: Sequence[Copy], _read: Read) -> Stub:
    _check(registers)
    if address % 16:
        raise StubError("must be 16-byte aligned", field="stub address", value=hex(address))
    info = _INFO.pack(
        *(_INFO_MAGIC, _INFO_VERSION, address + _SECOND_AT),
        *(PRIVILEGE_S, _NO_BOOT_PRINTS, _BOOT_HART),
    )
    started = address + _STARTED_AT
    code = _enter_firmware(address + _INFO_AT, started).ljust(_INFO_AT, b"\0") + info
    code = code.ljust(_SECOND_AT, b"\0") + _enter_kernel(registers, copies, started)
    if len(code) > STUB_SIZE:
        raise StubError(
            "too many copies for one stub", field="copies", value=len(copies), limit=STUB_SIZE
        )
    return Stub(address, code, address)


def _enter_firmware(info: int, started: int) -> bytes:
    """With a0: this hart, a1: the firmware's device tree, a2: `info`.

    OpenSBI goes on in whatever hart comes first, also where it is told which one; so the others
    come when that one has left it, which is when there is something at `started`.
    """
    code = _Assembler()
    code.csr(_READ, A0, _MHARTID, 0)
    code.words.append(_beqz(A0, 20))
    code.load(_T0, started)
    code.words += (_ld(_T0, _T0, 0), _beqz(_T0, -12))
    code.load(A1, _FIRMWARE_DTB)
    code.words.append(_ld(A1, A1, 0))
    code.load(_A2, info)
    code.load(_T0, FIRMWARE.range.start)
    code.words.append(_T0 << 15 | 0x67)  # jr t0
    return code.assemble()


def _enter_kernel(registers: RiscvRegisters, copies: Sequence[Copy], started: int) -> bytes:
    code = _Assembler()
    code.load(_T0, started)
    code.words.append(_sd(_T0, _T0, 0))
    for copy in copies:
        if (copy.source | copy.destination | copy.size) % 16 or not copy.size:
            raise StubError("a copy must be 16-byte aligned", field="copies", value=copy)
        code.load(A0, copy.source)
        code.load(A1, copy.destination)
        code.load(_A2, copy.size)
        code.words += _COPY_LOOP
    code.words.append(_FENCE_I)
    code.load(_A6, 0)
    code.load(_A7, _TIMER)
    code.words += _EXPIRE_SOON
    code.load(_T0, registers.pc)
    code.csr(_WRITE, 0, _SEPC, _T0)
    code.load(_T0, _SPP | _SPIE)
    code.csr(_CLEAR, 0, _SSTATUS, _T0)
    code.load(_T0, _SPP | registers.sie * _SPIE)
    code.csr(_SET, 0, _SSTATUS, _T0)
    code.load(_T0, registers.satp)
    code.csr(_WRITE, 0, _SATP, _T0)
    code.words.append(_SFENCE_VMA)
    for number in range(1, _NUMBERS):
        code.load(number, registers.x[number])
    code.words.append(_SRET)
    return code.assemble()


def _auipc(register: int, pages: int) -> int:
    return (pages & 0xFFFFF) << 12 | register << 7 | 0x17


def _ld(register: int, base: int, offset: int) -> int:
    return (offset & 0xFFF) << 20 | base << 15 | 3 << 12 | register << 7 | 0x03


def _sd(register: int, base: int, offset: int) -> int:
    high, low = offset >> 5 & 0x7F, offset & 0x1F
    return high << 25 | register << 20 | base << 15 | 3 << 12 | low << 7 | 0x23


def _beqz(register: int, distance: int) -> int:
    """Goes `distance` bytes on, or back, when `register` is zero."""
    high = (distance >> 12 & 1) << 31 | (distance >> 5 & 0x3F) << 25
    return high | register << 15 | (distance >> 1 & 0xF) << 8 | (distance >> 11 & 1) << 7 | 0x63


class _Assembler:
    """Position-independent instructions with a literal pool behind them."""

    def __init__(self) -> None:
        self.words: list[int] = []
        self._literals: list[tuple[int, int, int]] = []  # instruction index, register, value

    def csr(self, what: int, target: int, number: int, source: int) -> None:
        """csrrw, csrrs or csrrc."""
        self.words.append(number << 20 | source << 15 | what << 12 | target << 7 | 0x73)

    def load(self, register: int, value: int) -> None:
        """auipc and ld, which need no other register."""
        self._literals.append((len(self.words), register, value))
        self.words += (0, 0)

    def assemble(self) -> bytes:
        pool = sorted({value for _, _, value in self._literals})
        pool_at = len(self.words) + len(self.words) % 2
        for index, register, value in self._literals:
            distance = 4 * (pool_at + 2 * pool.index(value) - index)
            self.words[index] = _auipc(register, (distance + 0x800) >> 12)
            self.words[index + 1] = _ld(register, register, distance)
        code = struct.pack(f"<{len(self.words)}I", *self.words).ljust(pool_at * 4, b"\0")
        return code + struct.pack(f"<{len(pool)}Q", *pool)


# --- harts that wait for the kernel --------------------------------------------------------------

_WFI: Final = 0x1050_0073
_LOOP: Final = 4  # instructions, of a loop around it


def _runs(r: RiscvRegisters, first: RiscvRegisters, read: Read) -> str:
    """The firmware keeps the others; what lies there is the machine's, and no boot image's. Or they
    enter the kernel as the first one does, where that expects it ("Kernel entry" of boot.rst).
    """
    if r.pc == first.pc and draws_lots(read, r.pc):
        alike = replace(r, x=first.x) == first
        if alike and r.x[A0] != first.x[A0]:
            return ""
        return f"enters the kernel {'as the same hart' if alike else 'in another state'} as CPU 0"
    code = around(read, r.pc, _LOOP)
    waits = not code or _WFI in code or FIRMWARE.range.contains(Range(r.pc, 1))
    return "" if waits else f"is at {r.pc:#x}, in code that waits for nothing"


_LOOKED_AT: Final = 256  # bytes of a kernel's first instructions
_AMO: Final = 0b0101111


def draws_lots(read: Read, entry: int) -> bool:
    """Whether all harts may enter the kernel at a guest-physical address, of which the first goes
    on and the others wait: with CONFIG_RISCV_BOOT_SPINWAIT, and with SMP before that was an option.
    It tells the first by an atomic instruction (arch/riscv/kernel/head.S, hart_lottery).
    """
    head = read(entry, 16)
    found = _landmark(head) if head else None
    start = entry + found[1] if found else entry
    code = read(start, _LOOKED_AT) or b""
    at = 0
    while at + 4 <= len(code):
        word = int.from_bytes(code[at : at + 4], "little")
        if word & 0x7F == _AMO:
            return True
        at += 4 if word & 3 == 3 else 2
    return False


# --- kernels -------------------------------------------------------------------------------------

_J: Final = 0x6F  # jal x0


def _landmark(head: bytes) -> tuple[str, int] | None:
    """The first instruction, or the one behind what is "MZ" (arch/riscv/kernel/head.S)."""
    for at in (0, 2, 4):
        word = int.from_bytes(head[at : at + 4], "little")
        if word & 0xFFF == _J:
            low, middle, high = word >> 21 & 0x3FF, word >> 20 & 1, word >> 12 & 0xFF
            return "_start_kernel", at + (high << 12 | middle << 11 | low << 1)
    return None


RISCV64: Final = Architecture(
    name="riscv64",
    registers=RiscvRegisters,
    stub_size=STUB_SIZE,
    stub_window=Range(0, U64_MAX),
    programs=(243,),
    check=_check,
    stub=_stub,
    runs=_runs,
    every_cpu=True,
    landmark=_landmark,
)
