"""What the boot protocol of riscv64 Linux demands.

Sources: Documentation/arch/riscv/boot.rst; RISC-V SBI Specification v2.0, section 9.1, for the
state of a hart that is started; COMMAND_LINE_SIZE of arch/riscv/include/uapi/asm/setup.h.
"""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.riscv64 import A0, A1, PRIVILEGE_M, PRIVILEGE_S, RISCV64, RiscvRegisters
from bootproof.loader.device_tree import DeviceTree, Node
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
from bootproof.loader.rules.entry import held_at, image_at, no_image

_PMD: Final = 2 << 20
_MODE: Final = 60  # of satp: 0 is no translation (Privileged ISA, 4.1.11)
_COMMAND_LINE_MOST: Final = 1023  # without the NUL
_ISA, _ISA_BASE, _ISA_EXTENSIONS = b"riscv,isa", b"riscv,isa-base", b"riscv,isa-extensions"
_INTC: Final = b"riscv,cpu-intc"
_INTCS: Final = frozenset((_INTC, b"andestech,cpu-intc"))
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
        yield from no_image(hardware, r.pc, RISCV64_MAGIC, _LOCATION)
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
        if why := _not_taken(node):
            what = f"the hart {number:#x} of /cpus {why}: kernels do not take it"
            yield violation("hart-isa", what, documents.RISCV_CPUS, value=number)
    first_node = nodes.get(first.x[A0])
    if first_node and not any(_is_intc(node) for node in tree.inside(first_node)):
        what = f"the hart {first.x[A0]:#x} of /cpus has no interrupt-controller {_INTC.decode()!r}"
        yield violation("hart-intc", what, documents.RISCV_CPUS, value=first.x[A0])
    cpus = tree.child(b"cpus")
    if cpus and len(cpus.properties.get(b"timebase-frequency", b"")) < 4:
        what = "/cpus has no timebase-frequency: kernels cannot tell the time"
        yield violation("timebase", what, documents.RISCV_CPUS)


def _not_taken(hart: Node) -> str:
    """Why kernels leave a hart out, if they do (arch/riscv/kernel/cpu.c,
    riscv_early_of_processor_hartid): what it can is in riscv,isa-base and -extensions since Linux
    6.6, which come first, or in riscv,isa. Of a 64-bit one kernels need i, m and a.
    """
    if b"riscv" not in hart.texts(b"compatible"):
        return "is not compatible with riscv"
    base, old = ((hart.texts(name) or [b""])[0].lower() for name in (_ISA_BASE, _ISA))
    if _ISA_BASE in hart.properties:
        has = {name.lower() for name in hart.texts(_ISA_EXTENSIONS)}
        lacking = [name for name in (b"i", b"m", b"a") if name not in has]
        if not base.startswith(b"rv64i"):
            return f"has the riscv,isa-base {_shown(base)}, not 'rv64i'"
        return f"lacks {_shown(lacking[0])} in riscv,isa-extensions" if lacking else ""
    if _ISA not in hart.properties:
        return "has neither riscv,isa nor riscv,isa-base"
    return "" if old.startswith(b"rv64ima") else f"has the riscv,isa {_shown(old)}, not 'rv64ima…'"


def _shown(text: bytes) -> str:
    return repr(text.decode("ascii", "backslashreplace"))


def _is_intc(node: Node) -> bool:
    """Whether kernels take a node of a hart for its own interrupt controller
    (drivers/irqchip/irq-riscv-intc.c; drivers/of/irq.c, of_irq_init).
    """
    alike = not _INTCS.isdisjoint(node.texts(b"compatible"))
    return alike and node.is_enabled and b"interrupt-controller" in node.properties
