"""Loading an uncompressed arm64 or riscv64 kernel: an Image (a PE file by its first bytes).

Owns checking the Image header, where the file goes, and load_dtb(), which linux-loader keeps in the
same module. Checks come in linux-loader's order, all before the first write. The architecture is
that of the magic. Layouts: Documentation/arch/arm64/booting.rst ("Call the kernel image") and
Documentation/arch/riscv/boot-image-header.rst.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
from collections.abc import Iterator
from typing import Final

from bootproof.loader import errors
from bootproof.loader.address import (
    MIB,
    U64_MAX,
    Range,
    align_down,
    checked_add,
    counted,
    format_size,
)
from bootproof.loader.copying import Copy, copy_all
from bootproof.loader.errors import Facts
from bootproof.loader.image import ImageLike, ImageSource, open_image
from bootproof.loader.imageheader import (
    ARM64_MAGIC,
    BIG_ENDIAN,
    MACHINES,
    RISCV64_MAGIC,
    ImageHeader,
    page_size_of,
)
from bootproof.loader.memory import GuestMemory
from bootproof.loader.result import (
    Finding,
    KernelLoaderResult,
    PvhBootCapability,
    PvhState,
    footprint_beyond_ram,
)

_ENTERED_THROUGH: Final = {ARM64_MAGIC: "arm64", RISCV64_MAGIC: "riscv64"}
_KNOWN: Final = " or ".join(MACHINES.values())

BASE_ALIGNMENT: Final = 2 * MIB
# arm64: kernels that leave image_size 0 (before 3.17) have text_offset 0x80000.
OLD_TEXT_OFFSET: Final = 0x8_0000
# linux-loader's limit, and that of arm64's booting.rst.
DTB_MAX_SIZE: Final = 2 * MIB


class Pe(errors.Pe):
    """The loader of Images. Its refusals are attributes: Pe.InvalidBaseAddrAlignment and so on.

    `arch` restricts it to one architecture, "aarch64" or "riscv64", as a build of linux-loader is;
    without it both are taken, and the result's `machine` tells which it was.
    """

    def __init__(self, arch: str | None = None) -> None:
        if arch is not None and arch not in MACHINES.values():
            raise ValueError(f"an Image is for {_KNOWN}, not for {arch}")
        self.arch = arch

    def load(
        self,
        memory: GuestMemory,
        image: ImageLike,
        *,
        kernel_offset: int | None = None,
        highmem_start: int | None = None,
    ) -> KernelLoaderResult:
        """Loads the whole file of `image`.

        `kernel_offset` is the guest-physical base, a multiple of 2 MiB, to which the header's
        text_offset is added; without it the base is 0. `highmem_start` is ignored. Raises a
        LoaderError (Pe.*, Image.*) and leaves `memory` as it was then.
        """
        with open_image(image, allow_empty=True) as source:
            header = read_image_header(source, self.arch)
            load = _load_address(header, kernel_offset)
            at = ImageHeader.at("text_offset")
            memory.require("the Image", load, source.size, errors.Pe.ReadKernelImage, **at)
            copy_all(memory, source, [Copy(load, 0, source.size)])
            return _result(memory, source, header, load)


def load_dtb(memory: GuestMemory, address: int, dtb: ImageLike) -> None:
    """Puts a device tree blob at guest-physical `address`.

    Raises Pe.DtbTooBig above 2 MiB and Pe.ReadDtbImage when its place is not all RAM; nothing is
    written then. The blob is not looked at (linux-loader: pe::load_dtb).
    """
    with open_image(dtb, "device tree", allow_empty=True) as source:
        if source.size > DTB_MAX_SIZE:
            size, most = format_size(source.size), format_size(DTB_MAX_SIZE)
            facts: Facts = {"field": "file size", "value": source.size, "limit": DTB_MAX_SIZE}
            advice = "trim it to the totalsize of its header"
            what = f"{size} of device tree, but at most {most} are allowed"
            raise errors.Pe.DtbTooBig(what, **facts, advice=advice)
        if not memory.contains(address, source.size):
            shortage, advice = memory.shortage(address, source.size)
            what = f"{format_size(source.size)} at {address:#x} are wanted but {shortage}"
            facts = {"field": "address", "value": address, "limit": memory.last_address}
            raise errors.Pe.ReadDtbImage(what, **facts, advice=advice)
        copy_all(memory, source, [Copy(address, 0, source.size)])


def read_image_header(source: ImageSource, arch: str | None = None) -> ImageHeader:
    """The header of an Image, for `arch` or either architecture.

    Raises Pe.ReadImageHeader and Pe.InvalidImageMagicNumber.
    """
    if source.size < ImageHeader.SIZE:
        there = counted(source.size, "byte")
        what = f"the file has {there} but an Image header needs {ImageHeader.SIZE}"
        facts: Facts = {"field": "file size", "value": source.size, "limit": ImageHeader.SIZE}
        raise errors.Pe.ReadImageHeader(what, **facts, advice="give an uncompressed kernel Image")
    header = ImageHeader.from_bytes(source.data)
    found = MACHINES.get(header.magic)
    if found is None or arch not in (None, found):
        wanted = arch or _KNOWN
        what = f"the magic {header.magic:#x} is that of {found or 'no Image'}, not of {wanted}"
        advice = f"give an uncompressed kernel Image for {wanted}"
        facts = ImageHeader.at("magic") | {"value": header.magic, "advice": advice}
        raise errors.Pe.InvalidImageMagicNumber(what, **facts)
    return header


def text_offset(header: ImageHeader) -> int:
    """Bytes from the 2 MiB-aligned base to the load address."""
    if header.magic == ARM64_MAGIC and header.image_size == 0:
        return OLD_TEXT_OFFSET
    return header.text_offset


def _load_address(header: ImageHeader, kernel_offset: int | None) -> int:
    base = kernel_offset or 0
    if base % BASE_ALIGNMENT:
        what = f"the base {base:#x} is not a multiple of {format_size(BASE_ALIGNMENT)}"
        facts: Facts = {"field": "kernel_offset", "value": base, "limit": BASE_ALIGNMENT}
        advice = f"use {align_down(base, BASE_ALIGNMENT):#x} or a multiple of 2M"
        raise errors.Pe.InvalidBaseAddrAlignment(what, **facts, advice=advice)
    above = text_offset(header)
    load = checked_add(base, above)
    if load is None:
        what = f"the base {base:#x} plus text_offset {above:#x} is not a 64-bit address"
        facts = ImageHeader.at("text_offset") | {"value": above, "limit": U64_MAX - base}
        raise errors.Pe.InvalidImage(what, **facts)
    return load


def _result(
    memory: GuestMemory, source: ImageSource, header: ImageHeader, load: int
) -> KernelLoaderResult:
    footprint = Range(load, max(header.image_size, source.size))
    return KernelLoaderResult(
        kernel_load=load,
        kernel_end=load + source.size,
        setup_header=None,
        pvh_boot_cap=PvhBootCapability(PvhState.IGNORED),
        footprint=footprint,
        entry_points={_ENTERED_THROUGH[header.magic]: load},
        findings=tuple(_findings(memory, source, header, footprint)),
        machine=MACHINES[header.magic],
    )


def _findings(
    memory: GuestMemory, source: ImageSource, header: ImageHeader, footprint: Range
) -> Iterator[Finding]:
    size = header.image_size
    if 0 < size < source.size:
        what = f"image_size {size:#x} is smaller than the file of {source.size:#x} bytes"
        yield Finding("image-size-smaller-than-file", what)
    if size > source.size:
        what = f"the kernel needs {format_size(size - source.size)} of RAM behind its file"
        yield Finding("bss-beyond-image", f"{what}, up to {footprint.end - 1:#x}")
    if not size:
        yield Finding("image-size-unknown", "image_size is 0: the file's size has to do")
    if not memory.contains(footprint.start, footprint.size):
        yield footprint_beyond_ram(footprint)
    if header.flags & BIG_ENDIAN:
        yield Finding("big-endian", "the kernel is big-endian")
    if header.magic == ARM64_MAGIC:
        yield from _page_size_findings(header)


def _page_size_findings(header: ImageHeader) -> Iterator[Finding]:
    pages = page_size_of(header)
    if pages in ("16K", "64K"):
        what = f"the kernel has {pages} pages: a CPU without them hangs without a word"
        yield Finding(f"page-size-{pages.lower()}", what)
