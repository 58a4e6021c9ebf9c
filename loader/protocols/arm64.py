"""The boot protocol of arm64 Linux: MMU off, x0 -> device tree, x1 to x3 zero.

Source: Documentation/arch/arm64/booting.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader import imageheader
from bootproof.loader.address import GIB, Range, align_down, align_up
from bootproof.loader.arch.aarch64 import AARCH64, PSTATE_DAIF, PSTATE_EL2H, Arm64Registers
from bootproof.loader.boot_parameters import BootParameters, Read
from bootproof.loader.imageheader import ImageHeader
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, by_tree, entry_point, region
from bootproof.loader.protocols.protocol import BootProtocol, Handover
from bootproof.loader.result import KernelLoaderResult

NAME: Final = "arm64"

COMMAND_LINE_SIZE: Final = 2048  # include/uapi/asm/setup.h, the NUL included
_INITRD_REACH: Final = 32 * GIB


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    entry_point(kernel, NAME)
    windows = initrd_window(kernel.footprint), initrd_window_below(kernel.footprint)
    return by_tree.plan(by_tree.Pieces(NAME, COMMAND_LINE_SIZE, windows), ram, kernel, request)


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure. Without a device tree the kernel is started with x0 = 0."""
    regions = plan([bank.range for bank in memory.banks], kernel, request)
    by_tree.write(memory, regions, request)
    tree = region(regions, "dtb")
    registers = state(entry_point(kernel, NAME), tree.start if tree else 0)
    if request.hypervisor:
        registers = replace(registers, pstate=PSTATE_DAIF | PSTATE_EL2H)
    return Handover(registers, tuple(regions))


def state(entry: int, address: int) -> Arm64Registers:
    """See BootProtocol.state."""
    return Arm64Registers(pc=entry).with_x(x0=address)


def initrd_window(footprint: Range) -> Range:
    """Where an initrd may lie: 1 GiB-aligned, 32 GiB long, the kernel included (section 2)."""
    return Range(align_down(footprint.start, GIB), _INITRD_REACH)


def initrd_window_below(footprint: Range) -> Range:
    """Where else it may lie: below the kernel, in a window that begins with its own GiB."""
    lowest = max(align_up(footprint.end - _INITRD_REACH, GIB), 0)
    return Range.between(min(lowest, footprint.start), footprint.start)


def read_back(registers: Arm64Registers, read: Read) -> BootParameters:
    """See BootProtocol.read. The kernel's header says of which pages its RAM is made."""
    head = read(registers.pc, ImageHeader.SIZE) or b""
    page = imageheader.page_bytes(imageheader.page_size(head))
    return by_tree.read_back(registers.x[0], read, page)


PROTOCOL: Final = BootProtocol(
    name=NAME,
    arch=AARCH64,
    rank=0,
    plan=plan,
    configure=configure,
    state=state,
    pointer=by_tree.pointer(0),
    read=read_back,
    fields=lambda registers, read: by_tree.fields(registers.x[0], read),
    tree_register="x0",
    left_open="x([4-9]|[12][0-9]|30)",
)
