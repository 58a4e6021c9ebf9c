"""The entry probe: CPU and RAM at the kernel's first instruction, held against what was asked.

Runs the guest to its entry under the gdbstub, reads registers and RAM while it stands there, and
lets it go on. RAM is looked at through the file that QEMU has mapped. Compares; judges nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bootproof.harness.observation import Difference, Probe
from bootproof.harness.qemu.placement import PlacedImage
from bootproof.harness.qemu.session import Session
from bootproof.harness.registers import compare_registers
from bootproof.loader.address import Range
from bootproof.loader.arch import Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.memory import Bank, GuestMemory
from bootproof.loader.protocols.table import broken_rules
from bootproof.loader.rules import Hardware

_CHUNK: Final = 1 << 20
_PAGE: Final = 0x1000
_SHOWN: Final = 8  # differences that are listed; the rest is counted
_ACCESSED_DIRTY: Final = 0x60  # of a page-table entry: the CPU sets them
_PRESENT: Final = 1


@dataclass(frozen=True, slots=True)
class Guest:
    """What the probe looks at: the image as written, and the RAM that QEMU has mapped."""

    image: BootImage
    placed: PlacedImage
    written: GuestMemory
    ram: GuestMemory


def at_entry(
    guest: Guest, session: Session, given_up: Callable[[], bool], *, go_on: bool = True
) -> Probe:
    """Runs to the entry and compares; the guest goes on from there, unless it is to stay.

    Raises GdbError and MonitorError when QEMU goes away.
    """
    there, registers = session.run_to(guest.image.entry, given_up)
    if not there:
        return Probe(None, f"the CPU was at {registers.pc:#x} in {registers.mode}")
    differences = [
        *compare_registers(guest.image.cpus[0], registers),
        *compare_memory(guest, registers),
    ]
    system = session.gdb.system_registers(session.machine.arch.dump.system)
    instructions = session.monitor.instructions()
    hardware = Hardware(registers, _reader(guest), guest.image.region("kernel"), system)
    findings = broken_rules(guest.image.protocol, hardware)
    if go_on:
        session.gdb.detach()
    return Probe(
        registers,
        differences=tuple(differences[:_SHOWN]),
        more=max(0, len(differences) - _SHOWN),
        findings=tuple(findings),
        instructions=instructions,
    )


def compare_memory(guest: Guest, registers: Registers) -> Iterator[Difference]:
    """Every byte the loader wrote is there and everything else is zero, but for a named list.

    The list: the reset stubs and staging areas; RAM that the machine does not leave alone; accessed
    and dirty bits of the page tables in use.
    """
    exempt = guest.placed.working_areas
    tables = set(_page_tables(guest, registers))
    for banks in zip(guest.written.banks, guest.ram.banks, strict=True):
        sides = tuple(zip((guest.written.fileno(), guest.ram.fileno()), banks, strict=True))
        for chunk in _chunks_with_data(sides):
            written, seen = (
                os.pread(fd, chunk.size, bank.file_offset + chunk.start) for fd, bank in sides
            )
            if written != seen:
                base = banks[0].base + chunk.start
                yield from _pages_that_differ(base, written, seen, exempt, tables)


def _chunks_with_data(sides: tuple[tuple[int, Bank], ...]) -> Iterator[Range]:
    """Parts of a bank, relative to its start, in which either file has data; 1 MiB at most."""
    end = sides[0][1].size
    cursor = 0
    while cursor < end:
        starts = [_next_data(fd, bank, cursor) for fd, bank in sides]
        start = min((at for at in starts if at is not None), default=end)
        if start >= end:
            return
        start = max(cursor, start & ~(_PAGE - 1))
        size = min(_CHUNK, end - start)
        yield Range(start, size)
        cursor = start + size


def _next_data(fd: int, bank: Bank, start: int) -> int | None:
    """Where data begins at or after `start` in the bank (or behind it), relative to its start."""
    try:
        return os.lseek(fd, bank.file_offset + start, os.SEEK_DATA) - bank.file_offset
    except OSError:  # no data from here to the end
        return None


def _pages_that_differ(
    base: int, written: bytes, seen: bytes, exempt: tuple[Range, ...], tables: set[int]
) -> Iterator[Difference]:
    for offset in range(0, len(written), _PAGE):
        left, right = written[offset : offset + _PAGE], seen[offset : offset + _PAGE]
        page = base + offset
        if left == right:
            continue
        if page in tables and _only_accessed_dirty(left, right):
            continue
        at = next(
            index
            for index, (one, other) in enumerate(zip(left, right, strict=True))
            if one != other
        )
        if not any(area.contains(Range(page + at, 1)) for area in exempt):
            yield Difference(
                f"RAM at {page + at:#x}", left[at : at + 8].hex(" "), right[at : at + 8].hex(" ")
            )


def _only_accessed_dirty(left: bytes, right: bytes) -> bool:
    changed = int.from_bytes(left, "little") ^ int.from_bytes(right, "little")
    allowed = int.from_bytes((_ACCESSED_DIRTY.to_bytes(8, "little")) * (len(left) // 8), "little")
    return not changed & ~allowed


def _page_tables(guest: Guest, registers: Registers) -> Iterator[int]:
    """Guest-physical pages of the page tables the loader wrote (SDM vol. 3A 4.5).

    Each level is a set: tables may be shared, or point at themselves.
    """
    root = registers.page_table_root
    level = set() if root is None else {root}
    for _ in range(4):
        yield from level
        following: set[int] = set()
        for table in level:
            if guest.written.contains(table, _PAGE):
                raw = guest.written.read(table, _PAGE)
                entries = (int.from_bytes(raw[i : i + 8], "little") for i in range(0, _PAGE, 8))
                following.update(
                    entry & 0x000FFFFFFFFFF000
                    for entry in entries
                    if entry & _PRESENT and not entry & 0x80
                )
        level = following


def _reader(guest: Guest) -> Callable[[int, int], bytes | None]:
    """Reads the guest's own RAM at guest-physical addresses; no rule needs more than 1 MiB."""

    def read(address: int, size: int) -> bytes | None:
        if size > _CHUNK or not guest.ram.contains(address, size):
            return None
        return guest.ram.read(address, size)

    return read
