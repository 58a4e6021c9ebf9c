"""x86_64: what others show of a CPU, and what follows from it: core notes, debuggers, GDT in RAM.

A core of QEMU's or Cloud Hypervisor's shows everything but EFER; a debugger of most VMMs shows
general registers and selectors. Descriptors and page tables then lie in RAM.

Sources: QEMU's target/i386/arch_dump.c (QEMUCPUState) and Linux's struct user_regs_struct; GDB's
64bit-core.xml; Intel SDM vol. 3A 3.4.5 (descriptors), 4.5 (page tables).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch import How, RamFile, x86_paging
from bootproof.loader.arch.importing import Conclusion, Importing, Seen, SeenError
from bootproof.loader.arch.x86_64 import (
    ATTR_GRANULARITY,
    ATTR_LONG,
    CR0_PG,
    EFER_LMA,
    EFER_LME,
    DescriptorTable,
    Segment,
    X86Registers,
)
from bootproof.loader.corefile import CoreError, Note, user_registers

_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss")

# --- cores ---------------------------------------------------------------------------------------

_GENERAL: Final = (
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp"),
    *(f"r{number}" for number in range(8, 16)),
)
_QEMU_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "ldtr", "tr")
_QEMU_TABLES: Final = ("gdtr", "idtr")
_QEMU_STATE: Final = struct.Struct("<2I18Q" + 10 * "4IQ" + "6Q")
_USER_REGISTERS: Final = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx"),
    *("rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base"),
    *("ds", "es", "fs", "gs"),
)


def from_notes(notes: Sequence[Note]) -> list[Seen]:
    """The CPUs of a core. Raises CoreError for one whose notes show none."""
    states = [note for note in notes if note.name == b"QEMU" and note.type == 0]
    if states:
        return [_from_state(note) for note in states]
    # What a process's registers are: selectors, and nothing that a kernel would ask for.
    return [
        from_debugger(dict(zip(_USER_REGISTERS, registers, strict=True)))
        for registers in user_registers(notes, len(_USER_REGISTERS))
    ]


def _from_state(note: Note) -> Seen:
    """QEMUCPUState, which Cloud Hypervisor writes as well."""
    if len(note.content) < _QEMU_STATE.size:
        what = f"the note QEMU has {len(note.content)} bytes, not {_QEMU_STATE.size}"
        raise CoreError(what, field="n_descsz", value=len(note.content), limit=_QEMU_STATE.size)
    _, _, *numbers = _QEMU_STATE.unpack_from(note.content)
    general, rest = numbers[:18], numbers[18:]
    parts = {
        name: rest[5 * index : 5 * index + 5]
        for index, name in enumerate((*_QEMU_SEGMENTS, *_QEMU_TABLES))
    }
    values: dict[str, Any] = dict(zip((*_GENERAL, "rip", "rflags"), general, strict=True))
    for name in _QEMU_SEGMENTS:
        selector, limit, flags, _, base = parts[name]
        values[name] = Segment(selector, base, limit, flags >> 8 & 0xF0FF)
    for name in _QEMU_TABLES:
        _, limit, _, _, base = parts[name]
        values[name] = DescriptorTable(base, limit)
    cr0, _, cr2, cr3, cr4, _ = rest[50:]
    return Seen(values | {"cr0": cr0, "cr2": cr2, "cr3": cr3, "cr4": cr4})


# --- debuggers -----------------------------------------------------------------------------------

# The registers that every debugger of this architecture shows, in their order, and their bits.
DEBUGGER: Final = (
    *((name, 64) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")),
    *((f"r{number}", 64) for number in range(8, 16)),
    *(("rip", 64), ("eflags", 32)),
    *((name, 32) for name in ("cs", "ss", "ds", "es", "fs", "gs")),
)
_OTHER_NAMES: Final = {"eflags": "rflags"}
_NUMBERS: Final = (*_GENERAL, "rip", "rflags", "cr0", "cr2", "cr3", "cr4", "efer")


def from_debugger(found: Mapping[str, int]) -> Seen:
    """Registers by a debugger's names."""
    named = {_OTHER_NAMES.get(name, name): value for name, value in found.items()}
    values = {name: named[name] for name in _NUMBERS if name in named}
    return Seen(values, {name: named[name] & 0xFFFF for name in _SEGMENTS if name in named})


# --- what follows --------------------------------------------------------------------------------

_GDT_SEARCHED: Final = Range(0, MIB)


def conclude(seen: Seen, demanded: X86Registers | None, memory: RamFile) -> Iterator[Conclusion]:
    """What follows from what was seen, from RAM, and from what a protocol demands."""
    known = dict(seen.values)
    for conclusion in _segments(seen, demanded, memory):
        known[conclusion.field] = conclusion.value
        yield conclusion
    if "efer" not in known and {"cr0", "cs"} <= known.keys():
        active = known["cr0"] & CR0_PG and known["cs"].attributes & ATTR_LONG
        value = EFER_LME | EFER_LMA if active else 0
        yield Conclusion("efer", value, How.DERIVED, "cr0 and cs")
    if "cr3" not in known and demanded is not None and demanded.long_mode:
        wanted = (demanded.rip, demanded.rsi)
        root = _page_tables(memory, wanted)
        if root is None:
            raise SeenError(
                "cr3 was not seen, and RAM has no single set of page tables that map the entry and"
                " the boot parameters to themselves",
                field="cr3",
                advice="give it in --registers",
            )
        what = "the page tables in RAM that map entry and boot parameters to themselves"
        yield Conclusion("cr3", root, How.DERIVED, what)


