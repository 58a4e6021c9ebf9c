"""The entry probe: CPU and RAM at the kernel's first instruction, held against what was asked.

Runs the guest to its entry under the gdbstub, and reads registers and RAM while it stands there.
Compares; judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.observation import Difference, Probe
from bootproof.harness.qemu.placement import PlacedImage
from bootproof.harness.qemu.session import Session
from bootproof.harness.qemu.standing import StandingMemory
from bootproof.harness.registers import compare_registers
from bootproof.loader import conformance
from bootproof.loader.address import PAGE, Range, align_down, align_up
from bootproof.loader.arch import Registers
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.boot_parameters import reader
from bootproof.loader.bootimage import BootImage
from bootproof.loader.device_tree import DTB_MAX
from bootproof.loader.memory import CHEAP_READ, GuestMemory
from bootproof.loader.rules import RuleFinding

_MOST: Final = DTB_MAX  # bytes of one thing that a rule asks for: a device tree is the largest
_SHOWN: Final = 8  # differences that are listed; the rest is counted
_ACCESSED_DIRTY: Final = 0x60  # of a page-table entry: the CPU sets them


@dataclass(frozen=True, slots=True)
class Guest:
    """What the probe looks at: the image as written, and the RAM that QEMU has mapped."""

    image: BootImage
    placed: PlacedImage
    written: GuestMemory
    ram: GuestMemory


def at_entry(guest: Guest, session: Session, given_up: Callable[[], bool]) -> Probe:
    """Runs to the entry and compares; the guest stays there.

    Raises GdbError and MonitorError when QEMU goes away.
    """
    there, registers = session.run_to(guest.image.entry, given_up)
    memory = StandingMemory(session)
    if not there:
        where = f"the CPU was at {registers.pc:#x} in {registers.mode}{_refused(guest, registers)}"
        return Probe(None, where, findings=_findings(guest, session, memory))
    asked = guest.image.cpus[0]
    others = list(compare_registers(asked, registers))
    differences = [*others, *compare_memory(guest, memory, registers)]
    instructions = session.monitor.instructions()
    # As it was asked for it may have selectors that no stub can load.
    findings = _findings(guest, session, memory, registers if others else asked)
    return Probe(
        registers,
        differences=tuple(differences[:_SHOWN]),
        more=max(0, len(differences) - _SHOWN),
        findings=findings,
        instructions=instructions,
    )


def _refused(guest: Guest, registers: Registers) -> str:
    """What the CPU does not take, where it stands at the instruction that gives it that."""
    stub = next(region.range for region in guest.placed.added)
    if not stub.contains(Range(registers.pc, 1)):
        return ""
    code = guest.placed.stub[registers.pc - stub.start :]
    name = ARCHITECTURES[guest.image.arch].sets(code)
    value = getattr(guest.image.cpus[0], name) if name else 0
    why = "this CPU has not all that it asks for (--cpu)"
    return f", where it does not take {name} {value:#x}: {why}" if name else ""


def _findings(
    guest: Guest, session: Session, memory: StandingMemory, registers: Registers | None = None
) -> tuple[RuleFinding, ...]:
    """The rules that do not hold: for these registers, else for those that the image asks for."""
    system = session.gdb.system_registers(session.machine.arch.dump.system) if registers else {}
    machine = session.machine
    return conformance.findings(
        *(guest.image, _reader(guest, memory), registers),
        system=system,
        cpus=machine.cpus,
        resident=[region.range for region in machine.firmware],
    )


def compare_memory(
    guest: Guest, memory: StandingMemory, registers: Registers
) -> Iterator[Difference]:
    """Every byte the loader wrote is there and everything else is zero, but for a named list.

    The list: the reset stubs and staging areas; RAM that the machine does not leave alone; accessed
    and dirty bits of the page tables in use.
    """
    exempt = guest.placed.working_areas
    tables = set(registers.page_tables(reader(guest.written)))
    covered = guest.placed.covered
    for chunk in _chunks_with_data(guest):
        written, seen = _written(guest, chunk), guest.ram.read(chunk.start, chunk.size)
        if written != seen:
            yield from _pages_that_differ(chunk.start, written, seen, exempt + covered, tables)
    for area in covered:
        written, seen = _written(guest, area), memory.read(area.start, area.size)
        if written != seen:
            yield from _pages_that_differ(area.start, written, seen, exempt, tables)


def _chunks_with_data(guest: Guest) -> Iterator[Range]:
    """Parts of the machine's RAM in which either side has data, in order, in small pieces."""
    parts = sorted([*guest.written.data_extents(), *guest.ram.data_extents()])
    ends = [bank.range.end for bank in guest.ram.banks]
    cursor = 0
    for part in parts:
        start = max(cursor, align_down(part.start, PAGE))
        while start < part.end:
            limits = (start + CHEAP_READ, align_up(part.end, PAGE))
            end = min(*limits, *(e for e in ends if e > start))
            yield Range.between(start, end)
            start = cursor = end


def _written(guest: Guest, part: Range) -> bytes:
    """What the boot image has in a part of the machine's RAM; zeros where it has no RAM."""
    if guest.written.contains(part.start, part.size):
        return guest.written.read(part.start, part.size)
    data = bytearray(part.size)
    for bank in guest.written.banks:
        start, end = max(part.start, bank.base), min(part.end, bank.range.end)
        if start < end:
            data[start - part.start : end - part.start] = guest.written.read(start, end - start)
    return bytes(data)


def _pages_that_differ(
    base: int, written: bytes, seen: bytes, exempt: tuple[Range, ...], tables: set[int]
) -> Iterator[Difference]:
    for offset in range(0, len(written), PAGE):
        left, right = written[offset : offset + PAGE], seen[offset : offset + PAGE]
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


def _reader(guest: Guest, memory: StandingMemory) -> Callable[[int, int], bytes | None]:
    """Reads the guest's memory at guest-physical addresses; none needs more than `_MOST`.

    Where a reset stub lies it gives what the boot image has there: the rules are for that. So it
    does below ROM: what a machine does not let in is no mistake of the image, and told by itself.
    """
    ours = [*(region.range for region in guest.placed.added), *guest.placed.covered]

    def read(address: int, size: int) -> bytes | None:
        if size > _MOST or not memory.contains(address, size):
            return None
        data = bytearray(memory.read(address, size))
        for area in ours:
            start, end = max(address, area.start), min(address + size, area.end)
            if start < end:
                part = _written(guest, Range.between(start, end))
                data[start - address : end - address] = part
        return bytes(data)

    return read
