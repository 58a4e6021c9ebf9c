"""What boot protocols hand over in memory, as binary layouts: each structure is declared here once.

Who fills a structure, who checks it and who reads it back share these declarations, and nothing
else. Knows no meaning of a field.

Sources: Documentation/arch/x86/boot.rst ("The Real-Mode Kernel Header", protocol 2.15) and
zero-page.rst; Xen's public/arch-x86/hvm/start_info.h.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from dataclasses import dataclass
from typing import Annotated, Final

from bootproof.loader.address import Range
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


@dataclass(frozen=True, slots=True)
class E820Entry(Declared):
    """struct boot_e820_entry; `addr` is guest-physical."""

    addr: U64
    size: U64
    type: U32

    @property
    def range(self) -> Range:
        return Range(self.addr, self.size)


@dataclass(frozen=True, slots=True)
class SetupData(Declared):
    """struct setup_data: the head of a node of the list; `len` bytes follow it."""

    next: U64
    type: U32
    len: U32


@dataclass(frozen=True, slots=True)
class ZeroPage(Declared):
    """struct boot_params: `hdr` is a SetupHeader, `e820_table` has room for 128 entries."""

    screen_info: Annotated[bytes, "64s"] = b""
    apm_bios_info: Annotated[bytes, "20s"] = b""
    _unused_054: Annotated[bytes, "4s"] = b""
    tboot_addr: U64 = 0
    ist_info: Annotated[bytes, "16s"] = b""
    acpi_rsdp_addr: U64 = 0
    _unused_078: Annotated[bytes, "8s"] = b""
    hd0_info: Annotated[bytes, "16s"] = b""
    hd1_info: Annotated[bytes, "16s"] = b""
    sys_desc_table: Annotated[bytes, "16s"] = b""
    olpc_ofw_header: Annotated[bytes, "16s"] = b""
    ext_ramdisk_image: U32 = 0
    ext_ramdisk_size: U32 = 0
    ext_cmd_line_ptr: U32 = 0
    _unused_0cc: Annotated[bytes, "112s"] = b""
    cc_blob_address: U32 = 0
    edid_info: Annotated[bytes, "128s"] = b""
    efi_info: Annotated[bytes, "32s"] = b""
    alt_mem_k: U32 = 0
    scratch: U32 = 0
    e820_entries: U8 = 0
    eddbuf_entries: U8 = 0
    edd_mbr_sig_buf_entries: U8 = 0
    kbd_status: U8 = 0
    secure_boot: U8 = 0
    _unused_1ed: Annotated[bytes, "2s"] = b""
    sentinel: U8 = 0
    _unused_1f0: Annotated[bytes, "1s"] = b""
    hdr: Annotated[bytes, "123s"] = b""
    _unused_26c: Annotated[bytes, "36s"] = b""
    edd_mbr_sig_buffer: Annotated[bytes, "64s"] = b""
    e820_table: Annotated[bytes, "2560s"] = b""
    _unused_cd0: Annotated[bytes, "48s"] = b""
    eddbuf: Annotated[bytes, "492s"] = b""
    _unused_eec: Annotated[bytes, "276s"] = b""

    @property
    def setup_header(self) -> SetupHeader:
        return SetupHeader.from_bytes(self.hdr)

    @property
    def memory_map(self) -> tuple[E820Entry, ...]:
        """The entries that are said to be there, as far as there is room for them."""
        return E820Entry.all_from(self.e820_table)[: self.e820_entries]


START_INFO_MAGIC: Final = 0x336E_C578  # "xEn3", bit 7 of E set


@dataclass(frozen=True, slots=True)
class StartInfo(Declared):
    """struct hvm_start_info, version 1."""

    magic: U32 = START_INFO_MAGIC
    version: U32 = 1
    flags: U32 = 0
    nr_modules: U32 = 0
    modlist_paddr: U64 = 0
    cmdline_paddr: U64 = 0
    rsdp_paddr: U64 = 0
    memmap_paddr: U64 = 0
    memmap_entries: U32 = 0
    reserved: U32 = 0


@dataclass(frozen=True, slots=True)
class MemmapEntry(Declared):
    """struct hvm_memmap_table_entry; `type` as in an E820 map."""

    addr: U64
    size: U64
    type: U32
    reserved: U32 = 0


@dataclass(frozen=True, slots=True)
class ModlistEntry(Declared):
    """struct hvm_modlist_entry."""

    paddr: U64
    size: U64
    cmdline_paddr: U64 = 0
    reserved: U64 = 0
