"""The header of a bzImage. Source: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header",
protocol 2.15).
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from bootproof.dataclass import dataclass
from bootproof.loader.declared import U8, U16, U32, U64, Declared


@dataclass(frozen=True, slots=True)
class SetupHeader(Declared):
    """The 123 bytes at file offset 0x1f1 of a bzImage, field by field, names as in the kernel."""

    setup_sects: U8 = 0
    root_flags: U16 = 0
    syssize: U32 = 0
    ram_size: U16 = 0
    vid_mode: U16 = 0
    root_dev: U16 = 0
    boot_flag: U16 = 0
    jump: U16 = 0
    header: U32 = 0
    version: U16 = 0
    realmode_swtch: U32 = 0
    start_sys_seg: U16 = 0
    kernel_version: U16 = 0
    type_of_loader: U8 = 0
    loadflags: U8 = 0
    setup_move_size: U16 = 0
    code32_start: U32 = 0
    ramdisk_image: U32 = 0
    ramdisk_size: U32 = 0
    bootsect_kludge: U32 = 0
    heap_end_ptr: U16 = 0
    ext_loader_ver: U8 = 0
    ext_loader_type: U8 = 0
    cmd_line_ptr: U32 = 0
    initrd_addr_max: U32 = 0
    kernel_alignment: U32 = 0
    relocatable_kernel: U8 = 0
    min_alignment: U8 = 0
    xloadflags: U16 = 0
    cmdline_size: U32 = 0
    hardware_subarch: U32 = 0
    hardware_subarch_data: U64 = 0
    payload_offset: U32 = 0
    payload_length: U32 = 0
    setup_data: U64 = 0
    pref_address: U64 = 0
    init_size: U32 = 0
    handover_offset: U32 = 0
    kernel_info_offset: U32 = 0

    @property
    def raw(self) -> bytes:
        """The header's bytes, as they lie in the file and in boot_params at 0x1f1."""
        return self.to_bytes()
