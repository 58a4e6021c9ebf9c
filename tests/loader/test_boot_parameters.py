"""What a kernel is told, read back out of RAM: by offset from zero-page.rst, and by protocol."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from bootproof.loader import Elf
from bootproof.loader.address import GIB, MIB, Range, joined
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.boot_parameters import reader, text_at
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, linux64, pvh
from bootproof.loader.protocols.table import PROTOCOLS, boot_parameters
from tests.builders.guests import flat32, flat64
from tests.builders.images import elf, load, notes, pvh_entry

ENTRY, ZERO_PAGE, CMDLINE = 2 * MIB, 0x7000, 0x20000


@pytest.fixture
def ram() -> Iterator[GuestMemory]:
    with GuestMemory([(0, 4 * MIB)]) as memory:
        yield memory


def zero_page(**fields: int) -> bytes:
    """struct boot_params with a setup header's fields, at their offsets."""
    page = bytearray(4096)
    offsets = {"type_of_loader": 0x210, "ext_loader_type": 0x227}
    for name, value in fields.items():
        if name in offsets:
            page[offsets[name]] = value
        else:
            struct.pack_into("<I", page, {"cmdline": 0x228, "ext_cmd_line_ptr": 0xC8}[name], value)
    return bytes(page)


def test_extended_loader_type(ram: GuestMemory) -> None:
    """boot.rst: 0xE says that the number is in ext_loader_type, from 0x10 on."""
    ram.write(ZERO_PAGE, zero_page(type_of_loader=0xE3, ext_loader_type=4))
    told = boot_parameters("linux64", flat64(ENTRY, rsi=ZERO_PAGE), ram)
    assert told.bootloader_type == 0x143


@pytest.mark.parametrize("pointer", [0, 4 * MIB - 2, 5 * MIB, 0xFFFFFFFF])
def test_pointers_out_of_ram_are_nothing(pointer: int, ram: GuestMemory) -> None:
    ram.write(ZERO_PAGE, zero_page(cmdline=pointer))
    ram.write(4 * MIB - 2, b"xx")
    assert boot_parameters("linux64", flat64(ENTRY, rsi=ZERO_PAGE), ram).cmdline is None
    for name in ("linux64", "linux32", "pvh"):
        everywhere = flat64(ENTRY, rsi=pointer or 8 * MIB, rbx=pointer or 8 * MIB)
        assert boot_parameters(name, everywhere, ram).cmdline is None


def test_usable_ram_is_what_the_kernel_makes_of_it(ram: GuestMemory) -> None:
    page = bytearray(zero_page())
    page[0x1E8] = 3
    entries = (0, 2 * MIB, 1), (3 * MIB, 0, 1), (4 * GIB, MIB, 1)
    page[0x2D0 : 0x2D0 + 60] = b"".join(struct.pack("<QQI", *entry) for entry in entries)
    ram.write(ZERO_PAGE, page)
    told = boot_parameters("linux64", flat64(ENTRY, rsi=ZERO_PAGE), ram)
    assert told.system_ram == (
        Range.between(0x1000, 0xA0000),
        Range.between(MIB, 2 * MIB),
        Range(4 * GIB, MIB),
    )
    assert told.memory_map is not None
    assert [(entry.addr, entry.size, entry.type) for entry in told.memory_map] == list(entries)


def test_what_is_ram_and_something_else_as_well_is_no_ram(ram: GuestMemory) -> None:
    page = bytearray(zero_page())
    page[0x1E8] = 3
    entries = (2 * MIB, MIB, 2), (MIB, 3 * MIB, 1), (MIB, 3 * MIB, 1)
    page[0x2D0 : 0x2D0 + 60] = b"".join(struct.pack("<QQI", *entry) for entry in entries)
    ram.write(ZERO_PAGE, page)
    told = boot_parameters("linux64", flat64(ENTRY, rsi=ZERO_PAGE), ram)
    wanted = Range(MIB, MIB), Range(3 * MIB, MIB)
    assert joined(told.system_ram or ()) == wanted


