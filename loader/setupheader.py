"""The setup header of a bzImage, by which it is told: where it is, and what its fields mean.

Source: the Linux/x86 boot protocol 2.15 (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

from typing import Final

from bootproof.loader.structures.setup_header import SetupHeader

SETUP_HEADER_OFFSET: Final = 0x1F1
HDRS_MAGIC: Final = 0x5372_6448  # "HdrS"
SECTOR: Final = 512
DEFAULT_SETUP_SECTS: Final = 4  # what setup_sects 0 means, for very old kernels

# Protocol versions in which fields appeared ("The Real-Mode Kernel Header").
PROTOCOL_2_00: Final = 0x200
PROTOCOL_2_05: Final = 0x205  # kernel_alignment, relocatable_kernel
PROTOCOL_2_08: Final = 0x208  # payload_offset, payload_length
PROTOCOL_2_10: Final = 0x20A  # pref_address, init_size
PROTOCOL_2_12: Final = 0x20C  # xloadflags

LOADED_HIGH: Final = 1 << 0  # loadflags
KASLR_FLAG: Final = 1 << 1
XLF_KERNEL_64: Final = 1 << 0  # xloadflags
XLF_5LEVEL: Final = 1 << 5
XLF_5LEVEL_ENABLED: Final = 1 << 6


def setup_header(data: memoryview) -> SetupHeader | None:
    """The setup header of a bzImage, zeros standing in for what a short file lacks; else None."""
    raw = bytes(data[SETUP_HEADER_OFFSET:][: SetupHeader.SIZE])
    header = SetupHeader.from_bytes(raw.ljust(SetupHeader.SIZE, b"\0"))
    return header if header.header == HDRS_MAGIC else None


def setup_size(header: SetupHeader) -> int:
    """Bytes of the real-mode part, boot sector included: where the protected-mode part begins."""
    return ((header.setup_sects or DEFAULT_SETUP_SECTS) + 1) * SECTOR


def payload_start(header: SetupHeader) -> int:
    """File offset of the payload: payload_offset counts from the protected-mode code."""
    return setup_size(header) + header.payload_offset


def machine(header: SetupHeader) -> str | None:
    """The architecture that the header promises; None before protocol 2.12, which does not say."""
    if header.version < PROTOCOL_2_12:
        return None
    return "x86_64" if header.xloadflags & XLF_KERNEL_64 else "i386"
