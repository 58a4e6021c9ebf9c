"""x86_64: QEMU's PC machines, and what their guests and register dumps look like.

Sources: board memory maps from hw/i386/pc_q35.c, pc_piix.c and microvm.c as `info mtree` shows
them; opcodes from the SDM, vol. 2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from bootproof.harness.arch.arch import UART_8250, Arch, Board, Quirk, RealtimeQuirk, Version
from bootproof.harness.arch.dump import DumpFormat, each_cpu, incomplete, values
from bootproof.harness.arch.profiles import fast
from bootproof.loader.address import GIB, MIB, Banks, Range
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment, X86Registers
from bootproof.loader.formats import Format
from bootproof.loader.layout import Region
from bootproof.loader.protocols import acpi
from bootproof.loader.protocols.e820 import LEGACY_HOLE, memory_map, system_ram

# --- memory --------------------------------------------------------------------------------------


def _reserved(_memory: int) -> tuple[Region, ...]:
    return (Region("VGA memory and ROMs", LEGACY_HOLE),)


# As much of the firmware as a CPU in real mode needs to see (x86_isa_bios_init()).
_ROM: Final = Range.between(0xE0000, LEGACY_HOLE.end)
_SMALL_HOLE: Final = 3328 * MIB


def _split_at(threshold: int, low: int) -> Callable[[int], Banks]:
    """All RAM from 0 while it is below `threshold`; else `low` bytes, the rest from 4 GiB."""

    def banks(memory: int) -> Banks:
        if memory < threshold:
            return ((0, memory),)
        return ((0, low), (4 * GIB, memory - low))

    return banks


def _board(threshold: int, low: int, gone: Version | None = None) -> Board:
    return Board(_split_at(threshold, low), UART_8250, _reserved, rom=_ROM, gone=gone)


def _system_ram(banks: Sequence[Range], acpi_tables: Range | None) -> tuple[Range, ...]:
    return system_ram(memory_map(banks, acpi_tables))


# --- registers -----------------------------------------------------------------------------------

_SEGMENT: Final = re.compile(
    r"^(\w\w\w?) *=([0-9a-f]{4}) ([0-9a-f]+) ([0-9a-f]{8}) ([0-9a-f]{8})", re.MULTILINE
)
_TABLE: Final = re.compile(r"^([GI]DT)= +([0-9a-f]+) ([0-9a-f]{8})", re.MULTILINE)
_GPRS: Final = ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")


def _parse(dump: str, _system: Mapping[str, int]) -> X86Registers:
    text, numbers = each_cpu(dump)[0], values(dump)
    segments = {match[1].lower(): _segment(match) for match in _SEGMENT.finditer(text)}
    tables = {
        name: DescriptorTable(int(base, 16), int(limit, 16))
        for name, base, limit in _TABLE.findall(text)
    }
    try:
        return X86Registers(
            gdtr=tables["GDT"],
            idtr=tables["IDT"],
            ldtr=segments["ldt"],
            cr0=numbers["CR0"],
            cr2=numbers["CR2"],
            cr3=numbers["CR3"],
            cr4=numbers["CR4"],
            efer=numbers["EFER"],
            cs=segments["cs"],
            ds=segments["ds"],
            es=segments["es"],
            fs=segments["fs"],
            gs=segments["gs"],
            ss=segments["ss"],
            tr=segments["tr"],
            **_general(numbers),
        )
    except KeyError as error:
        raise incomplete(error) from None


def _general(numbers: Mapping[str, int]) -> dict[str, int]:
    """In 32-bit modes the names begin with E, and there are eight registers."""
    wide = "RIP" in numbers
    prefix = "R" if wide else "E"
    general = {f"r{name}": numbers[prefix + name.upper()] for name in _GPRS}
    general |= {f"r{number}": numbers[f"R{number}"] if wide else 0 for number in range(8, 16)}
    return general | {"rip": numbers[f"{prefix}IP"], "rflags": numbers[f"{prefix}FL"]}


def _segment(match: re.Match[str]) -> Segment:
    selector, base, limit, flags = (int(group, 16) for group in match.groups()[1:])
    return Segment(selector, base, limit, flags >> 8 & 0xF0FF)


_INT3: Final = 0xCC
_OUT_TO_DX: Final = (0xEE, 0xEF)
_OUT_IMMEDIATE: Final = (0xE6, 0xE7)


def _reset_cause(dump: str, before: bytes, at: bytes) -> str:
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
    """Whether code ends with an OUT."""
    to_dx = before[-1:] and before[-1] in _OUT_TO_DX
    return bool(to_dx or (before[-2:-1] and before[-2] in _OUT_IMMEDIATE))


# Bits of CR4 that the default model has not got, and that no CPU without them can be given: five
# levels of page tables, FSGSBASE, XSAVE, SMEP, SMAP, protection keys (SDM vol. 3A 2.5).
_MORE_OF_CR4: Final = 1 << 12 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 22


def _cpu_for(registers: X86Registers) -> str | None:
    return "max,-cx16" if registers.cr4 & _MORE_OF_CR4 else None


# --- the architecture ----------------------------------------------------------------------------

X86_64: Final = Arch(
    name="x86_64",
    gdb="i386:x86-64",
    emulator="qemu-system-x86_64",
    packages=("qemu-system-x86", "qemu-system-x86", "qemu-system-x86"),
    boards={
        "q35": _board(0xB0000000, 2 * GIB),
        "pc": _board(0xE0000000, 3 * GIB),
        # Whose hole is as small as crosvm's, libkrun's and Firecracker's was before 1.13.
        f"pc-i440fx-1.7,max-ram-below-4g={_SMALL_HOLE // MIB}M": _board(
            *(_SMALL_HOLE + 1, _SMALL_HOLE), gone=(8, 2, 0)
        ),
        "microvm": _board(3 * GIB + 1, 3 * GIB),
    },
    board="q35",
    cpu="qemu64",
    cpu_for=_cpu_for,
    entropy=("rdrand", "rdseed"),
    # A helper for Windows XP. Its reset waits for the CPU, which, while a record is played back,
    # may wait for the thread that resets: going back hung for ever, about once in three times.
    globals=("apic-common.vapic=off",),
    memory_limit=64 * GIB,
    cpu_limit=acpi.MOST_CPUS,
    smp_repeats=False,
    firmware=True,
    quirks=(
        Quirk(
            fixed=(10, 0, 0),
            cpu="qemu64,-cx16",
            reason="Linux 6.12 panics at random under load: cmpxchg16b of TCG in QEMU 7.2",
        ),
    ),
    realtime_quirks=(
        RealtimeQuirk(
            name="smp-bringup",
            fixed=(10, 0, 0),
            kernel_fixed=(6, 12),
            reason="with icount, QEMU before 10.0 never brings up the second CPU of Linux 6.1",
        ),
    ),
    system_ram=_system_ram,
    cmdline="reboot=t panic=-1 nokaslr",
    # Without noreplace-smp a kernel with one CPU patches each lock prefix by itself, up to Linux
    # 6.12 through page tables of their own: 34,000 times QEMU forgets where its pages are.
    # no_timer_check saves nothing: in real time a busy host may fail that check.
    # The initcalls: a keyboard controller, and slab caches of its own for two callers, whose order
    # is drawn from a generator of random numbers that has no randomness yet.
    fast=fast(
        "noreplace-smp no_timer_check",
        *("i8042_init", "init_user_buckets", "init_msg_buckets"),
    ),
    formats=(Format.ELF, Format.BZIMAGE),
    device_tree=False,
    dump=DumpFormat(
        parse=_parse,
        pc=re.compile(r"\b[RE]IP=([0-9a-f]+)"),
        flags=re.compile(r"\b(?:RFL|EFL)=([0-9a-f]+)"),
        mask=0x200,
        masked=0,
        reset_cause=_reset_cause,
        halt="HLT=1",
    ),
)
