"""What a loader answers: where the kernel is, how it can be entered, what is worth knowing.

Owns the result types shared by all loaders. `kernel_load`, `kernel_end`, `setup_header` and
`pvh_boot_cap` mean what they mean in linux-loader; `footprint`, `entry_points`, `findings`,
`machine` and the PVH relocation range are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range
from bootproof.loader.formats import PvhState as PvhState

if TYPE_CHECKING:
    from bootproof.loader.structures.setup_header import SetupHeader


@dataclass(frozen=True, slots=True)
class PvhRelocation:
    """Where a PVH kernel may be put (Xen elfnote.h, XEN_ELFNOTE_PHYS32_RELOC).

    `align`: the start must be a multiple of it. `min`: lowest start. `max`: highest address that
    the last byte may have. All guest-physical.
    """

    align: int
    min: int
    max: int


@dataclass(frozen=True, slots=True)
class PvhBootCapability:
    """Whether a kernel can be entered through PVH, and at which guest-physical address.

    IGNORED means that a kernel offset was requested, even 0: the notes were not looked at.
    """

    state: PvhState
    entry: int | None = None
    relocation: PvhRelocation | None = None

    def __str__(self) -> str:
        if self.entry is None:
            return f"PVH entry {self.state.value}"
        return f"PVH entry present at {self.entry:#x}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about an image that a careful engineer wants to know; it refuses nothing."""

    code: str
    sentence: str


def footprint_beyond_ram(footprint: Range) -> Finding:
    """What loaders say of a kernel that fits, but will use memory that is not there."""
    what = f"the kernel will use guest memory {footprint}, which is not all RAM"
    return Finding("footprint-beyond-ram", what)


@dataclass(frozen=True, slots=True)
class KernelLoaderResult:
    """A loaded kernel; all addresses are guest-physical.

    `kernel_load`: the load address; for ELF the entry address (e_entry plus the offset).
    `kernel_end`: the first address after what linux-loader counts as the kernel.
    `setup_header`: of a bzImage, with code32_start set to the load address; else None.
    `footprint`: everything the kernel uses before it has a memory map. Put nothing there.
    `entry_points`: address by protocol: linux64, linux32, pvh, arm64, riscv64.
    `machine`: x86_64, i386, aarch64, riscv64, or None when the image does not say.
    `moved_by`: how far above where it was linked; of an ELF file only.
    `virtual_start`: the virtual address of its first byte, where a loader has chosen that.
    """

    kernel_load: int
    kernel_end: int
    setup_header: SetupHeader | None
    pvh_boot_cap: PvhBootCapability
    footprint: Range
    entry_points: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    machine: str | None = None
    moved_by: int = 0
    virtual_start: int | None = None
