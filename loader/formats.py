"""What a file with a kernel may be, and its PVH entry: lists that those share who read no file."""

from enum import Enum, StrEnum


class Format(StrEnum):
    """What a file is; the value is the name shown to people."""

    ELF = "elf"
    BZIMAGE = "bzimage"
    IMAGE = "image"
    ZBOOT = "zboot"
    UKI = "uki"
    GZIP = "gzip"
    XZ = "xz"
    ZSTD = "zstd"
    LZ4 = "lz4"
    LZMA = "lzma"
    BZIP2 = "bzip2"
    LZO = "lzo"
    UNKNOWN = "unknown"

    @property
    def loadable(self) -> bool:
        """Whether one of the loaders takes it as it is."""
        return self in (Format.ELF, Format.BZIMAGE, Format.IMAGE)


class PvhState(Enum):
    """What is known of a kernel's PVH entry."""

    PRESENT = "present"
    NOT_PRESENT = "not present"
    IGNORED = "ignored"
