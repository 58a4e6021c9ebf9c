"""The zero page, and what it leads to. Source: Documentation/arch/x86/zero-page.rst."""

# No deferred annotations here: `Declared` reads the encodings from them.
from typing import Annotated

from bootproof.dataclass import dataclass
from bootproof.loader.address import Range
from bootproof.loader.declared import U8, U32, U64, Declared
from bootproof.loader.structures.setup_header import SetupHeader


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
class SetupIndirect(Declared):
    """struct setup_indirect: where the data of a node of type SETUP_INDIRECT is."""

    type: U32
    reserved: U32
    len: U64
    addr: U64


@dataclass(frozen=True, slots=True)
class EfiInfo(Declared):
    """struct efi_info: each address in two halves."""

    efi_loader_signature: Annotated[bytes, "4s"] = b""
    efi_systab: U32 = 0
    efi_memdesc_size: U32 = 0
    efi_memdesc_version: U32 = 0
    efi_memmap: U32 = 0
    efi_memmap_size: U32 = 0
    efi_systab_hi: U32 = 0
    efi_memmap_hi: U32 = 0


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
