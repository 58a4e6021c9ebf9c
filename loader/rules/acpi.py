"""The ACPI tables that a kernel is told of, followed from the RSDP: what is broken, how many CPUs.

The way round from bootproof.loader.protocols.acpi, for tables of any loader: it trusts nothing that
it finds, and knows nothing of how ours are made. Pure.

Source: ACPI Specification 6.5, sections 5.2.5 (RSDP, and where it is looked for), 5.2.6 (header),
5.2.7 and 5.2.8 (RSDT, XSDT), 5.2.9 (FADT), 5.2.10 (FACS), 5.2.11 (DSDT), 5.2.12 (MADT).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import field
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range, counted
from bootproof.loader.boot_parameters import Read
from bootproof.loader.layout import Region
from bootproof.loader.rules import RuleFinding, documents, tolerated, violation

CODE: Final = "acpi"

READ_FIRST: Final = ("RSDP", "ACPI table XSDT", "ACPI table RSDT")
"""The places of what leads to the others: what becomes of it after that, no kernel asks."""

_RSDP_MAGIC: Final = b"RSD PTR "
_RSDP_V1_SIZE, _RSDP_SIZE, _HEADER_SIZE = 20, 36, 36
_EBDA_POINTER, _EBDA_SIZE = 0x40E, 0x400  # the segment of the EBDA, of which the first KiB counts
_BIOS: Final = Range.between(0xE0000, 0x100000)
_STEP: Final = 16
_MOST_TABLES: Final = 64
_LARGEST_TABLE: Final = 1 << 20

_FADT_X_DSDT: Final = 140
_HARDWARE_REDUCED: Final = 1 << 20
_FACS_SIZE, _FACS_ALIGNMENT = 64, 64

LOCAL_APICS: Final = 0xFEE00000
"""Guest-physical: where each CPU has its own after a reset (Intel SDM vol. 3A 11.4.4)."""
_MADT_ENTRIES: Final = _HEADER_SIZE + 8
_LOCAL_APIC, _IO_APIC, _LOCAL_APIC_ADDRESS, _LOCAL_X2APIC = 0, 1, 5, 9
_LENGTHS: Final = {0: 8, 1: 12, 2: 10, 3: 8, 4: 6, 5: 12, 6: 16, 8: 16, 9: 16, 10: 12}
_ENABLED: Final = 1
_FLAGS: Final = {_LOCAL_APIC: 4, _LOCAL_X2APIC: 8}
_CPU: Final = "APIC id"
_ALL_APICS: Final = {_LOCAL_APIC: 0xFF, _LOCAL_X2APIC: 0xFFFFFFFF}


@dataclass(frozen=True, slots=True)
class AcpiTables:
    """What was found; `apic_ids` are those of the CPUs that the MADT enables, None without one that
    can be read. `places` names the guest-physical memory of each table.
    """

    findings: tuple[RuleFinding, ...] = ()
    apic_ids: tuple[int, ...] | None = None
    places: tuple[Region, ...] = ()


def find(read: Read, told: int) -> int | None:
    """Where the RSDP is: as `told`, or where kernels look when told 0; None without any.

    Of several, the first one with the right checksum, else the first.
    """
    if told:
        return told
    segment = read(_EBDA_POINTER, 2)
    ebda = int.from_bytes(segment or b"", "little") << 4
    areas = [Range(ebda, _EBDA_SIZE)] if ebda > _EBDA_SIZE else []
    found = [at for area in (*areas, _BIOS) for at in scan(read, area, _RSDP_MAGIC)]
    whole = (at for at in found if _is_summed(_rsdp(read, at)))
    return next(whole, found[0] if found else None)


def _rsdp(read: Read, at: int) -> bytes:
    """The RSDP as long as its revision makes it; empty where there is none in RAM."""
    first = read(at, _RSDP_V1_SIZE) or b""
    if not first.startswith(_RSDP_MAGIC):
        return b""
    return (read(at, _RSDP_SIZE) or b"") if first[15] >= 2 else first


def _is_summed(rsdp: bytes) -> bool:
    """Whether its checksums are right: that of its first part, and that of all of it."""
    return bool(rsdp) and not (sum(rsdp[:_RSDP_V1_SIZE]) | sum(rsdp)) & 0xFF


def scan(read: Read, area: Range, magic: bytes) -> Iterator[int]:
    """Where a signature stands in an area of low memory, at multiples of 16."""
    data = read(area.start, area.size) or b""
    at = data.find(magic)
    while at >= 0:
        if at % _STEP == 0:
            yield area.start + at
        at = data.find(magic, at + 1)


def follow(read: Read, rsdp: int, *, searched: bool = False) -> AcpiTables:
    """Everything that the RSDP at a guest-physical address leads to.

    `read(address, size)` gives guest-physical RAM, or None outside of it. One that is `searched`
    for has to have the right checksum; of all others kernels warn, and go on.
    """
    walk = _Walk(read, searched)
    try:
        walk.root(rsdp)
    except _BrokenError as broken:
        walk.findings.append(broken.finding)
    return AcpiTables(tuple(walk.findings), walk.apic_ids, tuple(walk.places))


class _BrokenError(Exception):
    """What the tables cannot be followed beyond."""

    def __init__(self, sentence: str, section: str, address: int) -> None:
        super().__init__(sentence)
        self.finding = violation(CODE, sentence, documents.acpi(section), address=address)


@dataclass(slots=True)
class _Walk:
    """The tables, from the root on."""

    read: Read
    searched: bool
    findings: list[RuleFinding] = field(default_factory=list)
    places: list[Region] = field(default_factory=list)
    apic_ids: tuple[int, ...] | None = None

    def root(self, rsdp: int) -> None:
        fadt: tuple[int, bytes] | None = None
        for address in self._addresses(rsdp):
            if not address:
                self._odd("the XSDT or RSDT has an entry of 0", "5.2.8", rsdp)
                continue
            signature, data = self.table(address)
            if signature == b"APIC":
                self.apic_ids = self._madt(address, data)
            elif signature == b"FACP":
                fadt = address, data
        if fadt is None:
            self._odd("there is no FADT", "5.2.9", rsdp)
        else:
            self._fadt(*fadt)

    def _addresses(self, rsdp: int) -> list[int]:
        """What stands in the XSDT, or before revision 2 in the RSDT."""
        whole = _rsdp(self.read, rsdp)
        if not whole:
            what = f"{rsdp:#x} does not point to an RSDP in RAM"
            raise _BrokenError(what, "5.2.5.1", rsdp)
        if not _is_summed(whole):
            what = f"the checksum of the RSDP at {rsdp:#x} is wrong"
            if self.searched:
                raise _BrokenError(what, "5.2.5.3", rsdp)
            self._odd(what, "5.2.5.3", rsdp)
        self.places.append(Region("RSDP", Range(rsdp, len(whole))))
        wide = len(whole) == _RSDP_SIZE and (any(whole[24:32]) or not any(whole[16:20]))
        if len(whole) == _RSDP_SIZE and not wide:
            what = f"the RSDP at {rsdp:#x} is of revision {whole[15]}, and leads to an RSDT alone"
            self._odd(what, "5.2.5.3", rsdp)
        address = int.from_bytes(whole[24:32] if wide else whole[16:20], "little")
        signature, data = self.table(address)
        if signature != (b"XSDT" if wide else b"RSDT"):
            what = f"the RSDP at {rsdp:#x} leads to no {'XSDT' if wide else 'RSDT'}"
            raise _BrokenError(what, "5.2.5.3", rsdp)
        entries = data[_HEADER_SIZE:]
        size = 8 if wide else 4
        found = struct.iter_unpack("<Q" if wide else "<I", entries[: len(entries) // size * size])
        return [address for (address,) in found][:_MOST_TABLES]

    def table(self, address: int) -> tuple[bytes, bytes]:
        """Signature and bytes of the table at a guest-physical address."""
        header = self.read(address, _HEADER_SIZE)
        if header is None:
            what = f"the ACPI table at {address:#x} is not in RAM"
            raise _BrokenError(what, "5.2.6", address)
        signature, length = header[:4], int.from_bytes(header[4:8], "little")
        name = signature.decode("ascii", "backslashreplace")
        data = self.read(address, length) if _HEADER_SIZE <= length <= _LARGEST_TABLE else None
        if data is None:
            what = f"the ACPI table {name!r} at {address:#x} has {length:#x} bytes"
            raise _BrokenError(what, "5.2.6", address)
        if sum(data) & 0xFF:
            what = f"the checksum of the ACPI table {name!r} at {address:#x} is wrong"
            self._odd(what, "5.2.6", address)
        self.places.append(Region(f"ACPI table {name}", Range(address, length)))
        return signature, data

    def _odd(self, what: str, section: str, address: int) -> None:
        self.findings.append(tolerated(CODE, what, documents.acpi(section), address=address))

    def _wrong(self, what: str, section: str, address: int) -> None:
        self.findings.append(violation(CODE, what, documents.acpi(section), address=address))

    def _fadt(self, address: int, fadt: bytes) -> None:
        """DSDT and FACS: of two addresses, the 64-bit one counts where it is not 0."""
        padded = fadt.ljust(_FADT_X_DSDT + 8, b"\0")
        facs, dsdt = struct.unpack_from("<2I", padded, 36)
        flags = int.from_bytes(padded[112:116], "little")
        x_facs, x_dsdt = struct.unpack_from("<2Q", padded, 132)
        facs, dsdt = x_facs or facs, x_dsdt or dsdt
        if not dsdt:
            self._wrong(f"the FADT at {address:#x} leads to no DSDT", "5.2.9", address)
        elif self.table(dsdt)[0] != b"DSDT":
            what = f"the FADT at {address:#x} leads to {dsdt:#x}, where no DSDT is"
            self._wrong(what, "5.2.9", address)
        if not facs:
            if not flags & _HARDWARE_REDUCED:
                self._odd(f"the FADT at {address:#x} leads to no FACS", "5.2.9", address)
            return
        head = self.read(facs, _FACS_SIZE) or b""
        if not head.startswith(b"FACS") or int.from_bytes(head[4:8], "little") < _FACS_SIZE:
            what = f"the FADT at {address:#x} leads to {facs:#x}, where no FACS is"
            self._wrong(what, "5.2.10", facs)
            return
        self.places.append(Region("ACPI table FACS", Range(facs, _FACS_SIZE)))
        if facs % _FACS_ALIGNMENT:
            self._odd(f"the FACS at {facs:#x} is not at a multiple of 64", "5.2.10", facs)

    def _madt(self, address: int, madt: bytes) -> tuple[int, ...]:
        """Checks each entry; gives the APIC ids of the CPUs that are enabled."""
        ids = Counter[tuple[str, int]]()
        self._local_apics(address, madt)
        for kind, at, entry in _madt_entries(address, madt):
            self._length(kind, len(entry), address + at)
            if kind in _ALL_APICS and entry[_FLAGS[kind]] & _ENABLED:
                apic = entry[3] if kind == _LOCAL_APIC else int.from_bytes(entry[4:8], "little")
                ids[_CPU, apic] += 1
                if apic == _ALL_APICS[kind]:
                    what = f"the MADT enables a CPU with APIC id {apic:#x}, which means all"
                    self._wrong(what, "5.2.12.2", address + at)
            elif kind == _IO_APIC:
                place, base = struct.unpack_from("<2I", entry, 4)
                ids["I/O APIC with GSI base", base] += 1
                if not place:
                    self._wrong("the MADT has an I/O APIC at address 0", "5.2.12.3", address + at)
        for (what, number), count in ids.items():
            if count > 1:
                text = f"the MADT has the {what} {number:#x} {count} times"
                self._wrong(text, "5.2.12", address)
        enabled = tuple(number for what, number in ids.elements() if what == _CPU)
        if enabled and 0 not in enabled:
            self._odd("no enabled CPU of the MADT has the APIC id 0", "5.2.12.1", address)
        return enabled

    def _length(self, kind: int, length: int, address: int) -> None:
        """Of an entry: kernels take one that is longer than its type."""
        wanted = _LENGTHS.get(kind, length)
        what = f"the MADT has an entry of type {kind} with {length} bytes, not {wanted}"
        if length < wanted:
            raise _BrokenError(f"{what}, at {address:#x}", "5.2.12", address)
        if length > wanted:
            self._odd(f"{what}, at {address:#x}", "5.2.12", address)

    def _local_apics(self, address: int, madt: bytes) -> None:
        """The 64-bit address of an override counts, where there is one."""
        place = int.from_bytes(madt[_HEADER_SIZE : _HEADER_SIZE + 4], "little")
        for kind, _, entry in _madt_entries(address, madt):
            if kind == _LOCAL_APIC_ADDRESS:
                place = int.from_bytes(entry[4:12], "little")
        if place != LOCAL_APICS:
            what = f"the MADT has the local APICs at {place:#x}, but CPUs have them at"
            what = f"{what} {LOCAL_APICS:#x} after a reset"
            self._wrong(what, "5.2.12", address)


def _madt_entries(address: int, madt: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, offset and bytes of each entry."""
    at = _MADT_ENTRIES
    while at < len(madt):
        kind, length = madt[at], madt[at + 1] if at + 1 < len(madt) else 0
        if length < 2:
            what = f"the MADT has an entry of {counted(length, 'byte')} at offset {at:#x}"
            raise _BrokenError(what, "5.2.12", address + at)
        if at + length > len(madt):
            what = f"the entry at offset {at:#x} of the MADT ends behind the table"
            raise _BrokenError(what, "5.2.12", address + at)
        yield kind, at, madt[at : at + length]
        at += length
