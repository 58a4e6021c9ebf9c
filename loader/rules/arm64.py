"""What the boot protocol of arm64 Linux demands.

Sources: Documentation/arch/arm64/booting.rst sections 2 and 4; Arm ARM (DDI 0487).
"""

from __future__ import annotations

from typing import Final

from bootproof.loader.address import GIB, Range, align_down, format_size, joined
from bootproof.loader.arch.aarch64 import AARCH64, PSTATE_DAIF, Arm64Registers
from bootproof.loader.device_tree import ENABLE_METHOD, PSCI_WITH_NUMBERS, DeviceTree, Node
from bootproof.loader.imageheader import ARM64_MAGIC, ImageHeader
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
from bootproof.loader.rules.pieces import INITRD, KERNEL, Piece

_BASE_ALIGNMENT: Final = 2 << 20
_COMMAND_LINE_MOST: Final = 2047  # arch/arm64/include/uapi/asm/setup.h, without the NUL
_INITRD_WINDOW: Final = 32 * GIB
# Section 4: what text_offset can be assumed to be where image_size is 0.
_OLD_TEXT_OFFSET: Final = 0x80000
_SETUP_DTB: Final = f"{documents.ARM64}, section 2"
_CALL: Final = f"{documents.ARM64}, section 4"


def arm64(hardware: Hardware[Arm64Registers]) -> Findings:
    r = hardware.registers
    for number in (1, 2, 3):
        if r.x[number]:
            what, value = f"x{number} is {r.x[number]:#x}, not 0", r.x[number]
            yield violation(f"x{number}-zero", what, _CALL, value=value, limit=0)
    if r.pstate & PSTATE_DAIF != PSTATE_DAIF:
        what = f"not all interrupts are masked (pstate {r.pstate:#x})"
        yield violation("interrupts", what, _CALL, value=r.pstate)
    if r.exception_level not in (1, 2):
        where = f"in {r.mode}, not at" if r.exception_level is None else f"at {r.mode}, not"
        what = f"the CPU is {where} EL1 or EL2"
        yield violation("exception-level", what, _CALL, value=r.exception_level)
    yield from _mmu(hardware, r)
    yield from held_at(hardware, r.pc, _CALL)
    yield from secondary.wait(hardware, AARCH64.runs, _CALL)
    yield from _image_base(hardware)
    yield from _device_tree(hardware, r.x[0])


def _mmu(hardware: Hardware[Arm64Registers], r: Arm64Registers) -> Findings:
    """Arm ARM D19.2.126 (SCTLR_ELx): M is bit 0. Without it, C (bit 2) means nothing for data."""
    name = "SCTLR_EL2" if r.exception_level == 2 else "SCTLR"
    control = hardware.system.get(name, 0)
    if control & 1:
        yield violation("mmu-off", f"the MMU is on ({name} {control:#x})", _CALL, value=control)


def _header(hardware: Hardware[Arm64Registers]) -> ImageHeader | None:
    """The header of an Image, which begins with the first instruction."""
    return image_at(hardware, hardware.registers.pc, ARM64_MAGIC)


def _image_base(hardware: Hardware[Arm64Registers]) -> Findings:
    header, pc = _header(hardware), hardware.registers.pc
    if header is None:
        yield from no_image(hardware, pc, ARM64_MAGIC, _CALL)
        return
    offset = header.text_offset if header.image_size else _OLD_TEXT_OFFSET
    if (pc - offset) % _BASE_ALIGNMENT:
        what = f"the image at {pc:#x} is not 2 MiB-aligned + text_offset {offset:#x}"
        yield violation("image-base", what, _CALL, address=pc, value=offset)


def _kernel(hardware: Hardware[Arm64Registers]) -> list[Piece]:
    header, pc = _header(hardware), hardware.registers.pc
    needs = Range(pc, header.image_size if header else 0), "image_size of its header", _CALL
    return list(pieces.kernel(hardware, [needs]))


def _device_tree(hardware: Hardware[Arm64Registers], address: int) -> Findings:
    tree = device_tree.look(hardware.read, address, "x0", _SETUP_DTB)
    if isinstance(tree, RuleFinding):
        yield tree
        return
    if address % 8:
        what = f"the device tree at {address:#x} is not 8-byte aligned"
        yield violation("dtb-alignment", what, _SETUP_DTB, address=address)
    found = _kernel(hardware)
    found += device_tree.pieces(hardware.read, address, tree, "x0", _SETUP_DTB)
    yield from pieces.check(hardware, found)
    yield from device_tree.check(hardware, tree, found)
    yield from device_tree.command_line(tree, _COMMAND_LINE_MOST)
    if device_tree.UEFI not in tree.chosen:
        yield from _cpus(hardware, tree)
    yield from _initrd_window(found)


