"""ACPI tables taken apart, by offset from ACPI 6.5, and a reader of nothing but them."""

from __future__ import annotations

import struct
from collections.abc import Callable

PLACE = 0x9E000


def reader(tables: bytes, place: int = PLACE) -> Callable[[int, int], bytes | None]:
    def read(address: int, size: int) -> bytes | None:
        inside = place <= address and address + size <= place + len(tables)
        return tables[address - place : address - place + size] if inside else None

    return read


def split(tables: bytes, place: int = PLACE) -> dict[str, tuple[int, bytes]]:
    """Every table by its signature: offset in `tables`, and its bytes."""
    found = {"RSDP": (0, tables[:36])}

    def add(address: int) -> bytes:
        at = address - place
        (length,) = struct.unpack_from("<I", tables, at + 4)
        found[tables[at : at + 4].decode()] = at, tables[at : at + length]
        return tables[at : at + length]

    xsdt = add(int.from_bytes(tables[24:32], "little"))
    for (address,) in struct.iter_unpack("<Q", xsdt[36:]):
        add(address)
    fadt = found["FACP"][1]
    add(int.from_bytes(fadt[36:40], "little"))
    add(int.from_bytes(fadt[140:148], "little"))
    return found
