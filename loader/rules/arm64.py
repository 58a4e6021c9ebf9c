"""What the boot protocol of arm64 Linux demands.

Sources: Documentation/arch/arm64/booting.rst sections 2 and 4; Arm ARM (DDI 0487).
"""

from __future__ import annotations

from typing import Final

from bootproof.loader.arch.aarch64 import PSTATE_DAIF, Arm64Registers
from bootproof.loader.device_tree import MAGIC, Header
from bootproof.loader.pe import ARM64_MAGIC, ImageHeader
from bootproof.loader.rules import Findings, Hardware, violation

_DTB_MAX: Final = 2 << 20
_BASE_ALIGNMENT: Final = 2 << 20


def arm64(hardware: Hardware[Arm64Registers]) -> Findings:
    r = hardware.registers
    yield from _dtb(hardware, r.x[0])
    for number in (1, 2, 3):
        if r.x[number]:
            yield violation(f"x{number}-zero", f"x{number} is {r.x[number]:#x}, not 0")
    if r.pstate & PSTATE_DAIF != PSTATE_DAIF:
        yield violation("interrupts", f"not all interrupts are masked (pstate {r.pstate:#x})")
    if r.exception_level not in (1, 2):
        yield violation("exception-level", f"the CPU is at EL{r.exception_level}, not EL1 or EL2")
    yield from _mmu_and_caches(hardware, r)
    raw = hardware.read(r.pc, ImageHeader.SIZE)
    if raw is None:
        yield violation("image-header", f"pc {r.pc:#x} is not in RAM")
        return
    header = ImageHeader.from_bytes(raw)
    if header.magic == ARM64_MAGIC and (r.pc - header.text_offset) % _BASE_ALIGNMENT:
        yield violation("image-base", f"the image at {r.pc:#x} is not 2 MiB-aligned + text_offset")


def _mmu_and_caches(hardware: Hardware[Arm64Registers], r: Arm64Registers) -> Findings:
    """Arm ARM D19.2.126 (SCTLR_ELx): M is bit 0, C is bit 2."""
    name = "SCTLR_EL2" if r.exception_level == 2 else "SCTLR"
    control = hardware.system.get(name, 0)
    if control & 1:
        yield violation("mmu-off", f"the MMU is on ({name} {control:#x})")
    if control & 4:
        yield violation("dcache-off", f"the data cache is on ({name} {control:#x})")


def _dtb(hardware: Hardware[Arm64Registers], address: int) -> Findings:
    raw = hardware.read(address, Header.SIZE)
    header = Header.from_bytes(raw) if raw else None
    if header is None or header.magic != MAGIC:
        yield violation("dtb", f"x0 {address:#x} does not point to a device tree in RAM")
        return
    if address % 8:
        yield violation("dtb-alignment", f"the device tree at {address:#x} is not 8-byte aligned")
    if header.totalsize > _DTB_MAX:
        size = header.totalsize
        yield violation("dtb-size", f"the device tree has {size:#x} bytes, more than 2 MiB")
