"""Flattened device trees: read within bounds, changed, and written. Pure: bytes only.

Owns the format, and what is to tell a kernel how it was loaded. A tree may come from a stranger:
reading it is one pass without recursion, and trusts no offset and no size.

Source: Devicetree Specification v0.4, sections 3.5 (/reserved-memory) and 3.6 (/chosen), chapter 5
(flattened format); Documentation/devicetree/bindings/chosen.txt of the kernel for linux,initrd-*.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
import hashlib
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import field
from itertools import takewhile
from typing import Final, Self

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range, align_up
from bootproof.loader.declared import U32, Declared
from bootproof.loader.errors import Facts, LoaderError

DTB_MAX: Final = 2 << 20  # Documentation/arch/arm64/booting.rst section 2
LABEL: Final = b"bootproof,request"
MAGIC: Final = 0xD00DFEED
_VERSION, _COMPATIBLE = 17, 16
_NAME_MAX: Final = 256  # of properties; the specification has 31, and kernels have longer ones
_BEGIN_NODE, _END_NODE, _PROPERTY, _NOP, _END = 1, 2, 3, 4, 9
_TEXTS: Final = re.compile(rb"(?:[\t\v\f -~]+\0)+")
_WORD, _PAIR, _RESERVATION = struct.Struct(">I"), struct.Struct(">2I"), struct.Struct(">2Q")

RESERVED_MEMORY: Final = b"reserved-memory"
CELLS: Final = (b"#address-cells", b"#size-cells")
_NO_CELLS: Final = (b"\2", b"\1")
NO_MAP: Final = b"no-map"
_USABLE: Final = b"linux,usable-memory-range"
_OF_IT_USABLE: Final = b"linux,usable-memory"
ENABLE_METHOD: Final = b"enable-method"
# Those that number their calls by themselves (Documentation/devicetree/bindings/arm/psci.yaml).
PSCI_WITH_NUMBERS: Final = frozenset((b"arm,psci-0.2", b"arm,psci-1.0"))
_PSCI: Final = PSCI_WITH_NUMBERS | {b"arm,psci"}
_PARENT: Final = b"interrupt-parent"
_HANDLES: Final = (b"phandle", b"linux,phandle")  # the second in old trees
_MOST_CONTROLLERS: Final = 8  # from a device to the root of the interrupt tree
INITRD: Final = (b"linux,initrd-start", b"linux,initrd-end")
# Host entropy, which would make each boot a different one. A random pool that is not seeded at all
# costs guest instructions, so that one is given the same bytes each time.
_KASLR_SEED, _RNG_SEED = b"kaslr-seed", b"rng-seed"
RNG_SEED: Final = hashlib.sha256(b"bootproof").digest()  # as long as QEMU's own


class DeviceTreeError(LoaderError):
    """Bytes that are no flattened device tree, or one that a kernel would not take."""

    code = "DeviceTree::Invalid"


@dataclass(frozen=True, slots=True)
class Header(Declared):
    """struct fdt_header (section 5.2)."""

    BYTE_ORDER = ">"

    magic: U32
    totalsize: U32
    off_dt_struct: U32
    off_dt_strings: U32
    off_mem_rsvmap: U32
    version: U32
    last_comp_version: U32
    boot_cpuid_phys: U32
    size_dt_strings: U32
    size_dt_struct: U32


@dataclass(slots=True)
class Node:
    """A node: its name, how many nodes it is below the root, its properties in their order."""

    name: bytes
    depth: int = 1
    properties: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """What a CPU is called (section 3.8.1, reg): a hart, on riscv64."""
        return int.from_bytes(self.properties.get(b"reg", b""), "big")

    @property
    def is_memory(self) -> bool:
        """Whether it tells of RAM that is there: its type says so (section 3.4), not its name."""
        typed = self.properties.get(b"device_type") == b"memory\0"
        return self.depth == 1 and typed and self.is_enabled

    @property
    def is_enabled(self) -> bool:
        """Whether kernels look at it at all (section 2.3.4)."""
        return self.properties.get(b"status", b"okay\0") in (b"okay\0", b"ok\0")

    @property
    def is_cpu(self) -> bool:
        """Whether it is one of /cpus, by name or type, that kernels may start: a disabled one waits
        for that where it has a method (section 3.8.1; drivers/of/base.c, of_get_next_cpu_node).
        """
        named = self.name.partition(b"@")[0] == b"cpu"
        typed = self.properties.get(b"device_type") == b"cpu\0"
        waits = self.properties.get(b"status") == b"disabled\0" and ENABLE_METHOD in self.properties
        return (named or typed) and (self.is_enabled or waits)

    def texts(self, name: bytes) -> list[bytes]:
        """The strings of a property, without their NULs (section 2.2.4, stringlist)."""
        return self.properties.get(name, b"").split(b"\0")[:-1]


@dataclass(slots=True)
class DeviceTree:
    """The root with all nodes in it, each before those below it.

    `reservations` are the guest-physical (address, size) pairs of the memory reservation block.
    """

    nodes: list[Node]
    reservations: list[tuple[int, int]] = field(default_factory=list)
    boot_cpu: int = 0

    @classmethod
    def parse(cls, dtb: bytes) -> Self:
        """The tree at the start of `dtb`, without its NOPs. Raises DeviceTreeError."""
        header = _header(dtb)
        dtb = dtb[: header.totalsize]
        try:
            structure, strings = _blocks(dtb, header)
            nodes = list(_nodes(structure, header.off_dt_struct, strings))
            if [node.depth for node in nodes].count(0) != 1:
                raise ValueError("there is not one root")
            reservations = list(_reservations(dtb, header.off_mem_rsvmap))
            return cls(nodes, reservations, header.boot_cpuid_phys)
        except (struct.error, ValueError) as error:
            outside = "a part of it lies outside of its blocks"
            why = outside if isinstance(error, struct.error) else error
            raise DeviceTreeError(f"the device tree cannot be read: {why}") from error

    def to_bytes(self) -> bytes:
        """The tree, flattened."""
        strings, places = bytearray(), dict[bytes, int]()
        structure = bytearray()
        open_nodes = 0
        for node in self.nodes:
            structure += _WORD.pack(_END_NODE) * (open_nodes - node.depth)
            open_nodes = node.depth + 1
            structure += _padded(_WORD.pack(_BEGIN_NODE) + node.name + b"\0")
            for name, value in node.properties.items():
                if name not in places:
                    places[name] = strings.find(name + b"\0")
                    if places[name] < 0:
                        places[name] = len(strings)
                        strings += name + b"\0"
                head = struct.pack(">3I", _PROPERTY, len(value), places[name])
                structure += _padded(head + value)
        structure += _WORD.pack(_END_NODE) * open_nodes + _WORD.pack(_END)
        reserved = b"".join(_RESERVATION.pack(*pair) for pair in [*self.reservations, (0, 0)])
        header = Header(
            magic=MAGIC,
            totalsize=Header.SIZE + len(reserved) + len(structure) + len(strings),
            off_dt_struct=Header.SIZE + len(reserved),
            off_dt_strings=Header.SIZE + len(reserved) + len(structure),
            off_mem_rsvmap=Header.SIZE,
            version=_VERSION,
            last_comp_version=_COMPATIBLE,
            boot_cpuid_phys=self.boot_cpu,
            size_dt_strings=len(strings),
            size_dt_struct=len(structure),
        )
        return b"".join((header.to_bytes(), reserved, structure, strings))

    def as_text(self) -> Iterator[tuple[str, str]]:
        """Every node, as "/path" and "present", and every property, as "/path name" and its value.

        What the value means is not known: texts, words or bytes, whichever it looks like.
        """
        path: list[str] = []
        for node in self.nodes:
            path[node.depth :] = [node.name.decode("ascii", "backslashreplace")]
            where = "/" + "/".join(path[1:])
            yield where, "present"
            for name, value in node.properties.items():
                yield f"{where} {name.decode('ascii', 'backslashreplace')}", _shown(value)

    def child(self, name: bytes) -> Node | None:
        """The node of that name right below the root. One without a unit address is one with any,
        as to kernels (scripts/dtc/libfdt/fdt_ro.c, fdt_nodename_eq_).
        """
        found = (node for node in self.nodes if node.depth == 1)
        alike = (node for node in found if name in (node.name, node.name.partition(b"@")[0]))
        return next(alike, None)

    def below(self, name: bytes) -> Iterator[Node]:
        """The nodes right below that one, which is right below the root."""
        wanted, parent = self.child(name), None
        for node in self.nodes:
            if node.depth == 1:
                parent = node
            elif node.depth == 2 and parent is wanted:
                yield node

    def inside(self, node: Node) -> Iterator[Node]:
        """All nodes below that one, however far."""
        after = self.nodes[next(at for at, own in enumerate(self.nodes) if own is node) + 1 :]
        return takewhile(lambda other: other.depth > node.depth, after)

    @property
    def chosen(self) -> dict[bytes, bytes]:
        """The properties of /chosen; none where there is no such node."""
        node = self.child(b"chosen")
        return node.properties if node else {}

    @property
    def memory(self) -> tuple[Range, ...]:
        """The RAM that its memory nodes tell of (section 3.4), guest-physical, in order. Where one
        has a linux,usable-memory, that counts (drivers/of/fdt.c, early_init_dt_scan_memory).
        """
        nodes = [node for node in self.nodes if node.is_memory]
        names = [_OF_IT_USABLE if _OF_IT_USABLE in node.properties else b"reg" for node in nodes]
        found = (self.places(*pair) for pair in zip(nodes, names, strict=True))
        return tuple(sorted(place for places in found for place in places))

    def places(self, node: Node, name: bytes = b"reg") -> list[Range]:
        """What such a property of a node tells that is read with the root's cells (2.3.6)."""
        address, size = (4 * count for count in self.cells)
        reg, step = node.properties.get(name, b""), address + size
        if not address or not size:
            return []
        rows = (reg[at : at + step] for at in range(0, len(reg) - step + 1, step))
        numbers = ((row[:address], row[address:]) for row in rows)
        found = [Range(*(int.from_bytes(n, "big") for n in pair)) for pair in numbers]
        return [place for place in found if place.size]

    @property
    def usable(self) -> list[Range]:
        """Where a kernel is not to use all RAM, after a crash: a part of it, and what it is to use
        as well (drivers/of/fdt.c, early_init_dt_check_for_usable_mem_range).
        """
        node = self.child(b"chosen")
        return self.places(node, _USABLE)[:2] if node else []

    @property
    def cells(self) -> tuple[int, int]:
        """#address-cells and #size-cells of the root; 2 and 1 where it has none (2.3.5)."""
        root = self.nodes[0].properties if self.nodes else {}
        numbers = (root.get(name, default) for name, default in zip(CELLS, _NO_CELLS, strict=True))
        address, size = (int.from_bytes(number, "big") for number in numbers)
        return address, size

    @property
    def reserves(self) -> bool:
        """Whether kernels look at /reserved-memory: its cells are the root's, and its addresses.

        Source: drivers/of/of_reserved_mem.c, __reserved_mem_check_root.
        """
        node = self.child(RESERVED_MEMORY)
        root = self.nodes[0].properties if self.nodes else {}
        own = node.properties if node else {}
        alike = all(own.get(name) == root.get(name) is not None for name in CELLS)
        return alike and b"ranges" in own

    @property
    def reserved(self) -> list[Node]:
        """The parts of RAM that /reserved-memory keeps, those left out at which no kernel looks: a
        reg of no whole ranges is skipped (__reserved_mem_reserve_reg).
        """
        if not self.reserves:
            return []
        step = 4 * sum(self.cells)
        nodes = (node for node in self.below(RESERVED_MEMORY) if node.is_enabled)
        return [node for node in nodes if not len(node.properties.get(b"reg", b"")) % step]

    @property
    def not_mapped(self) -> tuple[Range, ...]:
        """The memory that no kernel maps, and calls no RAM of its own (section 3.5.4, no-map)."""
        return tuple(sorted(place for node in self._unmapped for place in self.places(node)))

    @property
    def reserved_twice(self) -> tuple[Range, ...]:
        """What of it something else reserves as well. Kernels map that after all when they see the
        other first: a node before it, and /memreserve/ in old ones, as 6.1 (drivers/of/fdt.c,
        early_init_dt_reserve_memory and early_init_fdt_scan_reserved_mem).
        """
        others = [Range(*pair) for pair in self.reservations]
        mapped = (node for node in self.reserved if NO_MAP not in node.properties)
        others += [place for node in mapped for place in self.places(node)]
        return tuple(p for p in self.not_mapped if any(p.overlaps(other) for other in others))

    @property
    def unplaced(self) -> tuple[int, ...]:
        """Bytes of each part of RAM that is not mapped either, wherever the kernel puts it: it has
        a size and no reg (section 3.5.4).
        """
        found = (node.properties for node in self._unmapped if b"reg" not in node.properties)
        return tuple(int.from_bytes(properties.get(b"size", b""), "big") for properties in found)

    @property
    def _unmapped(self) -> Iterator[Node]:
        return (node for node in self.reserved if NO_MAP in node.properties)

    @property
    def interrupts(self) -> tuple[int, ...]:
        """Where the root of the interrupt tree is (section 2.4), guest-physical: the first two
        parts of it. Empty where it is not told, or in addresses that are not the root's.
        """
        device = next((at for at, n in enumerate(self.nodes) if b"interrupts" in n.properties), 0)
        controller = self._controller(device) if self.nodes else None
        if controller is None:
            return ()
        for _ in range(_MOST_CONTROLLERS):
            parent = self._controller(controller)
            controller = controller if parent is None else parent
        node, *buses, root = self._around(controller)
        cells = [[node.properties.get(name) for name in CELLS] for node in (root, *buses)]
        identical = all(bus.properties.get(b"ranges") == b"" for bus in buses)  # section 2.3.8
        if not identical or cells.count(cells[0]) != len(cells):
            return ()
        return tuple(place.start for place in self.places(node))[:2]

    def _controller(self, at: int) -> int | None:
        """Which node the interrupts of one go to, by index; None where it is not one."""
        around = self._around(at)
        own = (n.properties[_PARENT] for n in around if _PARENT in n.properties)
        handle = next(own, None)
        found = [
            index
            for index, node in enumerate(self.nodes)
            if handle is not None and handle in (node.properties.get(name) for name in _HANDLES)
        ]
        return found[0] if len(found) == 1 else None

    def _around(self, at: int) -> Iterator[Node]:
        """A node, and those that it is in, up to the root."""
        depth = self.nodes[at].depth + 1
        for node in reversed(self.nodes[: at + 1]):
            if node.depth < depth:
                depth = node.depth
                yield node

    @property
    def psci(self) -> Node | None:
        """The node of PSCI firmware to kernels: the first, wherever it is
        (drivers/firmware/psci/psci.c, psci_dt_init).
        """
        alike = (node for node in self.nodes if not _PSCI.isdisjoint(node.texts(b"compatible")))
        return next(alike, None)

    @property
    def spinning(self) -> tuple[int, ...]:
        """The CPUs beside the first that wait in a loop for an address to be written."""
        found = (cpu for cpu in self.cpus if cpu.texts(ENABLE_METHOD)[:1] == [b"spin-table"])
        return tuple(cpu.number for cpu in found if cpu.number != self.boot_cpu)

    @property
    def cpus(self) -> list[Node]:
        """The listed CPUs that kernels may start, in their order."""
        return [node for node in self.below(b"cpus") if node.is_cpu]


