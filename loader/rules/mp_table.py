"""The MP configuration table, looked for as kernels do that find no CPUs in ACPI tables. Pure.

Source: Intel MultiProcessor Specification 1.4, chapter 4; where Linux looks: the first KiB of
memory, the last KiB of base memory, 0xf0000-0xfffff, the EBDA (arch/x86/kernel/mpparse.c).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range, counted
from bootproof.loader.boot_parameters import Read
from bootproof.loader.layout import Region
from bootproof.loader.rules import Grade, RuleFinding, acpi, documents, tolerated, violation

CODE: Final = "mp-table"

_POINTER_SIZE, _HEADER_SIZE = 16, 44
_KIB: Final = 0x400
_AREAS: Final = (Range(0, _KIB), Range(639 * _KIB, _KIB), Range(0xF0000, 0x10000))
_EBDA_POINTER: Final = 0x40E
_REVISIONS: Final = (1, 4)
_PROCESSOR: Final = 0
_SIZES: Final = {_PROCESSOR: 20, 1: 8, 2: 8, 3: 8, 4: 8}
_ENABLED: Final = 1


@dataclass(frozen=True, slots=True)
class MpTable:
    """What was found; `apic_ids` are those of the CPUs that it enables, None where a kernel would
    not take the table.
    """

    findings: tuple[RuleFinding, ...] = ()
    apic_ids: tuple[int, ...] | None = None
    places: tuple[Region, ...] = ()


def find(read: Read) -> MpTable:
    """The first floating pointer that is one, and what it leads to; nothing without any."""
    segment = read(_EBDA_POINTER, 2)
    ebda = int.from_bytes(segment or b"", "little") << 4
    areas = dict.fromkeys((*_AREAS, Range(ebda, _KIB)) if ebda else _AREAS)
    found = list(dict.fromkeys(at for area in areas for at in acpi.scan(read, area, b"_MP_")))
    whole = [at for at in found if _is_pointer(read(at, _POINTER_SIZE) or b"")]
    if whole:
        return _followed(read, whole[0])
    if found:
        what = f"the MP floating pointer at {found[0]:#x} has a wrong length, revision or checksum"
        return MpTable((violation(CODE, what, documents.mp("4.1"), address=found[0]),))
    return MpTable()


def _is_pointer(data: bytes) -> bool:
    return len(data) == _POINTER_SIZE and (
        data[8] == 1 and data[9] in _REVISIONS and not sum(data) & 0xFF
    )


def _followed(read: Read, at: int) -> MpTable:
    pointer = read(at, _POINTER_SIZE) or b""
    places = (Region("MP floating pointer", Range(at, _POINTER_SIZE)),)
    table = int.from_bytes(pointer[4:8], "little")
    if not table:  # a default configuration, which feature byte 1 names
        return MpTable((), (0, 1) if pointer[11] else None, places)
    header = read(table, _HEADER_SIZE)
    length = int.from_bytes((header or b"")[4:6], "little")
    data = read(table, length) if length >= _HEADER_SIZE else None
    what = ""
    if header is None or not header.startswith(b"PCMP"):
        what = f"the MP floating pointer at {at:#x} leads to {table:#x}, where no MP table is"
    elif data is None:
        what = f"the MP table at {table:#x} has {length:#x} bytes"
    elif sum(data) & 0xFF or data[6] not in _REVISIONS:
        what = f"the checksum or revision of the MP table at {table:#x} is wrong: kernels ignore it"
    if what or data is None:
        return MpTable((violation(CODE, what, documents.mp("4.2"), address=table),), None, places)
    findings = tuple(_entries(table, data))
    broken = any(finding.grade is Grade.VIOLATION for finding in findings)
    ids = None if broken else tuple(entry[1] for _, entry in _walk(data) if _enabled(entry))
    return MpTable(findings, ids, (*places, Region("MP table", Range(table, length))))


def _walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and bytes of each entry; the last one may be of no known type, or cut short."""
    at = _HEADER_SIZE
    while at < len(data):
        size = _SIZES.get(data[at], 0)
        yield at, data[at : at + size]
        if not size:
            return
        at += size


def _enabled(entry: bytes) -> bool:
    return entry[:1] == bytes([_PROCESSOR]) and bool(entry[3] & _ENABLED)


def _entries(table: int, data: bytes) -> Iterator[RuleFinding]:
    entries = list(_walk(data))
    section = documents.mp("4.3")
    for at, entry in entries:
        if len(entry) != _SIZES.get(data[at]):
            what = f"the entry at {table + at:#x} of the MP table has type {data[at]}"
            what += ", which is none" if not entry else " and ends behind the table"
            yield violation(CODE, what, section, address=table + at)
            return
    count, place = int.from_bytes(data[34:36], "little"), int.from_bytes(data[36:40], "little")
    if place != acpi.LOCAL_APICS:
        what = f"the MP table at {table:#x} has the local APICs at {place:#x}, but CPUs have them"
        what = f"{what} at {acpi.LOCAL_APICS:#x} after a reset"
        yield violation(CODE, what, documents.mp("4.2"), address=table)
    if count != len(entries):
        what = f"the MP table at {table:#x} says that it has {counted(count, 'entry', 'entries')}"
        what += f", but has {len(entries)}"
        value = {"value": count, "limit": len(entries)}
        yield tolerated(CODE, what, documents.mp("4.2"), address=table, **value)
    ids = [entry[1] for _, entry in entries if _enabled(entry)]
    if len(set(ids)) < len(ids):
        what = f"the MP table at {table:#x} has two CPUs of the same APIC id"
        yield violation(CODE, what, section, address=table)
