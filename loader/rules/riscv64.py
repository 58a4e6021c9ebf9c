"""What the boot protocol of riscv64 Linux demands.

Sources: Documentation/arch/riscv/boot.rst; RISC-V SBI Specification v2.0, section 9.1, for the
state of a hart that is started; COMMAND_LINE_SIZE of arch/riscv/include/uapi/asm/setup.h.
"""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.riscv64 import A0, A1, PRIVILEGE_M, PRIVILEGE_S, RISCV64, RiscvRegisters
from bootproof.loader.device_tree import DeviceTree
from bootproof.loader.imageheader import RISCV64_MAGIC, ImageHeader
from bootproof.loader.rules import (
    Findings,
    Hardware,
    RuleFinding,
    device_tree,
    documents,
    pieces,
    secondary,
    violation,
)
from bootproof.loader.rules.entry import held_at, image_at, into_image

_PMD: Final = 2 << 20
_MODE: Final = 60  # of satp: 0 is no translation (Privileged ISA, 4.1.11)
_COMMAND_LINE_MOST: Final = 1023  # without the NUL
_REGISTERS: Final = f"{documents.RISCV}, Register state"
_MMU: Final = f"{documents.RISCV}, MMU state"
_FIRMWARE: Final = f"{documents.RISCV}, Reserved memory for resident firmware"
_ENTRY: Final = f"{documents.RISCV}, Kernel entry"
_LOCATION: Final = f"{documents.RISCV}, Kernel location"


def riscv64(hardware: Hardware[RiscvRegisters]) -> Findings:
    r = hardware.registers
    header = image_at(hardware, r.pc, RISCV64_MAGIC)
    yield from _hart(hardware, r, header)
    yield from held_at(hardware, r.pc, _LOCATION)
    yield from secondary.wait(hardware, RISCV64.runs, _ENTRY)
    if header is None:
        yield from into_image(hardware, r.pc, RISCV64_MAGIC, _LOCATION)
    elif r.pc % _PMD:
        what = f"the image at {r.pc:#x} is not 2 MiB-aligned"
        yield violation("image-base", what, _LOCATION, address=r.pc)
    yield from _device_tree(hardware, header.image_size if header else 0)


def _hart(
    hardware: Hardware[RiscvRegisters], r: RiscvRegisters, header: ImageHeader | None
) -> Findings:
    # A kernel for M-mode is one to be loaded where RAM begins (arch/riscv/kernel/head.S).
    may_be_firmware = header is not None and not header.text_offset
    if r.privilege != PRIVILEGE_S and not (may_be_firmware and r.privilege == PRIVILEGE_M):
        what = f"the hart is in {r.mode}, not in S-mode"
        yield violation("privilege", what, documents.SBI_HART_STATE, value=r.privilege)
    if r.satp:
        what = f"satp is {r.satp:#x}, not 0{': the MMU is on' if r.satp >> _MODE else ''}"
        yield violation("satp-zero", what, _MMU, value=r.satp, limit=0)
    if r.sie:
        what = "interrupts are on (sstatus.SIE)"
        yield violation("interrupts", what, documents.SBI_HART_STATE, value=r.sie, limit=0)
    hart = hardware.system.get("mhartid", r.x[A0])
    if hart != r.x[A0]:
        what = f"a0 is {r.x[A0]:#x}, but this is hart {hart}"
        yield violation("hartid", what, _REGISTERS, value=r.x[A0], limit=hart)


def _device_tree(hardware: Hardware[RiscvRegisters], image_size: int) -> Findings:
    r = hardware.registers
    tree = device_tree.look(hardware.read, r.x[A1], "a1", _REGISTERS)
    if isinstance(tree, RuleFinding):
        yield tree
        return
    if r.x[A1] % 8:
        what = f"the device tree at {r.x[A1]:#x} is not 8-byte aligned"
        yield violation("dtb-alignment", what, documents.DTB_ALIGNMENT, address=r.x[A1])
    needs = Range(r.pc, image_size), "image_size of its header", _LOCATION
    found = list(pieces.kernel(hardware, [needs]))
    found += device_tree.pieces(hardware.read, r.x[A1], tree, "a1", _REGISTERS)
    yield from pieces.check(hardware, found)
    yield from device_tree.check(hardware, tree, found)
    yield from device_tree.resident(hardware, tree, _FIRMWARE)
    if device_tree.UEFI not in tree.chosen:
        yield from _told(hardware, tree)
    yield from device_tree.command_line(tree, _COMMAND_LINE_MOST)


def _told(hardware: Hardware[RiscvRegisters], tree: DeviceTree) -> Findings:
    """Every hart that enters the kernel has a node, by which that knows what it can."""
    nodes = {cpu.number: cpu for cpu in tree.cpus}
    first = hardware.registers
    enter = [first, *(other for other in hardware.others if other.pc == first.pc)]
    for hart in dict.fromkeys(r.x[A0] for r in enter):
        if hart not in nodes:
            what = f"the device tree has no hart {hart:#x} (a0)"
            yield violation("hart-in-dtb", what, documents.CPUS_NODE, value=hart)
    for number, node in nodes.items():
        if b"riscv" not in node.texts(b"compatible"):
            what = f"the hart {number:#x} of /cpus is not compatible with riscv: no kernel takes it"
            yield violation("hart-isa", what, documents.RISCV_CPUS, value=number)
        elif not {b"riscv,isa", b"riscv,isa-base"} & set(node.properties):
            what = f"the hart {number:#x} of /cpus has neither riscv,isa nor riscv,isa-base"
            yield violation("hart-isa", what, documents.RISCV_CPUS, value=number)
