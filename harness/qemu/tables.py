"""What a guest's tables tell of the machine, where QEMU's board has something else: no kernel can
boot on that, whatever it is. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bootproof.harness.arch.arch import Arch
from bootproof.harness.errors import UserError
from bootproof.harness.qemu.machine import Machine
from bootproof.loader.address import MIB
from bootproof.loader.boot_parameters import BootParameters
from bootproof.loader.protocols import by_tree as tree

_OWN_TREE: Final = "leave --dtb out, which gives the guest the machine's own"


def has_interrupts(arch: Arch, board: str, told: tuple[int, ...]) -> bool:
    """Whether a board has its interrupt controller where it is told to be, as far as is known."""
    has = arch.boards[board].interrupts
    return not has or has[: len(told)] == told


def interrupts_elsewhere(arch: Arch, board: str, told: tuple[int, ...]) -> str:
    """That a kernel would look for its interrupt controller where `board` has none."""
    wanted, there = (", ".join(map(hex, at)) for at in (told, arch.boards[board].interrupts))
    return (
        f"the device tree has the interrupt controller at {wanted}, and {board} has it at {there}:"
        " no kernel can boot on that"
    )


def check_tree(file: str, machine: Machine, dtb: bytes) -> None:
    """Raises UserError for a user's device tree that QEMU's machine does not fit."""
    told = tree.read_back(0, lambda address, size: dtb[address : address + size])
    arch, board = machine.arch, machine.board
    if not has_interrupts(arch, board, told.interrupts):
        start = machine.traits.banks(MIB)[0]
        alike = (
            name
            for name, traits in arch.boards.items()
            if (traits.hypervisor, traits.banks(MIB)[0]) == (machine.hypervisor, start)
            and has_interrupts(arch, name, told.interrupts)
        )
        other = next(alike, None)
        why = interrupts_elsewhere(arch, board, told.interrupts)
        way_out = _OWN_TREE if other is None else f"--machine {other} has it there"
        raise UserError(f"{file}: {why}; {way_out}")
    for why in other_cpus(told, machine, by_tree=True):
        raise UserError(f"{file}: {why}, or {_OWN_TREE}")


def other_cpus(told: BootParameters, machine: Machine, *, by_tree: bool) -> Iterator[str]:
    """What QEMU's CPUs cannot do, and the way out. One CPU alone may have any number in ACPI and MP
    tables; in a device tree kernels look for the one that enters them.
    """
    others = [number for number in told.cpus if number >= machine.cpus]
    if others and len(told.cpus) == machine.cpus and (by_tree or machine.cpus > 1):
        last = machine.cpus - 1
        has = f"{machine.cpus} CPUs are 0 to {last}" if last else "CPU is 0"
        yield (
            f"the guest is told of CPU {', '.join(map(hex, others))} by its tables,"
            f" but QEMU's {has}, and no other can be started: number them like that"
        )
    if told.boot_cpu:
        yield (
            f"the guest is entered by CPU {told.boot_cpu:#x}, as its registers say, but QEMU's"
            " first is 0: number it like that"
        )
    if told.spinning and machine.cpus > 1:
        yield (
            f"CPU {', '.join(map(hex, told.spinning))} waits for a spin-table, but QEMU's CPUs are"
            " off until PSCI starts them: have them started like that"
        )
    call, has = told.firmware_call, machine.traits.firmware_call
    if has and call and call != has and not machine.hypervisor:  # where hvc breaks a rule
        yield (
            f"the guest calls its firmware by {call}, as its device tree says, but that of"
            f" {machine.board} is called by {has}: say so"
        )