def for_kernel(
    dtb: bytes,
    *,
    cmdline: bytes,
    initrd: Range | None,
    label: str = "",
    firmware: Sequence[Range] = (),
) -> bytes:
    """`dtb` with command line, initrd and label in /chosen, without another's initrd, and with the
    RAM of a firmware reserved.

    There is no kaslr-seed, and rng-seed is always the same. Ranges are guest-physical. Raises
    DeviceTreeError.
    """
    tree = DeviceTree.parse(dtb)
    node = tree.child(b"chosen")
    if node is None:
        node = Node(b"chosen")
        tree.nodes.append(node)
    node.name = b"chosen"  # not chosen@0, where no init looks for the label
    values = {b"bootargs": cmdline + b"\0", _RNG_SEED: RNG_SEED}
    if initrd is not None:
        ends = (struct.pack(">Q", end) for end in (initrd.start, initrd.end))
        values |= zip(INITRD, ends, strict=True)
    if label:
        values[LABEL] = label.encode() + b"\0"
    for name in (_KASLR_SEED, *INITRD, *values):
        node.properties.pop(name, None)
    node.properties |= values
    _reserve(tree, firmware)
    patched = tree.to_bytes()
    if len(patched) > DTB_MAX:
        facts: Facts = {"field": "totalsize", "value": len(patched), "limit": DTB_MAX}
        raise DeviceTreeError("the device tree is too large", **facts)
    return patched


