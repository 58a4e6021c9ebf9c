"""Structures that a PC's firmware leaves in low memory, where kernels look for them.

Owns where they are looked for and how each begins; nothing is followed or checked beyond that.

Sources: ACPI 6.5, 5.2.5.1; MultiProcessor Specification 1.4, chapter 4; SMBIOS 3.7, 5.2.1; PCI BIOS
2.1 and the "$PIR" table of the PCI IRQ Routing Table Specification; Plug and Play BIOS 1.0A, 4.4.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final

from bootproof.loader.address import KIB, Range
from bootproof.loader.boot_parameters import Read


class Table(enum.Enum):
    """A structure of firmware; the values are how it begins."""

    ACPI = b"RSD PTR "
    MULTIPROCESSOR = b"_MP_"
    SMBIOS = b"_SM_"
    SMBIOS_3 = b"_SM3_"
    PCI_ROUTING = b"$PIR"
    PCI_BIOS = b"_32_"
    PLUG_AND_PLAY = b"$PnP"


_ALIGNMENT: Final = 16
_EBDA_SEGMENT: Final = 0x40E  # where the BIOS data area says it: 16 bits, in units of 16 bytes
_END_OF_BASE_MEMORY: Final = Range(639 * KIB, KIB)
_BIOS: Final = Range(0xE0000, 0x20000)


def left_in(read: Read) -> frozenset[Table]:
    """The structures in guest-physical memory; what cannot be read holds none."""
    return frozenset(
        table
        for place in _places(read)
        if (data := read(place.start, place.size)) is not None
        for table in Table
        if any(data.startswith(table.value, at) for at in range(0, len(data), _ALIGNMENT))
    )


def _places(read: Read) -> Iterator[Range]:
    segment = read(_EBDA_SEGMENT, 2)
    if segment and any(segment):
        yield Range(int.from_bytes(segment, "little") << 4, KIB)
    yield _END_OF_BASE_MEMORY
    yield _BIOS
