"""What QEMU's `info registers` prints, read back into `Registers`.

The human monitor is the only interface that shows the hidden parts of segment registers and the
descriptor-table registers. One parser per architecture; the table in harness/qemu/machine.py names
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bootproof.loader.arch import Registers
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment, X86Registers


@dataclass(frozen=True, slots=True)
class DumpFormat:
    """How an architecture's dump shows what is needed: everything, the pc, the interrupt mask.

    The first group of `flags` is a hexadecimal number; interrupts are off when, of `mask`, exactly
    the bits of `masked` are set in it. A halted CPU shows `halt` in the dump, or the bytes of
    `sleep` are just before its program counter: the instruction after which a CPU sleeps until an
    interrupt comes, even a masked one. `reset_cause` says what dump, bytes before and bytes at the
    program counter tell of a reset. `system` names the registers that only the gdbstub shows.
    """

    parse: Callable[[str], Registers]
    pc: re.Pattern[str]
    flags: re.Pattern[str]
    mask: int
    masked: int
    reset_cause: Callable[[str, bytes, bytes], str]
    halt: str | None = None
    sleep: bytes | None = None
    system: tuple[str, ...] = ()

    def program_counter(self, dump: str) -> int | None:
        """The guest-virtual program counter, or None when the dump has none."""
        found = self.pc.search(dump)
        return int(found.group(1), 16) if found else None

    def interrupts_off(self, dump: str) -> bool:
        found = self.flags.search(dump)
        return found is not None and int(found.group(1), 16) & self.mask == self.masked

    def halted(self, dump: str, before: bytes) -> bool:
        """Whether the CPU of a dump waits for an interrupt, the code before its pc given."""
        if self.halt is not None and self.halt in dump:
            return True
        return self.sleep is not None and before.endswith(self.sleep)


_CPU: Final = re.compile(r"^CPU#\d+$", re.MULTILINE)
_ASSIGNMENT: Final = re.compile(r"\b([A-Z][A-Z0-9]{1,5}) *=([0-9a-f]+)\b")
_SEGMENT: Final = re.compile(r"^(\w\w\w?) *=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]{8}) ([0-9a-f]{8})")
_TABLE: Final = re.compile(r"^([GI]DT)= +([0-9a-f]+) ([0-9a-f]{8})", re.MULTILINE)
_GPRS: Final = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")


def parse_x86(dump: str) -> X86Registers:
    """The first CPU of a dump of qemu-system-x86_64. Raises ValueError for an incomplete one."""
    text = _first_cpu(dump)
    values = {name: int(number, 16) for name, number in _ASSIGNMENT.findall(text)}
    segments = {
        match.group(1).lower(): _segment(match)
        for match in (_SEGMENT.match(line) for line in text.splitlines())
        if match
    }
    tables = {
        name: DescriptorTable(int(base, 16), int(limit, 16))
        for name, base, limit in _TABLE.findall(text)
    }
    try:
        # In 32-bit modes the names begin with E, and there are eight registers.
        wide = "RIP" in values
        prefix = "R" if wide else "E"
        gprs = {f"r{name}": values[prefix + name.upper()] for name in _GPRS}
        gprs |= {f"r{number}": values[f"R{number}"] if wide else 0 for number in range(8, 16)}
        return X86Registers(
            rip=values[f"{prefix}IP"],
            rflags=values["RFL" if wide else "EFL"],
            gdtr=tables["GDT"],
            idtr=tables["IDT"],
            ldtr=segments["ldt"],
            cr0=values["CR0"],
            cr2=values["CR2"],
            cr3=values["CR3"],
            cr4=values["CR4"],
            efer=values["EFER"],
            cs=segments["cs"],
            ds=segments["ds"],
            es=segments["es"],
            fs=segments["fs"],
            gs=segments["gs"],
            ss=segments["ss"],
            tr=segments["tr"],
            **gprs,
        )
    except KeyError as error:
        raise ValueError(f"QEMU's register dump shows no {error.args[0]}") from None


def parse_arm64(dump: str) -> Arm64Registers:
    """The first CPU of a dump of qemu-system-aarch64. Raises ValueError for an incomplete one."""
    text = _first_cpu(dump)
    values = {name: int(number, 16) for name, number in _ASSIGNMENT.findall(text)}
    try:
        return Arm64Registers(
            pc=values["PC"],
            x=tuple(values[f"X{number:02}"] for number in range(31)),
            sp=values["SP"],
            pstate=values["PSTATE"],
        )
    except KeyError as error:
        raise ValueError(f"QEMU's register dump shows no {error.args[0]}") from None


# Opcodes of the SDM, vol. 2, and of the Arm ARM, C6.2; PSCI (DEN0022) numbers.
_INT3: Final = 0xCC
_OUT_TO_DX: Final = (0xEE, 0xEF)
_OUT_IMMEDIATE: Final = (0xE6, 0xE7)
_FIRMWARE_CALLS: Final = (b"\x02\0\0\xd4", b"\x03\0\0\xd4")  # hvc #0, smc #0
_PSCI_RESETS: Final = {0x84000009: "SYSTEM_RESET", 0x84000012: "SYSTEM_RESET2"}


def x86_reset_cause(dump: str, before: bytes, at: bytes) -> str:
    """A reset through a port is told by its instruction; else it was a triple fault."""
    if _is_out(before):
        return "the last instruction wrote to an I/O port, which may have asked for a reset"
    limit = next((int(end, 16) for name, _, end in _TABLE.findall(dump) if name == "IDT"), None)
    if limit:
        return f"a triple fault, with an IDT of limit {limit:#x}"
    if at[:1] and at[0] == _INT3:
        return "a triple fault by int3 with an empty IDT, as a kernel resets on purpose"
    return "a triple fault, with an empty IDT"


def _is_out(before: bytes) -> bool:
    """Whether code ends with an OUT (SDM vol. 2)."""
    to_dx = before[-1:] and before[-1] in _OUT_TO_DX
    return bool(to_dx or (before[-2:-1] and before[-2] in _OUT_IMMEDIATE))


def arm64_reset_cause(dump: str, before: bytes, _at: bytes) -> str:
    """Only firmware resets this machine."""
    values = dict(_ASSIGNMENT.findall(_first_cpu(dump)))
    function = int(values.get("X00", "0"), 16) & ~0x40000000  # its 64-bit variant
    if before[-4:] in _FIRMWARE_CALLS and function in _PSCI_RESETS:
        return f"the guest asked the firmware for it (PSCI {_PSCI_RESETS[function]})"
    return "the guest asked for it; the call is not the last thing it did"


def _segment(match: re.Match[str]) -> Segment:
    selector, base, limit, flags = (int(group, 16) for group in match.groups()[1:])
    return Segment(selector, base, limit, flags >> 8 & 0xF0FF)


def each_cpu(dump: str) -> list[str]:
    """The parts of `info registers -a`, one for each CPU."""
    _, *parts = _CPU.split(dump)
    return parts or [dump]


def _first_cpu(dump: str) -> str:
    return each_cpu(dump)[0]