def test_the_memory_map_goes_on_in_setup_data(ram: GuestMemory) -> None:
    """boot.rst: SETUP_E820_EXT is 1."""
    page = bytearray(zero_page())
    page[0x1E8] = 1
    page[0x2D0 : 0x2D0 + 20] = struct.pack("<QQI", MIB, MIB, 1)
    struct.pack_into("<Q", page, 0x250, 0x8000)
    ram.write(ZERO_PAGE, page)
    ram.write(0x8000, struct.pack("<QII", 0x9000, 9, 4) + b"seed")
    more = struct.pack("<QQI", 4 * GIB, MIB, 1) + struct.pack("<QQI", 5 * GIB, MIB, 2) + b"cut"
    ram.write(0x9000, struct.pack("<QII", 0x8000, 1, len(more)) + more)  # and again, for ever
    told = boot_parameters("linux64", flat64(ENTRY, rsi=ZERO_PAGE), ram)
    assert joined(told.system_ram or ()) == (Range(MIB, MIB), Range(4 * GIB, MIB))


@pytest.mark.parametrize(
    ("flags", "wanted", "unplaced"),
    [
        (0x2, (Range(MIB, 0x1000), Range(MIB + 0x2000, 0x3000), Range(MIB + 0x7000, 0xF8000)), 2),
        (0x4, (Range(MIB + 0x8000, 0xF4000),), 4),  # 16 KiB pages
        (0x6, (Range(MIB + 0x10000, 0xE0000),), 16),  # 64 KiB pages
    ],
)
def test_ram_of_a_device_tree_is_whole_pages(
    flags: int, wanted: tuple[Range, ...], unplaced: int, ram: GuestMemory
) -> None:
    """Those of the kernel, and of each range by itself (drivers/of/fdt.c)."""
    two = {b"#address-cells": struct.pack(">I", 2), b"#size-cells": struct.pack(">I", 2)}
    reg = struct.pack(">6Q", MIB, 0x1800, MIB + 0x1800, MIB - 0x1801, 0x123, 0x1000)
    held = {b"reg": struct.pack(">2Q", MIB + 0x5800, 0x1000), b"no-map": b""}
    tree = DeviceTree(
        [
            Node(b"", 0, two),
            Node(b"memory@0", 1, {b"device_type": b"memory\0", b"reg": reg}),
            Node(b"reserved-memory", 1, {**two, b"ranges": b""}),
            Node(b"secret@105800", 2, held),
            Node(b"pool", 2, {b"size": struct.pack(">Q", 0x1001), b"no-map": b""}),
        ]
    )
    ram.write(0x8000, tree.to_bytes())
    ram.write(ENTRY, struct.pack("<II6Q4sI", 0, 0, 0, 0, flags, 0, 0, 0, b"ARM\x64", 0))
    told = boot_parameters("arm64", Arm64Registers(pc=ENTRY).with_x(x0=0x8000), ram)
    assert told.system_ram == wanted
    assert told.unplaced == unplaced * 0x1000


def test_ram_that_a_device_tree_reserves_in_two_ways(ram: GuestMemory) -> None:
    two = {b"#address-cells": struct.pack(">I", 2), b"#size-cells": struct.pack(">I", 2)}
    places = {b"a": (MIB, 0x1000), b"b": (2 * MIB, 0x800), b"c": (3 * MIB, 0x1000)}
    regs = {name: {b"reg": struct.pack(">2Q", *place)} for name, place in places.items()}
    around = {b"reg": struct.pack(">2Q", 3 * MIB + 0x800, MIB)}
    tree = DeviceTree(
        [
            Node(b"", 0, two),
            Node(b"reserved-memory", 1, {**two, b"ranges": b""}),
            *(Node(name, 2, {**reg, b"no-map": b""}) for name, reg in regs.items()),
            Node(b"d", 2, around),
        ],
        [(2 * MIB, 0x100)],
    )
    ram.write(0x8000, tree.to_bytes())
    told = boot_parameters("arm64", Arm64Registers(pc=ENTRY).with_x(x0=0x8000), ram)
    assert told.reserved_twice == (Range(2 * MIB, 0x1000), Range(3 * MIB, 0x1000))


