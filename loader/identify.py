"""Which format a file is, from its bytes alone.

Owns: the order in which formats are tried. Must not know: how any format is loaded or unpacked,
nor file names and extensions.

Spec: ELF (gABI, "ELF Header"); Linux x86 boot protocol (Documentation/arch/x86/boot.rst);
arm64 and riscv64 Image headers (Documentation/arch/arm64/booting.rst,
arch/riscv/boot-image-header.rst); EFI zboot (zboot-header.S); unified kernel images
(the UAPI group's UKI specification).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal

from bootproof.dataclass import dataclass
from bootproof.loader.elfheader import EI_CLASS, EI_DATA, ELF_MACHINES, ELF_MAGIC, ELFCLASS64
from bootproof.loader.formats import Format as Format  # a part of the answer
from bootproof.loader.image import ImageLike, open_image
from bootproof.loader.imageheader import MACHINES, ImageHeader
from bootproof.loader.packing import Packing, sniff
from bootproof.loader.pecoff import PeFile
from bootproof.loader.setupheader import PROTOCOL_2_08, SECTOR, machine, payload_start, setup_header
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.zboot import PACKINGS, ZbootHeader, is_zboot


@dataclass(frozen=True, slots=True)
class Identity:
    """What the first look at a file tells."""

    format: Format
    # "x86_64", "i386", "aarch64", "riscv64", or another name that no loader takes; None when the
    # bytes do not say (a bzImage before protocol 2.12). For a later bzImage it is what the header
    # promises: "x86_64" when there is a 64-bit entry point.
    arch: str | None = None
    # The compression of the payload.
    packing: Packing | None = None
    # The kernel release that a bzImage's header points to.
    release: str | None = None
    # Of a file that is no kernel but can be named: what it is, and what to do with it.
    remark: str | None = None
    advice: str | None = None


# lz4 has two formats; a file in either is called the same.
_COMPRESSED = {packing: Format(packing.partition("-")[0]) for packing in Packing}

_ELF32_MACHINES: Final[Mapping[str | None, str]] = {
    "riscv64": "riscv32"
}  # e_machine is that of both
_ELFDATA2MSB = 2

# PE Format, "Machine types".
_PE_MACHINES = {0x14C: "i386", 0x1C2: "arm", 0x1C4: "arm", 0x5032: "riscv32"}
_PE_MACHINES |= {0x5064: "riscv64", 0x6264: "loongarch64", 0x8664: "x86_64", 0xAA64: "aarch64"}

_RELEASE = re.compile(rb"[!-~]{1,127}(?=[ \0])")
_VERSION = re.compile(rb"[ -~]{1,127}(?=\0)")


def identify(image: ImageLike) -> Identity:
    """What `image` is. A file that fits nothing has `Format.UNKNOWN`; that is no error.

    Formats recognised by a structure of the kernel's own come before those recognised by the
    first bytes of any compressed file. Raises the `Image` errors for a file that cannot be
    opened, and nothing for its contents.
    """
    with open_image(image) as source:
        return identify_bytes(source.data)


def identify_bytes(data: memoryview) -> Identity:
    """`identify` for bytes at hand."""
    for recognise in (_elf, _zboot, _bzimage, _image, _compressed, _pe):
        identity = recognise(data)
        if identity is not None:
            return identity
    from bootproof.loader import otherfiles  # not for what is a kernel

    other = otherfiles.recognise(data)
    if other is None:
        return Identity(Format.UNKNOWN)
    return Identity(Format.UNKNOWN, remark=other.what, advice=other.advice)


def _elf(data: memoryview) -> Identity | None:
    if bytes(data[:4]) != ELF_MAGIC:
        return None
    if len(data) < 20:
        return Identity(Format.ELF)
    order: Literal["big", "little"] = "big" if data[EI_DATA] == _ELFDATA2MSB else "little"
    arch = ELF_MACHINES.get(int.from_bytes(data[18:20], order))
    if data[EI_CLASS] != ELFCLASS64:
        arch = _ELF32_MACHINES.get(arch) or arch
    return Identity(Format.ELF, arch)


def _zboot(data: memoryview) -> Identity | None:
    if not is_zboot(data):
        return None
    header = ZbootHeader.from_bytes(data)
    named = PACKINGS.get(header.compression_name, ())
    found = sniff(data, header.payload_offset)
    return Identity(Format.ZBOOT, _pe_arch(data), found if found in named else None)


def _bzimage(data: memoryview) -> Identity | None:
    header = setup_header(data)
    if header is None:
        return None
    packing = None
    if header.version >= PROTOCOL_2_08 and header.payload_length:
        packing = sniff(data, payload_start(header))
    return Identity(Format.BZIMAGE, machine(header), packing, bzimage_release(data, header))


def bzimage_release(data: memoryview, header: SetupHeader) -> str | None:
    """The first word of the version string of a bzImage: "6.1.0-40-cloud-amd64"."""
    return _version(data, header, _RELEASE)


def version_string(data: memoryview, header: SetupHeader) -> str | None:
    """The version string of a bzImage: who it says it is."""
    return _version(data, header, _VERSION)


def _version(data: memoryview, header: SetupHeader, pattern: re.Pattern[bytes]) -> str | None:
    # boot.rst: kernel_version is the string's file offset less 0x200, if not 0.
    if not header.kernel_version:
        return None
    found = pattern.match(data, header.kernel_version + SECTOR)
    return found[0].decode("ascii") if found else None


def _image(data: memoryview) -> Identity | None:
    if len(data) < ImageHeader.SIZE:
        return None
    arch = MACHINES.get(ImageHeader.from_bytes(data).magic)
    return Identity(Format.IMAGE, arch) if arch else None


def _compressed(data: memoryview) -> Identity | None:
    packing = sniff(data)
    return Identity(_COMPRESSED[packing], packing=packing) if packing else None


def _pe(data: memoryview) -> Identity | None:
    pe = PeFile.parse(data)
    if pe is None:
        return None
    has_kernel = any(section.name == ".linux" for section in pe.sections(data))
    return Identity(Format.UKI, _PE_MACHINES.get(pe.machine)) if has_kernel else None


def _pe_arch(data: memoryview) -> str | None:
    pe = PeFile.parse(data)
    return _PE_MACHINES.get(pe.machine) if pe else None
