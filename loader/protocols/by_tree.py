"""What the protocols share that tell a kernel everything by a device tree.

Owns where tree and initrd lie beside the kernel, what is written there, and how it is read back.
Which register leads to the tree, and where an initrd may lie, is the protocol's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader import device_tree
from bootproof.loader.address import (
    KIB,
    PAGE,
    U64_MAX,
    Range,
    align_down,
    align_up,
    common,
    joined,
    without,
)
from bootproof.loader.boot_parameters import BootParameters, Read, decoded
from bootproof.loader.device_tree import DeviceTree, DeviceTreeError
from bootproof.loader.layout import LayoutError, Region, Wanted, check_inside, place
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, ProtocolError, check_cmdline, region
from bootproof.loader.protocols.protocol import Pointer
from bootproof.loader.result import KernelLoaderResult

_LARGEST_PAGE: Final = 64 * KIB  # of any kernel
# A register of 0 leads to no device tree, even where there is RAM.
_NOT_NULL: Final = Range.between(0x1000, U64_MAX)


def pointer(index: int) -> Pointer:
    """General register number `index` leads to the device tree."""
    magic = device_tree.MAGIC.to_bytes(4, "big")
    return Pointer("x", "device tree", magic, alignment=8, index=index)


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a protocol asks of the pieces beside its kernel."""

    protocol: str
    # Of the command line, the NUL included.
    command_line_size: int
    # Where an initrd may lie, best first.
    initrd_windows: tuple[Range, ...]


def plan(
    pieces: Pieces, ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest
) -> list[Region]:
    """Places device tree and initrd beside the kernel. Raises LayoutError and ProtocolError."""
    if request.dtb is None and not request.unsafe:
        raise ProtocolError(f"{pieces.protocol} kernels need a device tree", field="dtb")
    check_cmdline(request.cmdline, pieces.command_line_size - 1)
    kernel_region = Region("kernel", kernel.footprint)
    if not request.unsafe:
        check_inside(ram, kernel_region)
    _check_beside_firmware(kernel_region, request)
    wanted = []
    if request.dtb is not None:
        size = len(_tree(request.dtb, request, Range(0, 1) if request.initrd is not None else None))
        # A kernel that does not tell its size needs the RAM behind it, who knows how much.
        high = kernel.footprint.end <= kernel.kernel_end
        wanted.append(Wanted("dtb", size, 8, _NOT_NULL, within=device_tree.DTB_MAX, high=high))
    taken = [kernel_region, *request.reserved]
    regions = [kernel_region, *place(ram, taken, wanted)]
    if request.initrd is None:
        return regions
    return [
        *regions,
        _place_initrd(len(request.initrd), pieces, ram, [*regions, *request.reserved]),
    ]


def withheld(dtb: bytes) -> tuple[Region, ...]:
    """What a tree does not leave to the kernel, whatever its pages are: RAM that it reserves, and
    all that it does not tell of; nothing of a tree that tells of no RAM.
    """
    tree = DeviceTree.parse(dtb)
    reserved = [Range(*pair) for pair in tree.reservations]
    free = [part for area in system_ram(tree, _LARGEST_PAGE) for part in without(area, reserved)]
    areas = without(Range(0, U64_MAX), free) if free else ()
    return tuple(Region("what the device tree withholds", area) for area in areas)


def _check_beside_firmware(kernel: Region, request: BootRequest) -> None:
    for firmware in request.firmware:
        if kernel.range.overlaps(firmware.range):
            what = f"the kernel needs guest RAM {kernel.range}, where {firmware} stays"
            advice = f"load it behind that, at {firmware.range.end:#x} or above (--offset)"
            raise LayoutError(what, field="kernel", advice=advice)


def _place_initrd(
    size: int, pieces: Pieces, ram: Sequence[Range], taken: Sequence[Region]
) -> Region:
    """Raises the LayoutError of the best window when there is room in none."""
    first, *others = (
        Wanted("initrd", size, 4096, window, high=True)
        for window in pieces.initrd_windows
        if window.size
    )
    try:
        return place(ram, taken, [first])[0]
    except LayoutError:
        for other in others:
            with suppress(LayoutError):
                return place(ram, taken, [other])[0]
        raise


