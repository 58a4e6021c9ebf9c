"""Entering a relocatable PVH kernel at an offset, which linux-loader never does.

A kernel with a PHYS32_RELOC note says where it may be put. Then, and only when the caller asks for
it, the PVH entry is offered at an offset too; without that the capability stays *ignored*.

Source: Xen's public/elfnote.h (XEN_ELFNOTE_PHYS32_RELOC) and its dom0 builder, which applies the
limits to the lowest and the last address of the loaded image.
"""

from __future__ import annotations

from dataclasses import replace

from bootproof.loader.address import Range, checked_add
from bootproof.loader.errors import Facts, LoaderError, MemoryOverflow
from bootproof.loader.image import ImageSource
from bootproof.loader.protocols.table import PVH
from bootproof.loader.result import KernelLoaderResult, PvhBootCapability, PvhRelocation, PvhState
from bootproof.loader.vmlinux import pvh_capability


class RelocationError(LoaderError):
    """A PVH entry at an offset that the kernel does not offer there."""

    code = "Pvh::NotRelocatable"


def relocated(
    kernel: KernelLoaderResult, source: ImageSource, offset: int, *, unsafe: bool = False
) -> KernelLoaderResult:
    """`kernel`, which was loaded at the kernel offset `offset`, with its PVH entry there.

    `unsafe` offers the entry whether or not the kernel's note allows it. Raises RelocationError
    naming the range that the kernel allows.
    """
    offered = pvh_capability(source)
    if offered.entry is None:
        raise RelocationError("the kernel has no PVH entry note", field="PVH")
    if not unsafe:
        _check(offered.relocation, kernel.footprint, offset)
    entry = checked_add(offered.entry, offset)
    if entry is None:
        raise MemoryOverflow("the PVH entry overflows", value=offset)
    here = PvhBootCapability(PvhState.PRESENT, entry, offered.relocation)
    return replace(kernel, pvh_boot_cap=here, entry_points={**kernel.entry_points, PVH: entry})


def _check(allowed: PvhRelocation | None, footprint: Range, offset: int) -> None:
    at: Facts = {"field": "kernel_offset", "value": offset}
    if allowed is None:
        what = f"the PVH entry cannot be moved by {offset:#x}: the kernel has no relocation note"
        advice = "boot it without an offset, or through linux64"
        raise RelocationError(f"{what} (PHYS32_RELOC, Linux 6.12 and newer)", **at, advice=advice)
    start, last = footprint.start, footprint.end - 1
    if start % allowed.align or start < allowed.min or last > allowed.max:
        what = f"the kernel would be at {footprint}, but its relocation note allows multiples of"
        allows = f"{allowed.align:#x} from {allowed.min:#x}, ending at {allowed.max:#x}"
        raise RelocationError(f"{what} {allows} at the latest", **at, limit=allowed.max)