def _reserve(tree: DeviceTree, firmware: Sequence[Range]) -> None:
    """Adds to /reserved-memory, with no-map: nobody is to map it (section 3.5)."""
    if not firmware:
        return
    parent = tree.child(RESERVED_MEMORY)
    if parent is None:
        two = _WORD.pack(2)
        cells = {b"#address-cells": two, b"#size-cells": two, b"ranges": b""}
        parent = Node(RESERVED_MEMORY, 1, cells)
        tree.nodes.append(parent)
    at = tree.nodes.index(parent) + 1
    tree.nodes[at:at] = [
        Node(b"firmware@%x" % area.start, 2, {b"reg": _reg(area), b"no-map": b""})
        for area in firmware
    ]


def _reg(area: Range) -> bytes:
    return struct.pack(">2Q", area.start, area.size)


def _header(dtb: bytes) -> Header:
    if len(dtb) < Header.SIZE:
        facts: Facts = {"field": "size", "value": len(dtb), "limit": Header.SIZE}
        raise DeviceTreeError("too short for a device tree", **facts)
    header = Header.from_bytes(dtb)
    if header.magic != MAGIC:
        facts = {"field": "magic", "value": hex(header.magic), "limit": hex(MAGIC)}
        raise DeviceTreeError("no device tree", **facts)
    if header.totalsize > len(dtb):
        facts = {"field": "totalsize", "value": header.totalsize, "limit": len(dtb)}
        raise DeviceTreeError("the device tree is cut short", **facts)
    if header.version < _COMPATIBLE or header.last_comp_version > _VERSION:
        what = f"the device tree cannot be read: it has the format of version {header.version}"
        raise DeviceTreeError(what, field="version", value=header.version, limit=_VERSION)
    return header