@pytest.mark.parametrize(
    ("usable", "wanted"),
    [
        ((MIB, MIB), (Range(MIB, MIB),)),
        ((MIB + 0x800, MIB), (Range.between(MIB + 0x1000, 2 * MIB),)),
        ((0, MIB, 3 * MIB, 0x1000, 2 * MIB, MIB), (Range(0, MIB), Range(3 * MIB, 0x1000))),
        ((8 * MIB, MIB), ()),
    ],
)
def test_ram_that_a_kernel_is_to_use_after_a_crash(
    usable: tuple[int, ...], wanted: tuple[Range, ...], ram: GuestMemory
) -> None:
    """Documentation/devicetree/bindings/chosen.txt, linux,usable-memory-range."""
    two = {b"#address-cells": struct.pack(">I", 2), b"#size-cells": struct.pack(">I", 2)}
    reg = struct.pack(">2Q", 0, 3 * MIB)
    chosen = {b"linux,usable-memory-range": struct.pack(f">{len(usable)}Q", *usable)}
    memory = Node(b"memory@0", 1, {b"device_type": b"memory\0", b"reg": reg})
    tree = DeviceTree([Node(b"", 0, two), memory, Node(b"chosen", 1, chosen)])
    ram.write(0x8000, tree.to_bytes())
    told = boot_parameters("arm64", Arm64Registers(pc=ENTRY).with_x(x0=0x8000), ram)
    assert (told.system_ram or ()) == wanted


def test_more_entries_than_there_is_room_for(ram: GuestMemory) -> None:
    ram.write(ZERO_PAGE, zero_page()[:0x1E8] + b"\xff" + zero_page()[0x1E9:])
    told = boot_parameters("linux64", flat64(ENTRY, rsi=ZERO_PAGE), ram)
    assert told.memory_map is not None
    assert len(told.memory_map) == 128


@pytest.mark.parametrize("name", [linux64.NAME, pvh.NAME])
def test_what_configure_writes_is_read_back(name: str) -> None:
    kernel = elf(load(16 * MIB, b"\xf4" * 0x1000), notes(pvh_entry(16 * MIB)))
    with GuestMemory([(0, 64 * MIB)]) as memory:
        loaded = Elf().load(memory, kernel)
        handover = PROTOCOLS[name].configure(memory, loaded, BootRequest(b" a b ", b"cpio", cpus=3))
        told = boot_parameters(name, handover.registers, memory)
        places = {region.name: region.range for region in handover.regions}
    assert (told.cmdline, told.cpus, told.initrd) == (" a b ", (0, 1, 2), places["initrd"])
    tables = places["acpi"]
    assert told.system_ram == (
        Range.between(0x1000, tables.start),
        *([Range.between(tables.end, 0x9FC00)] if tables.end < 0x9FC00 else ()),
        Range.between(MIB, 64 * MIB),
    )
    assert told.bootloader_type == PROTOCOLS[name].bootloader_type
    assert (told.unpacks, told.label) == (False, None)


def test_no_protocol_tells_nothing(ram: GuestMemory) -> None:
    assert boot_parameters("none", flat32(ENTRY), ram) == boot_parameters(
        "pvh", flat32(ENTRY, rbx=8 * MIB), ram
    )


def test_text_across_pages(ram: GuestMemory) -> None:
    text = b"x" * 0x1800
    ram.write(CMDLINE + 0xFFF, text + b"\0")
    assert text_at(reader(ram), CMDLINE + 0xFFF) == text
    ram.write(MIB, b"x" * MIB)
    assert text_at(reader(ram), MIB) is None  # longer than anything that is a text
