"""The boot protocol of riscv64 Linux: S-mode, satp 0, a0 = this hart, a1 -> device tree.

A machine's firmware stays in RAM: nothing may lie there, and the device tree tells the kernel so.

Source: Documentation/arch/riscv/boot.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader.address import U64_MAX, Range
from bootproof.loader.arch.riscv64 import A0, A1, RISCV64, RiscvRegisters
from bootproof.loader.boot_parameters import BootParameters, Read
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, by_tree, entry_point, region
from bootproof.loader.protocols.protocol import BootProtocol, Handover
from bootproof.loader.result import KernelLoaderResult

NAME: Final = "riscv64"

COMMAND_LINE_SIZE: Final = 1024  # arch/riscv/include/uapi/asm/setup.h, the NUL included
_BOOT_HART: Final = 0


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    entry_point(kernel, NAME)
    pieces = by_tree.Pieces(NAME, COMMAND_LINE_SIZE, (Range(0, U64_MAX),))
    return by_tree.plan(pieces, ram, kernel, request)


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure. Without a device tree the kernel is started with a1 = 0."""
    regions = plan([bank.range for bank in memory.banks], kernel, request)
    by_tree.write(memory, regions, request)
    tree = region(regions, "dtb")
    return Handover(state(entry_point(kernel, NAME), tree.start if tree else 0), tuple(regions))


def state(entry: int, address: int) -> RiscvRegisters:
    """See BootProtocol.state."""
    return RiscvRegisters(pc=entry).with_x(x10=_BOOT_HART, x11=address)


def read_back(registers: RiscvRegisters, read: Read) -> BootParameters:
    """See BootProtocol.read."""
    return replace(by_tree.read_back(registers.x[A1], read), boot_cpu=registers.x[A0])


PROTOCOL: Final = BootProtocol(
    name=NAME,
    arch=RISCV64,
    rank=0,
    plan=plan,
    configure=configure,
    state=state,
    pointer=by_tree.pointer(A1),
    read=read_back,
    fields=lambda registers, read: by_tree.fields(registers.x[A1], read),
    tree_register="x11",
    left_open="x([1-9]|1[2-9]|2[0-9]|3[01])",
)
