"""The header of an EFI zboot image: a PE application that carries a compressed Image.

Owns: the header's layout (the kernel's drivers/firmware/efi/libstub/zboot-header.S) and the
names it uses for compressions. Must not know: how the payload is decoded.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from typing import Annotated

from bootproof.dataclass import dataclass
from bootproof.loader.declared import U32, Bytes4, Declared
from bootproof.loader.packing import Packing
from bootproof.loader.pecoff import DOS_MAGIC

ZBOOT_MAGIC = b"zimg"

# The COMP_TYPE strings of Makefile.zboot ("xzkern" and "zstd22" are kbuild's command names),
# and the plain names that other builders write.
PACKINGS: dict[str, tuple[Packing, ...]] = {
    "gzip": (Packing.GZIP,),
    "lz4": (Packing.LZ4_LEGACY, Packing.LZ4_FRAME),
    "lzma": (Packing.LZMA,),
    "lzo": (Packing.LZO,),
    "xzkern": (Packing.XZ,),
    "xz": (Packing.XZ,),
    "zstd22": (Packing.ZSTD,),
    "zstd": (Packing.ZSTD,),
}


@dataclass(frozen=True, slots=True)
class ZbootHeader(Declared):
    """The first 64 bytes. `payload_offset` and `payload_size` are in bytes of the file.

    The size word behind every payload but gzip's is not counted in `payload_size`.
    """

    dos_magic: Bytes4
    image_type: Bytes4
    payload_offset: U32
    payload_size: U32
    reserved: Annotated[bytes, "8s"]
    compression: Annotated[bytes, "32s"]
    linux_magic: Bytes4
    pe_header_offset: U32

    @property
    def compression_name(self) -> str:
        """The compression as the header spells it."""
        return self.compression.split(b"\0", 1)[0].decode("latin-1")


_IMAGE_TYPE = ZbootHeader.OFFSETS["image_type"]


def is_zboot(data: memoryview) -> bool:
    """Whether `data` begins like a zboot image and is long enough for its header."""
    return (
        len(data) >= ZbootHeader.SIZE
        and bytes(data[:2]) == DOS_MAGIC
        and bytes(data[_IMAGE_TYPE : _IMAGE_TYPE + 4]) == ZBOOT_MAGIC
    )