def write(memory: GuestMemory, regions: Sequence[Region], request: BootRequest) -> None:
    """Writes what was planned."""
    initrd, tree = region(regions, "initrd"), region(regions, "dtb")
    if initrd is not None and request.initrd is not None:
        memory.write(initrd.start, request.initrd)
    if tree is not None and request.dtb is not None:
        memory.write(tree.start, _tree(request.dtb, request, initrd))


def _tree(dtb: bytes, request: BootRequest, initrd: Range | None) -> bytes:
    """The machine's device tree for this kernel; its size does not depend on the initrd's place."""
    firmware = [item.range for item in request.firmware]
    return device_tree.for_kernel(
        dtb, cmdline=request.cmdline, initrd=initrd, label=request.label, firmware=firmware
    )


def read_back(address: int, read: Read, page: int = PAGE) -> BootParameters:
    """What the device tree at guest-physical `address` tells a kernel with pages of `page` bytes;
    nothing where there is none.
    """
    try:
        _, tree = _told(address, read)
    except DeviceTreeError:
        return BootParameters()
    bootargs = tree.chosen.get(b"bootargs")
    start, end = (int.from_bytes(tree.chosen.get(name, b""), "big") for name in device_tree.INITRD)
    return BootParameters(
        cmdline=None if bootargs is None else decoded(bootargs.partition(b"\0")[0]),
        initrd=Range.between(start, end) if end > start else None,
        label=decoded(tree.chosen.get(device_tree.LABEL)),
        ram=tree.memory,
        system_ram=tuple(system_ram(tree, page)) or None,
        unplaced=unplaced(tree, page),
        reserved_twice=reserved_twice(tree, page),
        cpus=tuple(cpu.number for cpu in tree.cpus),
        spinning=tree.spinning,
        firmware_call=_firmware_call(tree),
        interrupts=tree.interrupts,
    )


def _firmware_call(tree: DeviceTree) -> str:
    node = tree.psci
    methods = node.texts(b"method") if node and node.is_enabled else []
    return (decoded(methods[0]) or "") if methods else ""


def unplaced(tree: DeviceTree, page: int) -> int:
    """Bytes of RAM, whole pages, that kernels reserve with no-map where they like."""
    return sum(align_up(size, page) for size in tree.unplaced)


def reserved_twice(tree: DeviceTree, page: int) -> tuple[Range, ...]:
    """RAM, whole pages, that kernels map or not, by which reservation they see first."""
    return tuple(_pages_around(tree.reserved_twice, page))


def system_ram(tree: DeviceTree, page: int) -> Iterator[Range]:
    """RAM as kernels with pages of `page` bytes take it: whole pages of each range by itself, of
    which nothing is reserved with no-map (drivers/of/fdt.c, early_init_dt_add_memory_arch).
    """
    kept = list(_pages_around(tree.not_mapped, page))
    told = joined(_whole(tree.memory, page))
    if usable := tree.usable:
        told = joined([*common(told, usable[:1]), *usable[1:]])
    for area in _whole(told, page):
        yield from without(area, kept)


def _pages_around(areas: Iterable[Range], page: int) -> Iterator[Range]:
    for area in areas:
        yield Range.between(align_down(area.start, page), align_up(area.end, page))


def _whole(areas: Iterable[Range], page: int) -> Iterator[Range]:
    for area in areas:
        start, end = align_up(area.start, page), align_down(area.end, page)
        if start < end:
            yield Range.between(start, end)


def fields(address: int, read: Read) -> Iterator[tuple[str, str]]:
    """All of the device tree at guest-physical `address`, as names and values."""
    try:
        size, tree = _told(address, read)
    except DeviceTreeError as error:
        yield "device tree", str(error)
        return
    yield "device tree.totalsize", hex(size)
    yield from tree.as_text()


def _told(address: int, read: Read) -> tuple[int, DeviceTree]:
    """Size and content of the device tree at `address`. Raises DeviceTreeError."""
    raw = read(address, device_tree.Header.SIZE)
    size = device_tree.Header.from_bytes(raw).totalsize if raw else 0
    return size, DeviceTree.parse(
        (read(address, size) if size <= device_tree.DTB_MAX else None) or b""
    )
