"""What a zero page tells of UEFI, where it says that there is one. Pure.

Kernels follow it before they have a memory map: to the system table, and to UEFI's map of the
memory, where their unpacking code looks for a place.

Sources: Documentation/arch/x86/zero-page.rst (efi_info); UEFI Specification 2.10, sections 4.2
(table header), 4.3 (system table), 7.2.3 (memory descriptors); arch/x86/boot/compressed/kaslr.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.boot_parameters import Read
from bootproof.loader.rules import Findings, documents, violation
from bootproof.loader.rules.pieces import Piece
from bootproof.loader.structures.zero_page import EfiInfo, ZeroPage

CODE: Final = "efi"
_SECTION: Final = f"{documents.ZERO_PAGE}, efi_info"
_LOADERS: Final = (b"EL64", b"EL32")
_SYSTEM_TABLE: Final = b"IBI SYST"
_TABLE_HEADER: Final = 24
_DESCRIPTOR: Final = 40


def look(page: ZeroPage) -> EfiInfo | None:
    """What is told; None where the signature says that nothing is."""
    info = EfiInfo.from_bytes(page.efi_info)
    return info if info.efi_loader_signature in _LOADERS else None


def pieces(info: EfiInfo | None) -> Iterator[Piece]:
    """The memory that it leads to."""
    if info is None:
        return
    table = Range(info.efi_systab | info.efi_systab_hi << 32, _TABLE_HEADER)
    descriptors = Range(info.efi_memmap | info.efi_memmap_hi << 32, info.efi_memmap_size)
    yield Piece("EFI system table", table, "efi_systab", _SECTION, CODE)
    yield Piece("EFI memory map", descriptors, "efi_memmap", _SECTION, CODE)


def check(read: Read, info: EfiInfo | None) -> Findings:
    if info is None:
        return
    address = info.efi_systab | info.efi_systab_hi << 32
    head = read(address, _TABLE_HEADER)
    if head is not None and not head.startswith(_SYSTEM_TABLE):
        what = f"efi_systab leads to {address:#x}, where no EFI system table is"
        yield violation(CODE, what, _SECTION, address=address)
    size = info.efi_memdesc_size
    if size < _DESCRIPTOR:
        what = f"efi_memdesc_size is {size}, but a descriptor has {_DESCRIPTOR} bytes or more"
        yield violation(CODE, what, _SECTION, value=size, limit=_DESCRIPTOR)