def _segments(seen: Seen, demanded: X86Registers | None, memory: RamFile) -> Iterator[Conclusion]:
    wanted = {name: value for name, value in seen.selectors.items() if name not in seen.values}
    if not wanted:
        return
    table = seen.values.get("gdtr")
    if table is None:
        start = _find_gdt(memory, seen.selectors)
        if start is not None:
            table = DescriptorTable(start, max(wanted.values()) | 7)
            what = f"the table at {start:#x} that has the selectors"
            yield Conclusion("gdtr", table, How.DERIVED, what)
    for name, selector in wanted.items():
        if not selector & ~3:
            null = Segment(selector, limit=0, attributes=0)
            yield Conclusion(name, null, How.DERIVED, "its null selector")
            continue
        raw = _descriptor(memory, table, selector)
        if raw is not None:
            segment = from_descriptor(selector, int.from_bytes(raw, "little"))
            what = f"its selector {selector:#x}, in the GDT in RAM"
            yield Conclusion(name, segment, How.DERIVED, what)
        elif demanded is not None:
            cache: Segment = getattr(demanded, name)
            segment = Segment(selector, cache.base, cache.limit, cache.attributes)
            yield Conclusion(name, segment, How.ASSUMED, "")


def _descriptor(memory: RamFile, table: DescriptorTable | None, selector: int) -> bytes | None:
    if table is None or selector | 7 > table.limit:
        return None
    place = table.base + (selector & ~7)
    return memory.read(place, 8) if memory.contains(place, 8) else None


def from_descriptor(selector: int, descriptor: int) -> Segment:
    """The cache that loading a descriptor gives (SDM 3.4.5)."""
    limit = descriptor & 0xFFFF | (descriptor >> 48 & 0xF) << 16
    attributes = descriptor >> 40 & 0xF0FF
    if attributes & ATTR_GRANULARITY:
        limit = limit << 12 | 0xFFF
    base = descriptor >> 16 & 0xFFFFFF | (descriptor >> 56 & 0xFF) << 24
    return Segment(selector, base, limit, attributes | attributes >> 4 & 1)


def _find_gdt(memory: RamFile, selectors: Mapping[str, int]) -> int | None:
    """The lowest table below 1 MiB in which CS is present code, and SS and DS present data."""
    code = selectors.get("cs", 0) >> 3
    data = {selectors[name] >> 3 for name in ("ss", "ds") if selectors.get(name, 0) >> 3}
    if not code:
        return None
    most = max(code, *data, 0) + 1
    for extent in memory.nonzero_extents():
        if not extent.overlaps(_GDT_SEARCHED):
            continue
        end = min(extent.end, _GDT_SEARCHED.end)
        raw = memory.read(extent.start, (end - extent.start) // 8 * 8)
        words = memoryview(raw).cast("Q")
        for at in range(len(words) - most + 1):
            if (
                words[at] == 0
                and _kind(words[at + code]) & 0x98 == 0x98
                and _all_data(words[at + entry] for entry in data)
            ):
                return extent.start + 8 * at
    return None


def _all_data(descriptors: Iterator[int]) -> bool:
    return all(_kind(descriptor) & 0x98 == 0x90 for descriptor in descriptors)


def _kind(descriptor: int) -> int:
    return descriptor >> 40 & 0xFF


def _page_tables(memory: RamFile, mapped: Sequence[int]) -> int | None:
    """The one top table that maps every address to itself and that no other such one leads to."""

    def read(address: int, size: int) -> bytes | None:
        return memory.read(address, size) if memory.contains(address, size) else None

    found = [
        page
        for page in _candidates(memory, x86_paging.index(mapped[0], 4))
        if _is_top(read, page) and all(_identity(read, page, address) for address in mapped)
    ]
    below = set(chain.from_iterable(_below(read, page) for page in found))
    roots = [page for page in found if page not in below]
    return roots[0] if len(roots) == 1 else None


def _candidates(memory: RamFile, entry: int) -> Iterator[int]:
    for extent in memory.nonzero_extents():
        for chunk in range(extent.start, extent.end - 0xFFF, MIB):
            data = memory.read(chunk, min(MIB, extent.end - chunk) & ~0xFFF)
            for page in range(0, len(data), 0x1000):
                (value,) = struct.unpack_from("<Q", data, page + 8 * entry)
                if value & 1 and not value & 0x80:
                    yield chunk + page


def _is_top(read: Any, page: int) -> bool:
    """Whether what the first entry leads to is no page directory: one level too low, its 2 MiB
    pages would be 1 GiB pages at impossible addresses.
    """
    first = int.from_bytes(read(page, 8) or b"", "little") & x86_paging.ADDRESS
    entries = memoryview(read(first, 0x1000) or b"").cast("Q")
    return not any(
        entry & 0x81 == 0x81 and entry & x86_paging.ADDRESS & (GIB - 1) for entry in entries
    )


def _identity(read: Any, root: int, address: int) -> bool:
    return _walker(read, root).walk(address).physical == address


def _below(read: Any, root: int) -> set[int]:
    return set(_walker(read, root).tables()) - {root}


def _walker(read: Any, root: int) -> x86_paging.Walker:
    """Four levels; whether bit 63 may be set is not known."""
    return x86_paging.Walker(read, root, 0, x86_paging.EFER_NXE)


IMPORTING: Final[Importing[X86Registers]] = Importing(
    counter="rip",
    tells_mode=("cr0", "efer", "cs"),
    machines=(62, 3),  # EM_X86_64, and EM_386 as long as a CPU is not in long mode
    from_notes=from_notes,
    debugger=DEBUGGER,
    from_debugger=from_debugger,
    conclude=conclude,
)