def _blocks(dtb: bytes, header: Header) -> tuple[bytes, bytes]:
    """The tree up to the end of its structure block, and its strings block, which kernels read no
    further than the header says (sections 5.4 and 5.5; scripts/dtc/libfdt/fdt.c, fdt_check_header).

    Before version 17 nothing says how large the first is. Raises ValueError.
    """
    start, size = header.off_dt_struct, header.size_dt_struct
    structure = Range(start, size if header.version >= _VERSION else max(len(dtb) - start, 0))
    strings = Range(header.off_dt_strings, header.size_dt_strings)
    for name, block in (("structure", structure), ("strings", strings)):
        if block.end > len(dtb):
            where = f"{block.start:#x} and {block.size:#x} bytes long"
            raise ValueError(f"its {name} block, at {where}, ends behind its {len(dtb):#x} bytes")
    return dtb[: structure.end], dtb[strings.start : strings.end]


def _reservations(dtb: bytes, at: int) -> Iterator[tuple[int, int]]:
    while any(pair := _RESERVATION.unpack_from(dtb, at)):
        yield pair
        at += _RESERVATION.size


def _nodes(dtb: bytes, at: int, strings: bytes) -> Iterator[Node]:
    """Those of the structure block that begins at `at` and ends where `dtb` does (section 5.4).

    Raises struct.error or ValueError for one that is none.
    """
    depth, node = 0, None
    while True:
        (token,) = _WORD.unpack_from(dtb, at)
        at += _WORD.size
        if token == _BEGIN_NODE:
            node = Node(_text(dtb, at), depth)
            yield node
            depth += 1
            at = align_up(at + len(node.name) + 1, 4)
        elif token == _END_NODE and depth:
            depth, node = depth - 1, None  # properties come before nodes
        elif token == _PROPERTY and node:
            size, offset = _PAIR.unpack_from(dtb, at)
            start, name = at + _PAIR.size, _text(strings, offset, _NAME_MAX)
            if name in node.properties or start + size > len(dtb):
                how = "is there twice" if name in node.properties else "ends outside of its block"
                raise ValueError(f"the property {name!r} {how}")
            node.properties[name] = dtb[start : start + size]
            at = align_up(start + size, 4)
        elif token == _END and not depth:
            return
        elif token != _NOP:
            raise ValueError(f"token {token:#x} at {at - _WORD.size:#x}")


def _text(block: bytes, at: int, most: int | None = None) -> bytes:
    """What stands there up to a NUL. Raises ValueError where there is none in the block."""
    end = block.find(b"\0", at, None if most is None else at + most)
    if end < 0:
        raise ValueError(f"a name, at {at:#x} of its block, does not end in it")
    return block[at:end]


def _shown(value: bytes) -> str:
    if _TEXTS.fullmatch(value):
        return ", ".join(f'"{text.decode()}"' for text in value[:-1].split(b"\0"))
    if len(value) % 4:
        return value.hex(" ")
    return " ".join(f"{word:#x}" for (word,) in _WORD.iter_unpack(value))


def _padded(data: bytes) -> bytes:
    return data.ljust(align_up(len(data), 4), b"\0")