def _cpus(hardware: Hardware[Arm64Registers], tree: DeviceTree) -> Findings:
    """The first CPU has a node, without which no other is started and kernels with NUMA crash (seen
    with 6.1, 6.12 and 7.3), and each other's says how it is started (section 4).
    """
    others = [cpu for cpu in tree.cpus if cpu.number != tree.boot_cpu]
    if len(others) == len(tree.cpus):
        what = f"/cpus has no CPU {tree.boot_cpu:#x}, the first one by boot_cpuid_phys"
        yield violation("cpu-in-dtb", what, documents.DTB_HEADER, value=tree.boot_cpu)
        return
    for cpu in others:
        method = (cpu.texts(ENABLE_METHOD) or [b""])[0].decode("ascii", "backslashreplace")
        if method == "spin-table":
            yield from _spin_table(hardware, tree, cpu)
            continue
        level = hardware.registers.exception_level
        why = _without_psci(tree, level) if method == "psci" else "kernels know no such"
        if why:
            has = f"the enable-method {method!r}, and {why}" if method else "no enable-method"
            what = f"CPU {cpu.number:#x} of /cpus has {has}: kernels cannot start it"
            yield violation("enable-method", what, _CALL, value=cpu.number)


def _without_psci(tree: DeviceTree, level: int | None) -> str:
    """Why kernels that are entered at `level` cannot call the firmware, if they cannot
    (bindings/arm/psci.yaml; Arm ARM, HVC: from EL2 it is taken to EL2).
    """
    node = tree.psci
    if node is None:
        return "there is no psci node"
    if not node.is_enabled:
        return "its node is disabled"
    method = node.texts(b"method")[:1]
    if method not in ([b"hvc"], [b"smc"]):
        return "its node has no method hvc or smc"
    if level == 2 and method == [b"hvc"]:
        return "its node has the method hvc, by which a kernel at EL2 calls itself"
    own = PSCI_WITH_NUMBERS.isdisjoint(node.texts(b"compatible"))
    return "its node has no cpu_on" if own and b"cpu_on" not in node.properties else ""


def _spin_table(hardware: Hardware[Arm64Registers], tree: DeviceTree, cpu: Node) -> Findings:
    """Where the CPU looks for its entry: 8 bytes, zero, which the kernel takes for nothing else."""
    raw, where = cpu.properties.get(b"cpu-release-addr", b""), f"CPU {cpu.number:#x} of /cpus"
    place = Range(int.from_bytes(raw, "big"), 8)
    kept = [Range(*pair) for pair in tree.reservations]
    kept += [area for node in tree.reserved for area in tree.places(node)]
    told = any(area.overlaps(place) for area in tree.memory)
    what = ""
    if len(raw) != 8 or not place.start:
        what = "waits for a spin-table, and has no cpu-release-addr of 8 bytes"
    elif place.start % 8:
        what = f"has a cpu-release-addr {place.start:#x} that is no multiple of 8"
    elif any(hardware.read(place.start, 8) or b""):
        what = f"has a cpu-release-addr {place.start:#x} where there is no zero: it is let go"
    elif told and not any(area.contains(place) for area in joined(kept)):
        what = f"has a cpu-release-addr {place.start:#x} in RAM that is not reserved"
    if what:
        yield violation("spin-table", f"{where} {what}", _CALL, address=place.start or None)


def _initrd_window(found: list[Piece]) -> Findings:
    """Section 2: initrd and Image within a window of 32 GiB from a multiple of 1 GiB."""
    kernel = [piece.range for piece in found if piece.name == KERNEL]
    for place in (piece.range for piece in found if piece.name == INITRD):
        start = align_down(min([place.start, *(area.start for area in kernel)]), GIB)
        end = max([place.end, *(area.end for area in kernel)])
        if kernel and end - start > _INITRD_WINDOW:
            what = (
                f"initrd {place} and kernel {kernel[0]} are not within"
                f" {format_size(_INITRD_WINDOW)} from a multiple of 1 GiB"
            )
            yield violation("initrd-window", what, _SETUP_DTB, address=place.start)
