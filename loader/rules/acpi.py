"""The ACPI tables that a kernel is told of, followed from the RSDP: what is broken, how many CPUs.

The way round from bootproof.loader.protocols.acpi, for tables of any loader: it trusts nothing that
it finds, and knows nothing of how ours are made. Pure.

Source: ACPI Specification 6.5, sections 5.2.5 (RSDP), 5.2.6 (header), 5.2.7 and 5.2.8 (RSDT, XSDT),
5.2.12 (MADT).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from bootproof.loader.boot_parameters import Read

_RSDP_V1_SIZE, _RSDP_SIZE, _HEADER_SIZE = 20, 36, 36
_MOST_TABLES: Final = 64
_LARGEST_TABLE: Final = 1 << 20
_MADT_ENTRIES: Final = _HEADER_SIZE + 8
_LOCAL_APIC, _LOCAL_X2APIC = 0, 9
_ENABLED: Final = 1


@dataclass(frozen=True, slots=True)
class AcpiTables:
    """`problem` says in one sentence what is broken first, or is None; `cpus` is the number of
    CPUs that the MADT enables, None without a MADT that can be read.
    """

    problem: str | None = None
    cpus: int | None = None


def follow(read: Read, rsdp: int) -> AcpiTables:
    """Everything that the RSDP at a guest-physical address leads to.

    `read(address, size)` gives guest-physical RAM, or None outside of it.
    """
    cpus = None
    try:
        for address in _root(read, rsdp):
            signature, data = _table(read, address)
            if signature == b"APIC":
                cpus = _enabled(data)
    except _BrokenError as broken:
        return AcpiTables(str(broken), cpus)
    return AcpiTables(None, cpus)


class _BrokenError(Exception):
    """The sentence for AcpiTables.problem."""


def _root(read: Read, rsdp: int) -> list[int]:
    """The addresses in the XSDT, or before revision 2 in the RSDT."""
    first = read(rsdp, _RSDP_V1_SIZE)
    if first is None or not first.startswith(b"RSD PTR "):
        raise _BrokenError(f"{rsdp:#x} does not point to an RSDP in RAM")
    whole = read(rsdp, _RSDP_SIZE) if first[15] >= 2 else first
    if sum(first) & 0xFF or whole is None or sum(whole) & 0xFF:
        raise _BrokenError(f"the checksum of the RSDP at {rsdp:#x} is wrong")
    wide = len(whole) == _RSDP_SIZE
    address = int.from_bytes(whole[24:32] if wide else whole[16:20], "little")
    signature, data = _table(read, address)
    if signature != (b"XSDT" if wide else b"RSDT"):
        raise _BrokenError(f"the RSDP at {rsdp:#x} leads to no {'XSDT' if wide else 'RSDT'}")
    entries = data[_HEADER_SIZE:]
    size = 8 if wide else 4
    found = struct.iter_unpack("<Q" if wide else "<I", entries[: len(entries) // size * size])
    return [address for (address,) in found][:_MOST_TABLES]


def _table(read: Read, address: int) -> tuple[bytes, bytes]:
    """Signature and bytes of the table at a guest-physical address."""
    header = read(address, _HEADER_SIZE)
    if header is None:
        raise _BrokenError(f"the ACPI table at {address:#x} is not in RAM")
    signature, length = header[:4], int.from_bytes(header[4:8], "little")
    name = signature.decode("ascii", "backslashreplace")
    data = read(address, length) if _HEADER_SIZE <= length <= _LARGEST_TABLE else None
    if data is None:
        raise _BrokenError(f"the ACPI table {name!r} at {address:#x} has {length:#x} bytes")
    if sum(data) & 0xFF:
        raise _BrokenError(f"the checksum of the ACPI table {name!r} at {address:#x} is wrong")
    return signature, data


def _enabled(madt: bytes) -> int:
    """CPUs whose local APIC or x2APIC entry is enabled (sections 5.2.12.2 and 5.2.12.12)."""
    found, at = 0, _MADT_ENTRIES
    while at + 2 <= len(madt):
        kind, length = madt[at], madt[at + 1]
        if length < 2:
            raise _BrokenError(f"the MADT has an entry of {length} bytes at offset {at:#x}")
        flags = {_LOCAL_APIC: 4, _LOCAL_X2APIC: 8}.get(kind)
        if flags is not None and madt[at + flags : at + flags + 1]:
            found += madt[at + flags] & _ENABLED
        at += length
    return found
