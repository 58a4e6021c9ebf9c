"""What a device tree tells of memory, initrd and CPUs, against the machine. For every architecture
that has device trees; where a kernel may lie is the protocol's. Pure.

Sources: Devicetree Specification v0.4, sections 2.3.5 (cells), 3.4 (/memory), 3.5
(/reserved-memory), 3.6 (/chosen), 3.8 (/cpus); Documentation/devicetree/bindings/chosen.txt.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from bootproof.loader import device_tree
from bootproof.loader.address import Range, joined
from bootproof.loader.arch import R
from bootproof.loader.boot_parameters import Read
from bootproof.loader.device_tree import DeviceTree, DeviceTreeError, Header, Node
from bootproof.loader.rules import (
    Findings,
    Hardware,
    RuleFinding,
    documents,
    firmware,
    initrd,
    memory_map,
    tolerated,
    violation,
)
from bootproof.loader.rules.memory_map import Map
from bootproof.loader.rules.pieces import INITRD, Piece
from bootproof.loader.structures.zero_page import E820Entry

DTB: Final = "dtb"
_RAM: Final = 1
_OPENSBI: Final = b"mmode_resv"
# Documentation/arch/arm/uefi.rst: from there on, what UEFI says counts, on riscv64 as well.
UEFI: Final = b"linux,uefi-mmap-start"
_CHOSEN: Final = f"{documents.CHOSEN} (linux,initrd-start and -end)"


def look(read: Read, address: int, pointer: str, section: str) -> DeviceTree | RuleFinding:
    """The tree at a guest-physical address, or why there is none."""
    raw = read(address, Header.SIZE)
    header = Header.from_bytes(raw) if raw else None
    if header is None or header.magic != device_tree.MAGIC:
        what = f"{pointer} {address:#x} does not point to a device tree in RAM"
        return violation(DTB, what, section, address=address)
    if not address:  # arch/arm64/mm/mmu.c: fixmap_remap_fdt
        return violation(DTB, f"{pointer} is 0, which is no device tree to a kernel", section)
    size, limit = header.totalsize, device_tree.DTB_MAX
    if size > limit:
        what = f"the device tree has {size:#x} bytes, more than 2 MiB"
        return violation("dtb-size", what, section, address=address, value=size, limit=limit)
    try:
        return DeviceTree.parse(read(address, size) or b"")
    except DeviceTreeError as error:
        what = f"{pointer} {address:#x}: {error}"
        return violation(DTB, what, section, address=address, value=size)


def initrd_of(tree: DeviceTree) -> tuple[int, int] | None:
    """Start and end as /chosen has them, as far as both are there."""
    ends = [tree.chosen.get(name) for name in device_tree.INITRD]
    if any(end is None or len(end) not in (4, 8) for end in ends):
        return None
    start, end = (int.from_bytes(end or b"", "big") for end in ends)
    return start, end


def pieces(read: Read, address: int, tree: DeviceTree, pointer: str, section: str) -> list[Piece]:
    """The tree itself, which is in RAM, and the initrd that it tells of."""
    size = Header.from_bytes(read(address, Header.SIZE) or b"").totalsize
    found = [Piece(DTB, Range(address, size), pointer, section, DTB)]
    told = initrd_of(tree)
    if told and told[1] > told[0]:
        place = Range.between(*told)
        found.append(Piece(INITRD, place, "linux,initrd-start and -end", _CHOSEN, "ramdisk"))
    return found


def check(hardware: Hardware[R], tree: DeviceTree, found: Iterable[Piece]) -> Findings:
    """Memory, initrd and CPUs; `found` are the pieces that the kernel is pointed to."""
    found = list(found)
    yield from _initrd(hardware, tree)
    if UEFI in tree.chosen:
        return  # memory and CPUs are told by UEFI and ACPI, and of those nothing is known here
    yield from _root(tree)
    untyped = list(_untyped(tree))
    yield from untyped
    entries = _memory(tree)
    if not entries and not untyped:
        what = "the device tree has no memory node with a reg, or it is disabled"
        yield violation("memory-node", what, documents.MEMORY_NODE)
    elif entries:
        told = Map(entries, "/memory", documents.MEMORY_NODE)
        yield from memory_map.check(hardware, told, found)
    yield from _reserved(tree, found)
    yield from _cpus(hardware, tree)


def _root(tree: DeviceTree) -> Findings:
    missing = [name.decode() for name in device_tree.CELLS if name not in tree.nodes[0].properties]
    if missing:
        what = f"the root has no {' and no '.join(missing)}: kernels take 1 for it"
        yield violation("root-cells", what, documents.ROOT_NODE)


def _cpus(hardware: Hardware[R], tree: DeviceTree) -> Findings:
    numbers = Counter(cpu.number for cpu in tree.cpus)
    for number, count in numbers.items():
        if count > 1:
            what = f"/cpus has the CPU {number:#x} {count} times"
            yield violation("cpu-twice", what, documents.CPUS_NODE, value=number)
    yield from firmware.cpus(hardware, len(tree.cpus) or 1, "/cpus", documents.CPUS_NODE)


def command_line(tree: DeviceTree, most: int) -> Findings:
    """`most` is how many bytes without the NUL kernels of the architecture keep."""
    told, end, _ = tree.chosen.get(b"bootargs", b"").partition(b"\0")
    if told and not end:
        what = "bootargs of /chosen does not end with a NUL: kernels drop its last character"
        yield violation("bootargs", what, documents.CHOSEN, value=len(told))
    if len(told) > most:
        what = f"the command line has {len(told)} bytes, more than {most}"
        yield violation("cmdline-size", what, documents.CHOSEN, value=len(told), limit=most)


def _initrd(hardware: Hardware[R], tree: DeviceTree) -> Findings:
    values = [tree.chosen.get(name) for name in device_tree.INITRD]
    told = initrd_of(tree)
    if told is None:
        if any(value is not None for value in values):
            shown = " and ".join("none" if v is None else f"{len(v)} bytes" for v in values)
            what = f"/chosen has linux,initrd-start and -end of {shown}; each must be 4 or 8 bytes"
            yield violation("chosen-initrd", what, _CHOSEN)
        return
    start, end = told
    if end < start:
        what = f"linux,initrd-end {end:#x} is before linux,initrd-start {start:#x}"
        yield violation("chosen-initrd", what, _CHOSEN, address=start, value=end)
    elif hardware.in_ram(Range.between(start, end)):
        yield from initrd.check(hardware.read, Range.between(start, end), "/chosen")


def _memory(tree: DeviceTree) -> list[E820Entry]:
    return [E820Entry(place.start, place.size, _RAM) for place in tree.memory]


def _untyped(tree: DeviceTree) -> Findings:
    for node in tree.nodes:
        named = (node.depth, node.name.partition(b"@")[0]) == (1, b"memory")
        if named and node.is_enabled and node.properties.get(b"device_type") != b"memory\0":
            name = node.name.decode("ascii", "backslashreplace")
            what = f'/{name} has no device_type "memory": kernels leave it out'
            yield violation("memory-node", what, documents.MEMORY_NODE)


def _reserved(tree: DeviceTree, found: Iterable[Piece]) -> Findings:
    """What the kernel is not to map at all must hold nothing that it is pointed to."""
    section = documents.RESERVED_MEMORY
    if tree.child(device_tree.RESERVED_MEMORY) and not tree.reserves:
        what = "/reserved-memory has no ranges, or other cells than the root: kernels ignore it"
        yield tolerated("reserved-memory-format", what, section)
    looked_at = {id(node) for node in tree.reserved}
    for node in tree.below(device_tree.RESERVED_MEMORY) if tree.reserves else ():
        if node.is_enabled and id(node) not in looked_at:
            name = node.name.decode("ascii", "backslashreplace")
            what = f"the reg of /reserved-memory/{name} has no whole ranges: kernels ignore it"
            yield tolerated("reserved-memory-format", what, section)
    for node, place in _reservations(tree):
        for piece in found:
            if piece.range.overlaps(place):
                name = node.name.decode("ascii", "backslashreplace")
                what = f"/reserved-memory/{name} {place} has the {piece} in it"
                grade = violation if device_tree.NO_MAP in node.properties else tolerated
                yield grade("reserved-memory", what, section, address=place.start)


def resident(hardware: Hardware[R], tree: DeviceTree, section: str) -> Findings:
    """RAM where a firmware stays is either none that the kernel is told of, or not to be mapped."""
    kept = joined(tree.not_mapped)
    of_firmware = [place for node, place in _reservations(tree) if node.name.startswith(_OPENSBI)]
    for place in hardware.resident:
        is_told = any(area.overlaps(place) for area in tree.memory)
        if is_told and not any(area.contains(place) for area in kept):
            what = f"the firmware's RAM {place} is not in /reserved-memory with no-map"
            # OpenSBI reserves what it uses of it by itself, version 1.1 without no-map.
            own = any(area.start == place.start for area in of_firmware)
            grade = tolerated if own else violation
            yield grade("firmware-reserved", what, section, address=place.start)


def _reservations(tree: DeviceTree) -> Iterator[tuple[Node, Range]]:
    return ((node, place) for node in tree.reserved for place in tree.places(node))
