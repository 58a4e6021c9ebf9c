"""What each boot protocol demands at the kernel's first instruction, as checks.

A second opinion, written from the documents and not from the code that makes register states: it
takes any registers and any memory, also those of other loaders. Pure.

A *violation* breaks what kernels rely on. *Tolerated* breaks the letter, and kernels boot all the
same: it is reported and fails nothing.

Sources: Documentation/arch/x86/boot.rst ("32-bit Boot Protocol", "64-bit Boot Protocol");
Documentation/arch/arm64/booting.rst section 4; Xen's docs/misc/pvh.pandoc.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch import Registers
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import (
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    Segment,
    X86Registers,
)
from bootproof.loader.protocols import acpi_found

_BOOT_CS: Final = 0x10
_BOOT_DS: Final = 0x18
_FLAT: Final = 0xFFFFFFFF
_RFLAGS_TF: Final = 1 << 8
_RFLAGS_IF: Final = 1 << 9
_RFLAGS_VM: Final = 1 << 17
_CODE_READABLE: Final = 0b1010
_DATA_WRITABLE: Final = 0b0010
_TYPE_MASK: Final = 0b1110  # without the accessed bit, which the CPU sets by itself
_ATTR_S: Final = 1 << 4
_ATTR_P: Final = 1 << 7
_ATTR_L: Final = 1 << 13
_ATTR_DB: Final = 1 << 14


class Grade(enum.Enum):
    VIOLATION = "violation"
    TOLERATED = "tolerated"


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """A rule that does not hold: a stable code, and what was found in one sentence."""

    code: str
    grade: Grade
    sentence: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a rule may look at. `read(address, size)` gives guest-physical RAM, or None outside it.

    `footprint` is the RAM the kernel uses before it has a memory map, when that is known; `system`
    holds system registers by name (aarch64: SCTLR, SCTLR_EL2), as far as they are known.
    """

    registers: Registers
    read: Callable[[int, int], bytes | None]
    footprint: Range | None = None
    system: Mapping[str, int] = field(default_factory=dict)


def check(protocol: str, hardware: Hardware) -> list[RuleFinding]:
    """Every rule of `protocol` that does not hold; a protocol without rules has none to break."""
    rules = _RULES.get(protocol)
    return list(rules(hardware)) if rules else []


def _violation(code: str, sentence: str) -> RuleFinding:
    return RuleFinding(code, Grade.VIOLATION, sentence)


def _tolerated(code: str, sentence: str) -> RuleFinding:
    return RuleFinding(code, Grade.TOLERATED, sentence)


# --- x86 ---------------------------------------------------------------------------------------


def _linux64(hardware: Hardware) -> Iterator[RuleFinding]:
    r = hardware.registers
    assert isinstance(r, X86Registers)
    if not (r.cr0 & CR0_PG and r.cr0 & CR0_PE and r.cr4 & CR4_PAE):
        yield _violation("paging", f"64-bit paging is off (cr0 {r.cr0:#x}, cr4 {r.cr4:#x})")
    if r.efer & (EFER_LME | EFER_LMA) != EFER_LME | EFER_LMA:
        yield _violation("long-mode", f"the CPU is not in long mode (efer {r.efer:#x})")
    if not r.cs.attributes & _ATTR_L:
        yield _violation("cs-64-bit", "CS is not a 64-bit code segment")
    yield from _code_and_data(r)
    yield from _linux_selectors(r)
    yield from _interrupts_off(r)
    yield from _zero_page(hardware, r.rsi)
    yield from _identity_mapped(hardware, r)


def _linux32(hardware: Hardware) -> Iterator[RuleFinding]:
    r = hardware.registers
    assert isinstance(r, X86Registers)
    yield from _protected_mode_without_paging(r)
    yield from _flat_segments(r)
    yield from _code_and_data(r)
    yield from _linux_selectors(r)
    yield from _interrupts_off(r)
    for name in ("rbp", "rdi", "rbx"):
        value = getattr(r, name)
        if value & 0xFFFFFFFF:
            yield _violation(f"{name}-zero", f"{name} is {value:#x}, not 0")
    yield from _zero_page(hardware, r.rsi & 0xFFFFFFFF)


