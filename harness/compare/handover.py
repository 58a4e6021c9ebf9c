"""What a loader handed to the kernel, read from RAM at the kernel's first instruction.

Boot parameters, device tree, command line, initrd and memory map as flat text, so that two loaders
can be compared name by name. Reads any loader's structures and judges none.

Sources: Documentation/arch/x86/zero-page.rst and boot.rst; Xen's public/arch-x86/hvm/start_info.h;
Devicetree Specification v0.4 chapter 5.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Final, Protocol

from bootproof.harness.guest.memory_map import MapEntry
from bootproof.loader.address import Range
from bootproof.loader.arch import Registers
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.device_tree import INITRD, DeviceTree, DeviceTreeError
from bootproof.loader.protocols import linux32, linux64, pvh
from bootproof.loader.result import SetupHeader

_STRING_MAX: Final = 0x1000
_PAGE: Final = 0x1000
_DTB_HEADER: Final = struct.Struct(">II")  # magic, totalsize
_DTB_MAGIC: Final = 0xD00DFEED

# struct boot_params outside setup_header and E820 table: name, offset, size.
_ZERO_PAGE: Final = (
    ("screen_info", 0x000, 0x40),
    ("apm_bios_info", 0x040, 0x14),
    ("tboot_addr", 0x058, 8),
    ("ist_info", 0x060, 0x10),
    ("acpi_rsdp_addr", 0x070, 8),
    ("hd0_info", 0x080, 0x10),
    ("hd1_info", 0x090, 0x10),
    ("sys_desc_table", 0x0A0, 0x10),
    ("olpc_ofw_header", 0x0B0, 0x10),
    ("ext_ramdisk_image", 0x0C0, 4),
    ("ext_ramdisk_size", 0x0C4, 4),
    ("ext_cmd_line_ptr", 0x0C8, 4),
    ("cc_blob_address", 0x13C, 4),
    ("edid_info", 0x140, 0x80),
    ("efi_info", 0x1C0, 0x20),
    ("alt_mem_k", 0x1E0, 4),
    ("scratch", 0x1E4, 4),
    ("eddbuf_entries", 0x1E9, 1),
    ("edd_mbr_sig_buf_entries", 0x1EA, 1),
    ("kbd_status", 0x1EB, 1),
    ("secure_boot", 0x1EC, 1),
    ("sentinel", 0x1EF, 1),
    ("edd_mbr_sig_buffer", 0x290, 0x40),
    ("eddbuf", 0xD00, 0x1EC),
)
_ZERO_PAGE_SIZE: Final = 0x1000
_SETUP_HEADER: Final = 0x1F1
_E820_ENTRIES: Final = 0x1E8
_E820_TABLE: Final = 0x2D0
_E820_ENTRY: Final = struct.Struct("<QQI")
_E820_KINDS: Final = {1: "usable", 2: "reserved", 3: "ACPI data", 4: "ACPI NVS"}

_START_INFO: Final = struct.Struct("<IIIIQQQQII")
_MODULE: Final = struct.Struct("<QQQQ")
_MEMMAP: Final = struct.Struct("<QQII")


class Memory(Protocol):
    """Guest-physical memory: RAM in a file, or a guest that is asked."""

    def contains(self, address: int, size: int) -> bool: ...

    def read(self, address: int, size: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Handed:
    """`values` by name, such as "cmdline" or "/chosen bootargs"; `map` is the memory map.

    `kernel` is where the kernel's file lies, `pages` a checksum for each of its pages.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    map: tuple[MapEntry, ...] = ()
    kernel: Range | None = None
    pages: tuple[int, ...] = ()


def read(protocol: str, registers: Registers, ram: Memory, kernel: Range) -> Handed:
    """Everything the registers of `protocol` lead to; `kernel` is the guest-physical RAM in which
    the file's bytes were put. What is not in RAM is missing from the result.
    """
    reader = _READERS.get(protocol, _device_tree)
    handed = reader(registers, ram)
    pages = tuple(
        zlib.crc32(ram.read(address, min(_PAGE, kernel.end - address)))
        for address in range(kernel.start, kernel.end, _PAGE)
    )
    return replace(handed, kernel=kernel, pages=pages)


def digest(ram: Memory, address: int, size: int) -> str:
    """Size and the beginning of the SHA-256 of guest-physical RAM, as text."""
    if not size:
        return "none"
    if not ram.contains(address, size):
        return f"{size} bytes outside of RAM"
    return f"{size} bytes, sha256 {hashlib.sha256(ram.read(address, size)).hexdigest()[:16]}"


