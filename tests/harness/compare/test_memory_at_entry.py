"""What a kernel finds in memory, as text that can be compared."""

from __future__ import annotations

import struct

import pytest

from bootproof.harness.compare import memory_at_entry
from bootproof.harness.guest.memory_map import USABLE, MapEntry
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.device_tree import DeviceTree, Node
from bootproof.loader.memory import GuestMemory
from tests.builders.guests import flat32, flat64


def test_start_info_is_read() -> None:
    with GuestMemory([(0, MIB)]) as ram:
        info = struct.pack("<IIIIQQQQII", 0x336EC578, 1, 0, 1, 0x2000, 0x3000, 0, 0x4000, 1, 0)
        ram.write(0x1000, info)
        ram.write(0x2000, struct.pack("<QQQQ", 0x5000, 3, 0, 0))
        ram.write(0x3000, b"console=ttyS0\0junk")
        ram.write(0x4000, struct.pack("<QQII", 0, MIB, 1, 0))
        ram.write(0x5000, b"abc")
        ram.write(0x8000, b"kernel")
        found = memory_at_entry.look("pvh", flat32(0, rbx=0x1000), ram, Range(0x8000, 0x1001))
    assert found.values["start_info.magic"] == "0x336ec578"
    assert found.values["cmdline"] == "console=ttyS0"
    assert found.values["initrd"] == "3 bytes, sha256 ba7816bf8f01cfea"
    assert found.map == (MapEntry(Range(0, MIB), USABLE),)
    assert (found.kernel, len(found.pages)) == (Range(0x8000, 0x1001), 2)


def test_boot_params_are_read() -> None:
    with GuestMemory([(0, MIB)]) as ram:
        page = bytearray(0x1000)
        page[0x0:0x2] = b"\x50\x19"
        page[0x1E8] = 2
        page[0x210] = 0xFF
        page[0x218:0x220] = struct.pack("<II", 0x5000, 3)
        page[0x228:0x22C] = struct.pack("<I", 0x3000)
        page[0x2D0:0x2F8] = struct.pack("<QQIQQI", 0, 0x9FC00, 1, 0x9FC00, 0x400, 2)
        ram.write(0x1000, page)
        ram.write(0x3000, b"quiet\0")
        ram.write(0x5000, b"abc")
        found = memory_at_entry.look("linux64", flat64(0, rsi=0x1000), ram, Range(0x8000, 1))
    assert found.values["boot_params.hdr.type_of_loader"] == "0xff"
    assert found.values["boot_params.screen_info"].startswith("5019")
    assert found.values["boot_params.acpi_rsdp_addr"] == "0x0"
    assert (found.values["cmdline"], found.values["initrd"][:7]) == ("quiet", "3 bytes")
    assert [entry.kind for entry in found.map] == [USABLE, "reserved"]


def test_device_tree_is_read() -> None:
    edges = {b"linux,initrd-start": 0x5000, b"linux,initrd-end": 0x5003}
    told = {b"bootargs": b"quiet\0"} | {n: at.to_bytes(8, "big") for n, at in edges.items()}
    tree = DeviceTree([Node(b"", 0), Node(b"chosen", 1, told)])
    with GuestMemory([(0, MIB)]) as ram:
        ram.write(0x1000, tree.to_bytes())
        ram.write(0x5000, b"abc")
        found = memory_at_entry.look("arm64", Arm64Registers(0).with_x(x0=0x1000), ram, Range(0, 1))
    assert found.values["/chosen linux,initrd-end"] == "0x0 0x5003"
    assert (found.values["cmdline"], found.values["initrd"][:7]) == ("quiet", "3 bytes")


@pytest.mark.parametrize("address", [0x2000, 2 * MIB])
def test_no_structure_where_the_register_points(address: int) -> None:
    """Zeros, or no RAM at all: the names are missing or empty, and nothing is raised."""
    with GuestMemory([(0, MIB)]) as ram:
        for protocol, registers in (
            ("pvh", flat32(0, rbx=address)),
            ("linux32", flat32(0, rsi=address)),
            ("arm64", Arm64Registers(0).with_x(x0=address)),
        ):
            found = memory_at_entry.look(protocol, registers, ram, Range(0, 1))
            assert found.values.get("initrd", "none") == "none"
            assert found.map == ()