def _pvh(hardware: Hardware) -> Iterator[RuleFinding]:
    r = hardware.registers
    assert isinstance(r, X86Registers)
    yield from _protected_mode_without_paging(r)
    if r.cr4:
        yield _violation("cr4-zero", f"cr4 is {r.cr4:#x}, not 0")
    yield from _flat_segments(r)
    yield from _code_and_data(r)
    if r.tr.base or r.tr.limit != 0x67 or r.tr.attributes & 0xF not in (0x9, 0xB):
        yield _violation(
            "task-register",
            f"TR is base {r.tr.base:#x}, limit {r.tr.limit:#x}, type {r.tr.attributes & 0xF:#x};"
            " it must be a 32-bit TSS at 0 with limit 0x67",
        )
    for name, bit in (("VM", _RFLAGS_VM), ("IF", _RFLAGS_IF), ("TF", _RFLAGS_TF)):
        if r.rflags & bit:
            yield _violation(f"eflags-{name.lower()}", f"EFLAGS.{name} is set ({r.rflags:#x})")
    yield from _start_info(hardware, r.rbx & 0xFFFFFFFF)


def _protected_mode_without_paging(r: X86Registers) -> Iterator[RuleFinding]:
    if not r.cr0 & CR0_PE:
        yield _violation("protected-mode", f"protected mode is off (cr0 {r.cr0:#x})")
    if r.cr0 & CR0_PG:
        yield _violation("paging-off", f"paging is on (cr0 {r.cr0:#x})")
    if not r.cs.attributes & _ATTR_DB or r.cs.attributes & _ATTR_L:
        yield _violation("cs-32-bit", "CS is not a 32-bit code segment")


def _flat_segments(r: X86Registers) -> Iterator[RuleFinding]:
    for name in ("cs", "ds", "es", "ss"):
        segment: Segment = getattr(r, name)
        if segment.base or segment.limit != _FLAT:
            yield _violation(
                f"{name}-flat", f"{name} is base {segment.base:#x}, limit {segment.limit:#x}"
            )


def _code_and_data(r: X86Registers) -> Iterator[RuleFinding]:
    usable = _ATTR_P | _ATTR_S
    if r.cs.attributes & (usable | _TYPE_MASK) != usable | _CODE_READABLE:
        yield _violation("cs-type", f"CS has attributes {r.cs.attributes:#x}, not execute/read")
    for name in ("ds", "es", "ss"):
        attributes = getattr(r, name).attributes
        if attributes & (usable | _TYPE_MASK) != usable | _DATA_WRITABLE:
            yield _violation(
                f"{name}-type", f"{name} has attributes {attributes:#x}, not read/write"
            )


def _linux_selectors(r: X86Registers) -> Iterator[RuleFinding]:
    """boot.rst names the selectors; kernels load their own at once."""
    if r.cs.selector != _BOOT_CS:
        yield _tolerated("cs-selector", f"CS is {r.cs.selector:#x}, not __BOOT_CS {_BOOT_CS:#x}")
    for name in ("ds", "es", "ss"):
        selector = getattr(r, name).selector
        if selector != _BOOT_DS:
            yield _tolerated(
                f"{name}-selector", f"{name} is {selector:#x}, not __BOOT_DS {_BOOT_DS:#x}"
            )
    if r.gdtr.limit < _BOOT_DS + 7:
        yield _tolerated("gdt", f"the GDT ends at offset {r.gdtr.limit:#x}, before __BOOT_DS")


def _interrupts_off(r: X86Registers) -> Iterator[RuleFinding]:
    if r.rflags & _RFLAGS_IF:
        yield _violation("interrupts", f"interrupts are on (rflags {r.rflags:#x})")


