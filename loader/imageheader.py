"""The header of an Image, arm64's or riscv64's, by which it is told.

Sources: Documentation/arch/arm64/booting.rst ("Call the kernel image") and
Documentation/arch/riscv/boot-image-header.rst.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import parse_size
from bootproof.loader.declared import U32, U64, Declared

ARM64_MAGIC: Final = 0x644D_5241  # "ARM\x64"
RISCV64_MAGIC: Final = 0x0543_5352  # "RSC\x05"
MACHINES: Final = {ARM64_MAGIC: "aarch64", RISCV64_MAGIC: "riscv64"}

BIG_ENDIAN: Final = 1 << 0  # flags, both architectures
PAGE_SIZE_SHIFT: Final = 1  # flags of arm64, two bits
PAGE_SIZE_MASK: Final = 3
PAGE_SIZES: Final = {1: "4K", 2: "16K", 3: "64K"}


@dataclass(frozen=True, slots=True)
class ImageHeader(Declared):
    """The Image header, at file offset 0. `magic` is what riscv64 calls magic2."""

    code0: U32
    code1: U32
    text_offset: U64
    image_size: U64
    flags: U64
    res2: U64
    res3: U64
    res4: U64
    magic: U32
    res5: U32


def page_bytes(name: str | None) -> int:
    """Bytes of a page by the name of its size; of the smallest where a kernel names none."""
    return parse_size(name or PAGE_SIZES[1])


def page_size(data: bytes | memoryview) -> str | None:
    """The page size that the header of an Image names, like "16K"; None where there is none."""
    if len(data) < ImageHeader.SIZE:
        return None
    header = ImageHeader.from_bytes(data)
    return page_size_of(header) if header.magic == ARM64_MAGIC else None


def page_size_of(header: ImageHeader) -> str | None:
    """The same of an arm64 kernel's header."""
    return PAGE_SIZES.get(header.flags >> PAGE_SIZE_SHIFT & PAGE_SIZE_MASK)