def _boot_params(registers: Registers, ram: Memory) -> Handed:
    assert isinstance(registers, X86Registers)
    address = registers.rsi & 0xFFFFFFFF
    if not ram.contains(address, _ZERO_PAGE_SIZE):
        return Handed()
    page = ram.read(address, _ZERO_PAGE_SIZE)
    header = SetupHeader.from_bytes(page[_SETUP_HEADER : _SETUP_HEADER + SetupHeader.SIZE])
    values = {
        f"boot_params.{name}": _bytes(page[offset : offset + size])
        for name, offset, size in _ZERO_PAGE
    }
    values |= {f"boot_params.hdr.{f.name}": hex(getattr(header, f.name)) for f in fields(header)}
    values["cmdline"] = _string(ram, header.cmd_line_ptr)
    values["initrd"] = digest(ram, header.ramdisk_image, header.ramdisk_size)
    count = page[_E820_ENTRIES]
    table = page[_E820_TABLE : _E820_TABLE + count * _E820_ENTRY.size]
    return Handed(values, tuple(_map_entry(*e) for e in _E820_ENTRY.iter_unpack(table)))


def _start_info(registers: Registers, ram: Memory) -> Handed:
    assert isinstance(registers, X86Registers)
    address = registers.rbx & 0xFFFFFFFF
    if not ram.contains(address, _START_INFO.size):
        return Handed()
    info = _START_INFO.unpack(ram.read(address, _START_INFO.size))
    magic, version, flags, modules, modlist, cmdline, rsdp, memmap, entries, _ = info
    values = {
        "start_info.magic": hex(magic),
        "start_info.version": str(version),
        "start_info.flags": hex(flags),
        "start_info.nr_modules": str(modules),
        "start_info.modlist_paddr": hex(modlist),
        "start_info.cmdline_paddr": hex(cmdline),
        "start_info.rsdp_paddr": hex(rsdp),
        "start_info.memmap_paddr": hex(memmap),
        "cmdline": _string(ram, cmdline),
        "initrd": "none",
    }
    if modules and ram.contains(modlist, _MODULE.size):
        start, size, module_cmdline, _ = _MODULE.unpack(ram.read(modlist, _MODULE.size))
        values["initrd"] = digest(ram, start, size)
        values["start_info.modlist[0].paddr"] = hex(start)
        values["start_info.modlist[0].cmdline_paddr"] = hex(module_cmdline)
    size = entries * _MEMMAP.size
    table = ram.read(memmap, size) if ram.contains(memmap, size) else b""
    return Handed(values, tuple(_map_entry(*e[:3]) for e in _MEMMAP.iter_unpack(table)))


def _device_tree(registers: Registers, ram: Memory) -> Handed:
    assert isinstance(registers, Arm64Registers)
    address = registers.x[0]
    if not ram.contains(address, _DTB_HEADER.size):
        return Handed()
    magic, size = _DTB_HEADER.unpack(ram.read(address, _DTB_HEADER.size))
    if magic != _DTB_MAGIC or not ram.contains(address, size):
        return Handed({"device tree": "none"})
    try:
        tree = DeviceTree.parse(ram.read(address, size))
    except DeviceTreeError as error:
        return Handed({"device tree": f"cannot be read: {error}"})
    values = {"device tree.totalsize": hex(size)} | dict(tree.as_text())
    start, end = (int.from_bytes(tree.chosen.get(name, b""), "big") for name in INITRD)
    values["initrd"] = digest(ram, start, max(0, end - start))
    values["cmdline"] = values.get("/chosen bootargs", "").strip('"')
    return Handed(values)


def _map_entry(start: int, size: int, kind: int) -> MapEntry:
    return MapEntry(Range(start, size), _E820_KINDS.get(kind, f"type {kind}"))


def _string(ram: Memory, address: int) -> str:
    """The NUL-terminated text at guest-physical `address`, byte by byte readable."""
    size = _STRING_MAX
    while size and not ram.contains(address, size):
        size //= 2
    raw = ram.read(address, size).partition(b"\0")[0] if size else b""
    return raw.decode("utf-8", "backslashreplace")


def _bytes(raw: bytes) -> str:
    if len(raw) <= 8:
        return hex(int.from_bytes(raw, "little"))
    return "0" if not any(raw) else raw.hex()


_READERS: Final[Mapping[str, Callable[[Registers, Memory], Handed]]] = {
    pvh.NAME: _start_info,
    linux64.NAME: _boot_params,
    linux32.NAME: _boot_params,
}