# Offsets within struct boot_params (zero-page.rst).
_E820_ENTRIES, _E820_TABLE, _TYPE_OF_LOADER = 0x1E8, 0x2D0, 0x210
_CMD_LINE_PTR, _RAMDISK_IMAGE, _RAMDISK_SIZE = 0x228, 0x218, 0x21C
_ACPI_RSDP_ADDR: Final = 0x70


def _zero_page(hardware: Hardware, address: int) -> Iterator[RuleFinding]:
    page = hardware.read(address, 0x1000)
    if page is None:
        yield _violation("zero-page", f"RSI {address:#x} does not point to 4096 bytes of RAM")
        return
    if not page[_E820_ENTRIES] or not any(page[_E820_TABLE : _E820_TABLE + 20]):
        yield _violation("e820", f"the zero page at {address:#x} has no E820 map")
    cmdline = _u32(page, _CMD_LINE_PTR)
    if cmdline and _string(hardware, cmdline) is None:
        yield _violation("cmdline", f"cmd_line_ptr {cmdline:#x} does not point to a string in RAM")
    ramdisk, size = _u32(page, _RAMDISK_IMAGE), _u32(page, _RAMDISK_SIZE)
    if size and hardware.read(ramdisk + size - 1, 1) is None:
        yield _violation("ramdisk", f"the initrd at {ramdisk:#x} with {size:#x} bytes leaves RAM")
    if size and not page[_TYPE_OF_LOADER]:
        yield _violation("type-of-loader", "type_of_loader is 0: the kernel ignores the initrd")
    yield from _acpi(hardware, int.from_bytes(page[_ACPI_RSDP_ADDR:][:8], "little"))


def _acpi(hardware: Hardware, rsdp: int) -> Iterator[RuleFinding]:
    """Tables are not asked for; what is there must hold (ACPI 6.5 section 5.2)."""
    problem = acpi_found.follow(hardware.read, rsdp).problem if rsdp else None
    if problem:
        yield _violation("acpi", problem)


def _identity_mapped(hardware: Hardware, r: X86Registers) -> Iterator[RuleFinding]:
    """boot.rst: the range of the kernel, zero page and command line must be identity mapped."""
    wanted = [Range(r.rip, 1), Range(r.rsi, 0x1000)]
    wanted += [hardware.footprint] if hardware.footprint else []
    for area in wanted:
        for address in range(area.start & ~0x1FFFFF, area.end, 0x200000):
            probe = max(address, area.start)
            physical = _translate(hardware, r.cr3, probe)
            if physical != probe:
                where = "nothing" if physical is None else f"{physical:#x}"
                yield _violation("identity-map", f"{probe:#x} is mapped to {where}")
                return


def _translate(hardware: Hardware, cr3: int, address: int) -> int | None:
    """Walks four-level page tables (SDM vol. 3A 4.5.4): the physical address, or None."""
    table = cr3 & 0x000FFFFFFFFFF000
    for shift in (39, 30, 21, 12):
        raw = hardware.read(table + 8 * (address >> shift & 0x1FF), 8)
        entry = int.from_bytes(raw, "little") if raw else 0
        if not entry & 1:
            return None
        base = entry & 0x000FFFFFFFFFF000
        if shift == 12 or (shift < 39 and entry & 0x80):
            size = 1 << shift
            return base & ~(size - 1) | address & (size - 1)
        table = base
    return None


_START_INFO_MAGIC: Final = 0x336EC578
_START_INFO_SIZE: Final = 56


