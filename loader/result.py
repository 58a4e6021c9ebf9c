"""What a loader answers: where the kernel is, how it can be entered, what is worth knowing.

Owns the result types shared by all loaders. `kernel_load`, `kernel_end`, `setup_header` and
`pvh_boot_cap` mean what they mean in linux-loader; `footprint`, `entry_points`, `findings`,
`machine` and the PVH relocation range are ours. The setup header is that of the Linux/x86 boot
protocol 2.15 (Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self

from bootproof.loader.address import Range
from bootproof.loader.declared import U8, U16, U32, U64, Declared


@dataclass(frozen=True, slots=True)
class SetupHeader(Declared):
    """The 123 bytes at file offset 0x1f1 of a bzImage, field by field, names as in the kernel."""

    setup_sects: U8
    root_flags: U16
    syssize: U32
    ram_size: U16
    vid_mode: U16
    root_dev: U16
    boot_flag: U16
    jump: U16
    header: U32
    version: U16
    realmode_swtch: U32
    start_sys_seg: U16
    kernel_version: U16
    type_of_loader: U8
    loadflags: U8
    setup_move_size: U16
    code32_start: U32
    ramdisk_image: U32
    ramdisk_size: U32
    bootsect_kludge: U32
    heap_end_ptr: U16
    ext_loader_ver: U8
    ext_loader_type: U8
    cmd_line_ptr: U32
    initrd_addr_max: U32
    kernel_alignment: U32
    relocatable_kernel: U8
    min_alignment: U8
    xloadflags: U16
    cmdline_size: U32
    hardware_subarch: U32
    hardware_subarch_data: U64
    payload_offset: U32
    payload_length: U32
    setup_data: U64
    pref_address: U64
    init_size: U32
    handover_offset: U32
    kernel_info_offset: U32

    @property
    def raw(self) -> bytes:
        """The header's bytes, as they lie in the file and in boot_params at 0x1f1."""
        return self.to_bytes()

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)


class PvhState(Enum):
    """What is known of a kernel's PVH entry."""

    PRESENT = "present"
    NOT_PRESENT = "not present"
    IGNORED = "ignored"


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


@dataclass(frozen=True, slots=True)
class KernelLoaderResult:
    """A loaded kernel; all addresses are guest-physical.

    `kernel_load`: the load address; for ELF the entry address (e_entry plus the offset).
    `kernel_end`: the first address after what linux-loader counts as the kernel.
    `setup_header`: of a bzImage, with code32_start set to the load address; else None.
    `footprint`: everything the kernel uses before it has a memory map. Put nothing there.
    `entry_points`: address by protocol: linux64, linux32, pvh, arm64, riscv64.
    `machine`: x86_64, i386, aarch64, riscv64, or None when the image does not say.
    """

    kernel_load: int
    kernel_end: int
    setup_header: SetupHeader | None
    pvh_boot_cap: PvhBootCapability
    footprint: Range
    entry_points: Mapping[str, int]
    findings: tuple[Finding, ...] = ()
    machine: str | None = None
