"""riscv64: QEMU's machine `virt` with OpenSBI, and what its guests and register dumps look like.

Sources: hw/riscv/virt.c and hw/riscv/boot.c, as `info roms` and `info mtree` show what they do;
hw/misc/sifive_test.c; opcodes from the RISC-V ISA manual, vol. II.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

from bootproof.harness.arch.arch import UART_8250, Arch, Board, Firmware, RealtimeQuirk
from bootproof.harness.arch.dump import DumpFormat, FrameRecord, each_cpu, incomplete
from bootproof.harness.arch.profiles import fast
from bootproof.loader.address import GIB, MIB, Banks, Range, align_down
from bootproof.loader.arch.riscv64 import FIRMWARE, PRIVILEGE_M, PRIVILEGE_S, RiscvRegisters
from bootproof.loader.formats import Format
from bootproof.loader.layout import Region

# --- memory --------------------------------------------------------------------------------------

_RAM_BASE: Final = 0x8000_0000
_TREE: Final = 2 * MIB  # it has a half of that, at a multiple of that
_LOW_END: Final = 3 * GIB  # where QEMU before 10.0 puts it, also with more RAM


def _banks(memory: int) -> Banks:
    return ((_RAM_BASE, memory),)


def _reserved(memory: int) -> tuple[Region, ...]:
    """The firmware, and the device tree that QEMU makes for it: as high as it can be."""
    end = _RAM_BASE + memory
    starts = {align_down(top - 1, _TREE) for top in (end, min(end, _LOW_END))}
    trees = (Range.between(start, min(start + _TREE, end)) for start in sorted(starts))
    return (FIRMWARE, *(Region("QEMU's device tree", tree) for tree in trees))


def _system_ram(banks: Sequence[Range], _acpi_tables: Range | None) -> tuple[Range, ...]:
    """All but what the firmware keeps."""
    behind = FIRMWARE.range.end
    return tuple(
        Range.between(max(bank.start, behind), bank.end) for bank in banks if bank.end > behind
    )


_PLIC: Final = 0xC00_0000


# --- registers -----------------------------------------------------------------------------------

_CSR: Final = re.compile(r"^ (\w+) +([0-9a-f]{16})$", re.MULTILINE)
_NUMBERED: Final = re.compile(r"\bx(\d+)/\w+ +([0-9a-f]{16})")
_SIE: Final = 1 << 1
_ECALL_FROM_S: Final = 9


def _csrs(dump: str) -> dict[str, int]:
    return {name: int(value, 16) for name, value in _CSR.findall(each_cpu(dump)[0])}


def _parse(dump: str, system: Mapping[str, int]) -> RiscvRegisters:
    csrs = _csrs(dump)
    x = {int(number): int(value, 16) for number, value in _NUMBERED.findall(each_cpu(dump)[0])}
    try:
        return RiscvRegisters(
            pc=csrs["pc"],
            x=tuple(x[number] for number in range(32)),
            satp=csrs["satp"],
            sie=int(bool(csrs["mstatus"] & _SIE)),
            privilege=system.get("priv", _privilege(csrs["pc"])),
        )
    except KeyError as error:
        raise incomplete(error) from None


def _privilege(pc: int) -> int:
    """What it is where nobody could be asked: only M-mode runs in the firmware, and only there."""
    return PRIVILEGE_M if FIRMWARE.range.contains(Range(pc, 1)) else PRIVILEGE_S


def _reset_cause(dump: str, _before: bytes, _at: bytes) -> str:
    """The firmware resets this machine when it is asked to, or the kernel through a device."""
    csrs = _csrs(dump)
    asked = csrs.get("mcause") == _ECALL_FROM_S
    if asked and FIRMWARE.range.contains(Range(csrs.get("pc", 0), 1)):
        return f"the guest asked the firmware for it (SBI call at {csrs.get('mepc', 0):#x})"
    return "the guest wrote to the test device, which resets the machine"


# --- the architecture ----------------------------------------------------------------------------

RISCV64: Final = Arch(
    name="riscv64",
    gdb="riscv:rv64",
    emulator="qemu-system-riscv64",
    # Of Debian 12 a virtual one: there it is in qemu-system-misc.
    packages=("qemu-system-riscv64", "qemu-system-riscv", "qemu-system-riscv"),
    boards={
        "virt": Board(
            *(_banks, UART_8250, _reserved),
            writes_reserved=True,
            firmware=(FIRMWARE,),
            interrupts=(_PLIC,),
        )
    },
    board="virt",
    cpu="rv64",
    memory_limit=64 * GIB,
    cpu_limit=8,
    smp_repeats=True,
    bios=Firmware(
        "OpenSBI",
        "default",
        "opensbi-riscv64-generic-fw_dynamic.bin",
        # Of Debian 12; of later ones the owner of QEMU's link to it, which dpkg knows.
        ("qemu-system-data", "qemu-system-riscv-core", "qemu-system-riscv-firmware"),
    ),
    guest_ends_qemu=True,  # hw/misc/sifive_test.c, before 9.0
    firmware=True,
    no_way_back="QEMU's snapshots of this machine leave out its timers",
    # loader/arch/riscv64.py has more of it.
    reference_realtime="the firmware's timer, which never expires, cannot be stopped over",
    realtime_quirks=(
        RealtimeQuirk(
            name="smp-firmware",
            fixed=(10, 0, 0),
            kernel_fixed=None,
            reason="with icount, QEMU before 10.0 never leaves a firmware that has several harts",
        ),
    ),
    system_ram=_system_ram,
    cmdline="panic=-1",
    # No RAM set aside for DMA, no order of devices from the device tree: drivers wait for each
    # other as before Linux 5.13. A PCI bus without devices.
    fast=fast("cma=0 fw_devlink=off", "gen_pci_driver_init"),
    formats=(Format.IMAGE,),
    device_tree=True,
    code_starts=(0x2000,),  # _text, behind the Image's header
    dump=DumpFormat(
        parse=_parse,
        pc=re.compile(r"^ pc +([0-9a-f]+)", re.MULTILINE),
        flags=re.compile(r"^ mstatus +([0-9a-f]+)", re.MULTILINE),
        mask=_SIE,
        masked=0,
        reset_cause=_reset_cause,
        sleep=bytes.fromhex("73005010"),  # wfi
        # arch/riscv/kernel/stacktrace.c: struct stackframe lies below the frame pointer.
        frames=FrameRecord(re.compile(r"\bx8/s0 +([0-9a-f]+)"), -16, -8),
        system=("priv",),
    ),
)