def _start_info(hardware: Hardware, address: int) -> Iterator[RuleFinding]:
    raw = hardware.read(address, _START_INFO_SIZE)
    if raw is None:
        yield _violation("start-info", f"EBX {address:#x} does not point to hvm_start_info in RAM")
        return
    magic, version, _, modules, modlist, cmdline, rsdp, memmap, entries, _ = struct.unpack(
        "<IIIIQQQQII", raw
    )
    if magic != _START_INFO_MAGIC:
        yield _violation("start-info-magic", f"the magic of hvm_start_info is {magic:#x}")
        return
    if version > 1:
        yield _violation("start-info-version", f"the version of hvm_start_info is {version}")
    if version >= 1 and (not entries or hardware.read(memmap, 24 * entries) is None):
        yield _violation("memmap", f"the memory map at {memmap:#x} has {entries} entries in RAM")
    if modules and hardware.read(modlist, 32 * modules) is None:
        yield _violation("modlist", f"the module list at {modlist:#x} is not in RAM")
    if cmdline and _string(hardware, cmdline) is None:
        yield _violation("cmdline", f"cmdline_paddr {cmdline:#x} is no string in RAM")
    yield from _acpi(hardware, rsdp)


def _string(hardware: Hardware, address: int, limit: int = 1 << 16) -> bytes | None:
    """The NUL-terminated string at a guest-physical address, or None."""
    data = b""
    while len(data) < limit:
        chunk = hardware.read(address + len(data), 64)
        chunk = hardware.read(address + len(data), 1) if chunk is None else chunk
        if chunk is None:
            return None
        data += chunk
        if b"\0" in chunk:
            return data.partition(b"\0")[0]
    return None


def _u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


# --- aarch64 -----------------------------------------------------------------------------------

_PSTATE_DAIF: Final = 0x3C0
_DTB_MAGIC: Final = b"\xd0\x0d\xfe\xed"
_DTB_MAX: Final = 2 << 20


def _arm64(hardware: Hardware) -> Iterator[RuleFinding]:
    r = hardware.registers
    assert isinstance(r, Arm64Registers)
    yield from _dtb(hardware, r.x[0])
    for number in (1, 2, 3):
        if r.x[number]:
            yield _violation(f"x{number}-zero", f"x{number} is {r.x[number]:#x}, not 0")
    if r.pstate & _PSTATE_DAIF != _PSTATE_DAIF:
        yield _violation("interrupts", f"not all interrupts are masked (pstate {r.pstate:#x})")
    if r.exception_level not in (1, 2):
        yield _violation("exception-level", f"the CPU is at EL{r.exception_level}, not EL1 or EL2")
    yield from _mmu_and_caches(hardware, r)
    header = hardware.read(r.pc, 64)
    if header is None:
        yield _violation("image-header", f"pc {r.pc:#x} is not in RAM")
        return
    text_offset = int.from_bytes(header[8:16], "little")
    if header[56:60] == b"ARM\x64" and (r.pc - text_offset) % (2 << 20):
        yield _violation("image-base", f"the image at {r.pc:#x} is not 2 MiB-aligned + text_offset")


def _mmu_and_caches(hardware: Hardware, r: Arm64Registers) -> Iterator[RuleFinding]:
    """Arm ARM D19.2.126 (SCTLR_ELx): M is bit 0, C is bit 2."""
    name = "SCTLR_EL2" if r.exception_level == 2 else "SCTLR"
    control = hardware.system.get(name, 0)
    if control & 1:
        yield _violation("mmu-off", f"the MMU is on ({name} {control:#x})")
    if control & 4:
        yield _violation("dcache-off", f"the data cache is on ({name} {control:#x})")


def _dtb(hardware: Hardware, address: int) -> Iterator[RuleFinding]:
    head = hardware.read(address, 8)
    if head is None or head[:4] != _DTB_MAGIC:
        yield _violation("dtb", f"x0 {address:#x} does not point to a device tree in RAM")
        return
    size = int.from_bytes(head[4:], "big")
    if address % 8:
        yield _violation("dtb-alignment", f"the device tree at {address:#x} is not 8-byte aligned")
    if size > _DTB_MAX:
        yield _violation("dtb-size", f"the device tree has {size:#x} bytes, more than 2 MiB")


_RULES: Final[Mapping[str, Callable[[Hardware], Iterator[RuleFinding]]]] = {
    "linux64": _linux64,
    "linux32": _linux32,
    "pvh": _pvh,
    "arm64": _arm64,
}
