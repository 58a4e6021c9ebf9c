"""The hand-over of another program, as far as it could be seen, made complete.

Owns what is *seen*, *derived* and *assumed*: a register that was not seen follows from others or
from RAM, or is what the boot protocol demands, or what a CPU's reset leaves; each is marked. Which
protocol it is, is told by what the registers lead to. Where the bytes come from is not its
business. All addresses are guest-physical.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import MIB
from bootproof.loader.arch import How, RamFile, Registers
from bootproof.loader.arch.importing import Seen, SeenError
from bootproof.loader.arch.table import ARCHITECTURES, IMPORTING
from bootproof.loader.bootimage import NO_PROTOCOL, Unseen
from bootproof.loader.protocols.protocol import Pointer
from bootproof.loader.protocols.table import PROTOCOLS, AnyProtocol

_RESET: Final = "a CPU's reset"
_MOST_FOUND: Final = 4  # that a message names


@dataclass(frozen=True, slots=True)
class Completed:
    """A complete state of a CPU, the name of the protocol that it follows, and what is marked."""

    registers: Registers
    protocol: str
    unseen: tuple[Unseen, ...]


def complete(
    arch: str, seen: Seen, memory: RamFile, protocol: str | None = None, cpu: int = 0
) -> Completed:
    """Everything that is needed to start the CPU again, from what was seen of it.

    Without `protocol` it is told by RAM. Raises SeenError naming the register that is missing, or
    what cannot be told.
    """
    if protocol is None:
        protocol = recognised(arch, seen, memory)
    demanded, pointed = None, None
    if protocol != NO_PROTOCOL:
        demanded, pointed = _demanded(PROTOCOLS[protocol], seen, memory)
    concluded = {c.field: c for c in IMPORTING[arch].conclude(seen, demanded, memory)}
    values, unseen = {}, []
    left_out = IMPORTING[arch].left_out
    for field in fields(ARCHITECTURES[arch].registers):
        name, mark = field.name, None
        if name in seen.values:
            value = seen.values[name]
            values[name] = value & ~left_out[name] if name in left_out else value
        elif name in concluded:
            found = concluded[name]
            values[name] = found.value
            mark = Unseen(name, found.how, found.source or protocol)
        elif demanded is not None:
            values[name] = getattr(demanded, name)
            mark = Unseen(name, How.ASSUMED, protocol)
        elif field.default is not MISSING:
            values[name], mark = field.default, Unseen(name, How.ASSUMED, _RESET)
        else:
            raise SeenError(
                f"{name} was not seen, and nothing tells it",
                field=name,
                advice="give it in --registers, or what demands it by --protocol",
            )
        if mark is not None:
            unseen.append(pointed if pointed and pointed.field == name else mark)
    marks = tuple(Unseen(f"cpus[{cpu}].{u.field}", u.how, u.source) for u in unseen)
    return Completed(ARCHITECTURES[arch].registers(**values), protocol, marks)


def recognised(arch: str, seen: Seen, memory: RamFile) -> str:
    """The protocol whose structure the registers lead to, in the CPU's mode; "none" without one."""
    values = dict(seen.values)
    values |= {c.field: c.value for c in IMPORTING[arch].conclude(seen, None, memory)}
    mode = _mode(arch, values)
    known = (p for p in PROTOCOLS.values() if p.arch.name == arch)
    for protocol in sorted(known, key=lambda protocol: protocol.rank):
        address = protocol.pointer.of(values)
        if address is None or not _is_there(protocol.pointer, address, memory):
            continue
        if mode is None or protocol.state(0, 0).mode == mode:
            return protocol.name
    return NO_PROTOCOL


def _mode(arch: str, values: Mapping[str, Any]) -> str | None:
    """The CPU's mode, where enough was seen of it."""
    kind = ARCHITECTURES[arch].registers
    required = [field.name for field in fields(kind) if field.default is MISSING]
    if not {*required, *IMPORTING[arch].tells_mode} <= values.keys():
        return None
    return str(kind(**values).mode)


def _demanded(
    protocol: AnyProtocol, seen: Seen, memory: RamFile
) -> tuple[Registers, Unseen | None]:
    """What the protocol demands of this CPU; and how its pointer was found, unless it was seen."""
    counter = IMPORTING[protocol.arch.name].counter
    entry = seen.values.get(counter)
    if entry is None:
        raise SeenError(
            "the program counter was not seen", field=counter, advice="give it by --entry"
        )
    address, mark = protocol.pointer.of(seen.values), None
    if address is None:
        address = _only(protocol.pointer, memory)
        what = f"the only {protocol.pointer.what} in RAM"
        mark = Unseen(protocol.pointer.register, How.DERIVED, what)
    return protocol.state(entry, address), mark


def _only(pointer: Pointer, memory: RamFile) -> int:
    """Where in RAM is what a pointer leads to. Raises SeenError unless it is there once."""
    found = list(_places(pointer, memory))
    if len(found) == 1:
        return found[0]
    where = ", ".join(f"{address:#x}" for address in found[:_MOST_FOUND])
    where += ", …" if len(found) > _MOST_FOUND else ""
    what = f"RAM has {len(found)} places with a {pointer.what}, {where}" if found else ""
    raise SeenError(
        f"{pointer.name} was not seen, and {what or f'RAM has no {pointer.what}'}",
        field=pointer.register,
        advice="give it in --registers",
    )


def _places(pointer: Pointer, memory: RamFile) -> Iterator[int]:
    for extent in memory.nonzero_extents():
        for start in range(extent.start, extent.end, MIB):
            size = min(MIB + len(pointer.magic) - 1, extent.end - start)
            data = memory.read(start, size)
            at = data.find(pointer.magic)
            while at >= 0:
                address = start + at - pointer.offset
                if address >= 0 and address % pointer.alignment == 0:
                    yield address
                at = data.find(pointer.magic, at + 1)


def _is_there(pointer: Pointer, address: int, memory: RamFile) -> bool:
    place, size = address + pointer.offset, len(pointer.magic)
    return memory.contains(place, size) and memory.read(place, size) == pointer.magic
