"""The boot protocol of arm64 Linux: MMU off, x0 -> device tree, x1 to x3 zero.

Source: Documentation/arch/arm64/booting.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from bootproof.loader.address import Range, align_down, align_up
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.device_tree import DTB_MAX, chosen
from bootproof.loader.layout import LayoutError, Region, Wanted, check_inside, place
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import (
    BootRequest,
    Handover,
    ProtocolError,
    check_cmdline,
    entry_point,
    region,
)
from bootproof.loader.result import KernelLoaderResult

NAME: Final = "arm64"
ARCH: Final = "aarch64"

COMMAND_LINE_SIZE: Final = 2048  # include/uapi/asm/setup.h, the NUL included
_GIB: Final = 1 << 30
_INITRD_REACH: Final = 32 * _GIB


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
        wanted.append(Wanted("dtb", size, 8, within=DTB_MAX))
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
    return chosen(dtb, cmdline=request.cmdline, initrd=initrd, label=request.label)


def initrd_window(footprint: Range) -> Range:
    """Where an initrd may lie: 1 GiB-aligned, 32 GiB long, the kernel included (section 2)."""
    return Range(align_down(footprint.start, _GIB), _INITRD_REACH)


def initrd_window_below(footprint: Range) -> Range:
    """Where else it may lie: below the kernel, in a window that begins with its own GiB."""
    lowest = max(align_up(footprint.end - _INITRD_REACH, _GIB), 0)
    return Range.between(min(lowest, footprint.start), footprint.start)
