"""The boot protocol of arm64 Linux: MMU off, x0 -> device tree, x1 to x3 zero.

Source: Documentation/arch/arm64/booting.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from bootproof.loader import device_tree
from bootproof.loader.address import GIB, Range, align_down, align_up
from bootproof.loader.arch.aarch64 import AARCH64, Arm64Registers
from bootproof.loader.boot_parameters import BootParameters, Read, decoded
from bootproof.loader.device_tree import DeviceTree, DeviceTreeError
from bootproof.loader.layout import LayoutError, Region, Wanted, check_inside, place
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import (
    BootProtocol,
    BootRequest,
    Handover,
    ProtocolError,
    check_cmdline,
    entry_point,
    region,
)
from bootproof.loader.result import KernelLoaderResult
from bootproof.loader.rules.arm64 import arm64

NAME: Final = "arm64"

COMMAND_LINE_SIZE: Final = 2048  # include/uapi/asm/setup.h, the NUL included
_INITRD_REACH: Final = 32 * GIB


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    entry_point(kernel, NAME)
    if request.dtb is None and not request.unsafe:
        raise ProtocolError("arm64 kernels need a device tree", field="dtb")
    check_cmdline(request.cmdline, COMMAND_LINE_SIZE - 1)
    kernel_region = Region("kernel", kernel.footprint)
    if not request.unsafe:
        check_inside(ram, kernel_region)
    wanted = []
    if request.dtb is not None:
        size = len(_tree(request.dtb, request, Range(0, 1) if request.initrd is not None else None))
        wanted.append(Wanted("dtb", size, 8, within=device_tree.DTB_MAX))
    taken = [kernel_region, *request.reserved]
    regions = [kernel_region, *place(ram, taken, wanted)]
    if request.initrd is None:
        return regions
    taken = [*regions, *request.reserved]
    initrd = Wanted("initrd", len(request.initrd), 4096, initrd_window(kernel.footprint), high=True)
    try:
        return [*regions, *place(ram, taken, [initrd])]
    except LayoutError:
        below = replace(initrd, window=initrd_window_below(kernel.footprint))
        if below.window.size:
            with suppress(LayoutError):
                return [*regions, *place(ram, taken, [below])]
        raise


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure. Without a device tree the kernel is started with x0 = 0."""
    regions = plan([bank.range for bank in memory.banks], kernel, request)
    initrd, tree = region(regions, "initrd"), region(regions, "dtb")
    if initrd is not None and request.initrd is not None:
        memory.write(initrd.start, request.initrd)
    if tree is not None and request.dtb is not None:
        memory.write(tree.start, _tree(request.dtb, request, initrd))
    registers = Arm64Registers(pc=entry_point(kernel, NAME))
    return Handover(registers.with_x(x0=tree.start if tree else 0), tuple(regions))


def _tree(dtb: bytes, request: BootRequest, initrd: Range | None) -> bytes:
    """The machine's device tree for this kernel; its size does not depend on the initrd's place."""
    return device_tree.chosen(dtb, cmdline=request.cmdline, initrd=initrd, label=request.label)


def initrd_window(footprint: Range) -> Range:
    """Where an initrd may lie: 1 GiB-aligned, 32 GiB long, the kernel included (section 2)."""
    return Range(align_down(footprint.start, GIB), _INITRD_REACH)


def initrd_window_below(footprint: Range) -> Range:
    """Where else it may lie: below the kernel, in a window that begins with its own GiB."""
    lowest = max(align_up(footprint.end - _INITRD_REACH, GIB), 0)
    return Range.between(min(lowest, footprint.start), footprint.start)


def _read(registers: Arm64Registers, read: Read) -> BootParameters:
    try:
        _, tree = _told(registers, read)
    except DeviceTreeError:
        return BootParameters()
    start, end = (int.from_bytes(tree.chosen.get(name, b""), "big") for name in device_tree.INITRD)
    return BootParameters(
        cmdline=decoded(tree.chosen.get(b"bootargs")),
        initrd=Range.between(start, end) if end > start else None,
        label=decoded(tree.chosen.get(device_tree.LABEL)),
        cpus=tree.cpus,
    )


def _fields(registers: Arm64Registers, read: Read) -> Iterator[tuple[str, str]]:
    try:
        size, tree = _told(registers, read)
    except DeviceTreeError as error:
        yield "device tree", str(error)
        return
    yield "device tree.totalsize", hex(size)
    yield from tree.as_text()


def _told(registers: Arm64Registers, read: Read) -> tuple[int, DeviceTree]:
    """Size and content of the device tree that x0 points to. Raises DeviceTreeError."""
    address = registers.x[0]
    raw = read(address, device_tree.Header.SIZE)
    size = device_tree.Header.from_bytes(raw).totalsize if raw else 0
    return size, DeviceTree.parse(
        (read(address, size) if size <= device_tree.DTB_MAX else None) or b""
    )


PROTOCOL: Final = BootProtocol(
    name=NAME,
    arch=AARCH64,
    rank=0,
    plan=plan,
    configure=configure,
    rules=arm64,
    read=_read,
    fields=_fields,
)
