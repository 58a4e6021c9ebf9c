"""aarch64: QEMU's machine `virt`, and what its guests and register dumps look like.

Sources: hw/arm/virt.c, as `info mtree` shows its memory map; opcodes from the Arm ARM, C6.2; PSCI's
function numbers from DEN0022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from bootproof.harness.arch.arch import Arch, Board, SerialPort
from bootproof.harness.arch.dump import DumpFormat, FrameRecord, incomplete, values
from bootproof.harness.arch.profiles import fast
from bootproof.harness.arch.zcu102 import ZCU102
from bootproof.loader.address import GIB, MIB, Banks, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.formats import Format
from bootproof.loader.kconfig import Need
from bootproof.loader.layout import Region

# --- memory --------------------------------------------------------------------------------------

_RAM_BASE: Final = GIB


def _reserved(_memory: int) -> tuple[Region, ...]:
    return (Region("QEMU's device tree", Range(_RAM_BASE, MIB)),)


def _banks(memory: int) -> Banks:
    return ((_RAM_BASE, memory),)


def _system_ram(banks: Sequence[Range], _acpi_tables: Range | None) -> tuple[Range, ...]:
    return tuple(banks)


_PL011: Final = SerialPort(
    "ttyAMA0",
    (204, 64),
    Need(
        "CONFIG_SERIAL_AMBA_PL011_CONSOLE", b"uart-pl011", "the driver of the serial port (pl011)"
    ),
)
_DISTRIBUTOR, _CPU_INTERFACE, _REDISTRIBUTORS = 0x800_0000, 0x801_0000, 0x80A_0000
_VIRT: Final = Board(
    *(_banks, _PL011, _reserved),
    writes_reserved=True,
    interrupts=(_DISTRIBUTOR, _CPU_INTERFACE),
    firmware_call="hvc",
)
_MOST_CPUS: Final = 16  # as many were seen to start; QEMU's own limit is 512
_GICV3: Final = replace(_VIRT, cpu_limit=_MOST_CPUS, interrupts=(_DISTRIBUTOR, _REDISTRIBUTORS))


def _hypervisor(board: Board) -> Board:
    """The same with EL2 for the guest, out of which hvc leads nowhere (hw/arm/virt.c)."""
    return replace(board, hypervisor=True, firmware_call="smc")


# --- registers -----------------------------------------------------------------------------------


def _parse(dump: str, _system: Mapping[str, int]) -> Arm64Registers:
    numbers = values(dump)
    try:
        return Arm64Registers(
            pc=numbers["PC"],
            x=tuple(numbers[f"X{number:02}"] for number in range(31)),
            sp=numbers["SP"],
            pstate=numbers["PSTATE"],
        )
    except KeyError as error:
        raise incomplete(error) from None


_FIRMWARE_CALLS: Final = (b"\x02\0\0\xd4", b"\x03\0\0\xd4")  # hvc #0, smc #0
_PSCI_RESETS: Final = {0x84000009: "SYSTEM_RESET", 0x84000012: "SYSTEM_RESET2"}


def _reset_cause(dump: str, before: bytes, _at: bytes) -> str:
    """Only firmware resets this machine."""
    function = values(dump).get("X00", 0) & ~0x40000000  # its 64-bit variant
    if before[-4:] in _FIRMWARE_CALLS and function in _PSCI_RESETS:
        return f"the guest asked the firmware for it (PSCI {_PSCI_RESETS[function]})"
    return "the guest asked for it; the call is not the last thing it did"


# --- the architecture ----------------------------------------------------------------------------

AARCH64: Final = Arch(
    name="aarch64",
    gdb="aarch64",
    emulator="qemu-system-aarch64",
    packages=("qemu-system-arm", "qemu-system-aarch64", "qemu-system-aarch64"),
    # QEMU puts its own device tree at the start of RAM, as a ROM, at every reset.
    boards={
        "virt": _VIRT,
        "virt,virtualization=on": _hypervisor(_VIRT),
        "virt,gic-version=3": _GICV3,
        "virt,gic-version=3,virtualization=on": _hypervisor(_GICV3),
        "xlnx-zcu102": ZCU102,
        "xlnx-zcu102,virtualization=on": replace(ZCU102, hypervisor=True),
    },
    board="virt",
    cpu="cortex-a57",
    page_cpus={"16K": "neoverse-n1"},
    # ID_AA64MMFR0_EL1.TGran16, as the gdbstub shows it of each. None lacks 64K.
    without_pages={"16K": frozenset({"a64fx", "cortex-a53", "cortex-a57", "cortex-a72"})},
    # RNDR cannot be turned off; with a fixed -seed its numbers are the same each time.
    entropy=(),
    memory_limit=64 * GIB,
    cpu_limit=8,  # of the GICv2 that `virt` has by default
    smp_repeats=True,
    stops_at_power_off=True,  # target/arm/psci.c
    firmware=False,
    hypervisor_mode="EL2",
    system_ram=_system_ram,
    cmdline="panic=-1",
    # No RAM set aside for DMA, no order of devices from the device tree: drivers wait for each
    # other as before Linux 5.13. A PCI bus without devices, the power button, the PMU.
    fast=fast(
        "cma=0 fw_devlink=off",
        *("gen_pci_driver_init", "pl061_gpio_driver_init", "armv8_pmu_driver_init"),
    ),
    formats=(Format.IMAGE,),
    device_tree=True,
    image_says_place=True,
    code_starts=(0, 0x10000),  # _text itself, or _stext one segment later
    mode_log=re.compile(rb"CPU\(s\) started at (EL\d)"),
    dump=DumpFormat(
        parse=_parse,
        pc=re.compile(r"\bPC=([0-9a-f]+)"),
        flags=re.compile(r"\bPSTATE=([0-9a-f]+)"),
        mask=0xC0,
        masked=0xC0,
        reset_cause=_reset_cause,
        sleep=bytes.fromhex("7f2003d5"),  # wfi
        frames=FrameRecord(re.compile(r"\bX29=([0-9a-f]+)"), 0, 8),  # AAPCS64, 6.4.6
        system=("SCTLR", "SCTLR_EL2"),
    ),
)
