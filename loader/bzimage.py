"""Loading a compressed x86 kernel: a bzImage.

Owns checking the setup header, where the protected-mode part goes, and which RAM the kernel uses
while it decompresses itself. Checks come in linux-loader's order, all before the first write.
Filling boot_params and entering the kernel is the business of protocols/. Layout and rules: the
Linux/x86 boot protocol 2.15 (Documentation/arch/x86/boot.rst).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from bootproof.loader import errors
from bootproof.loader.address import Range, align_up, checked_add
from bootproof.loader.copying import Copy, copy_all
from bootproof.loader.image import ImageLike, ImageSource, open_image
from bootproof.loader.memory import GuestMemory
from bootproof.loader.result import (
    Finding,
    KernelLoaderResult,
    PvhBootCapability,
    PvhState,
    footprint_beyond_ram,
)
from bootproof.loader.setupheader import (
    HDRS_MAGIC,
    KASLR_FLAG,
    LOADED_HIGH,
    PROTOCOL_2_00,
    PROTOCOL_2_05,
    PROTOCOL_2_10,
    PROTOCOL_2_12,
    SECTOR,
    SETUP_HEADER_OFFSET,
    XLF_5LEVEL,
    XLF_5LEVEL_ENABLED,
    machine,
    setup_header,
    setup_size,
)
from bootproof.loader.structures.setup_header import SetupHeader

# "64-bit BOOT PROTOCOL": the 64-bit entry is this far above the load address.
ENTRY_64_OFFSET: Final = 0x200


class BzImage(errors.Bzimage):
    """The loader of bzImages. Its refusals are attributes: BzImage.Underflow and so on."""

    def load(
        self,
        memory: GuestMemory,
        image: ImageLike,
        *,
        kernel_offset: int | None = None,
        highmem_start: int | None = None,
    ) -> KernelLoaderResult:
        """Loads the protected-mode part of `image`.

        `kernel_offset` is the guest-physical load address itself; without it code32_start of the
        header is. `highmem_start` is a lower limit for the header's code32_start, also when an
        offset is given. The setup header of the result has code32_start set to the load address,
        cut to 32 bits. Raises a LoaderError (Bzimage.*, InvalidKernelStartAddress, Image.*) and
        leaves `memory` as it was then.
        """
        with open_image(image, allow_empty=True) as source:
            header = read_setup_header(source)
            start = _protected_mode_start(source, header)
            _check_highmem(header, highmem_start)
            load = header.code32_start if kernel_offset is None else kernel_offset
            where = _at("code32_start") if kernel_offset is None else {"field": "kernel_offset"}
            _check_target(memory, load, source.size - start, where)
            copy_all(memory, source, [Copy(load, start, source.size - start)])
            return _result(memory, header, load, source.size - start)


def read_setup_header(source: ImageSource) -> SetupHeader:
    """The setup header of a bzImage; where the file ends early, the rest reads as zeros.

    Raises Bzimage.InvalidBzImage unless it is one of protocol 2.00 or later, loaded high.
    """
    header = setup_header(source.data)
    if header is None:
        magic = source.data[SETUP_HEADER_OFFSET + SetupHeader.OFFSETS["header"] :][:4]
        value = int.from_bytes(magic, "little")
        what = f"header has to be the magic 'HdrS', not {value:#x}"
        raise _invalid(what, "header", value, HDRS_MAGIC)
    version, flags = header.version, header.loadflags
    if version < PROTOCOL_2_00:
        what = f"version is {version:#x}, which is a boot protocol before 2.00"
        raise _invalid(what, "version", version, PROTOCOL_2_00)
    if not flags & LOADED_HIGH:
        what = f"loadflags is {flags:#x}, which lacks LOADED_HIGH: a zImage"
        raise _invalid(what, "loadflags", flags, LOADED_HIGH)
    return header


def run_time_start(header: SetupHeader, load: int) -> int:
    """Where a kernel loaded at `load` decompresses itself to, KASLR aside (head_64.S)."""
    preferred = header.pref_address if header.version >= PROTOCOL_2_10 else 0
    if header.version < PROTOCOL_2_05 or not header.relocatable_kernel:
        return preferred or load
    return max(align_up(load, header.kernel_alignment or 1), preferred)


def _at(field: str) -> errors.Facts:
    return SetupHeader.at(field, SETUP_HEADER_OFFSET)


def _invalid(what: str, field: str, value: int, limit: int) -> errors.LoaderError:
    advice = "give a bzImage (arch/x86/boot/bzImage, or vmlinuz of a distribution)"
    return errors.Bzimage.InvalidBzImage(
        what, **_at(field), value=value, limit=limit, advice=advice
    )


def _protected_mode_start(source: ImageSource, header: SetupHeader) -> int:
    """The file offset of the part that is loaded."""
    start, sectors = setup_size(header), header.setup_sects
    if start > source.size:
        what = f"setup_sects {sectors} puts the kernel at file offset {start:#x}, but the file ends"
        facts = _at("setup_sects") | {"value": sectors, "limit": source.size // SECTOR}
        error = f"{what} at {source.size:#x}"
        raise errors.Bzimage.Underflow(error, **facts, advice=errors.GET_AGAIN)
    return start


def _check_highmem(header: SetupHeader, highmem_start: int | None) -> None:
    start = header.code32_start
    if highmem_start is not None and start < highmem_start:
        what = f"code32_start {start:#x} is below the start of high memory {highmem_start:#x}"
        facts = _at("code32_start") | {"value": start, "limit": highmem_start}
        raise errors.InvalidKernelStartAddress(what, **facts)


def _check_target(memory: GuestMemory, load: int, size: int, where: errors.Facts) -> None:
    kind = errors.Bzimage.ReadBzImageCompressedKernel
    memory.require("the kernel", load, size, kind, **where)
    if checked_add(load, size) is None:
        what = f"the kernel of {size:#x} bytes at {load:#x} goes beyond 64 bits"
        raise errors.MemoryOverflow(what, **where, value=load)


def _result(memory: GuestMemory, header: SetupHeader, load: int, size: int) -> KernelLoaderResult:
    end = load + size
    footprint = _footprint(header, load, end)
    return KernelLoaderResult(
        kernel_load=load,
        kernel_end=end,
        setup_header=replace(header, code32_start=load & 0xFFFF_FFFF),
        pvh_boot_cap=PvhBootCapability(PvhState.IGNORED),
        footprint=footprint,
        entry_points=_entry_points(header, load),
        findings=tuple(_findings(memory, header, footprint)),
        machine=machine(header),
    )


def _footprint(header: SetupHeader, load: int, end: int) -> Range:
    start = run_time_start(header, load)
    need = header.init_size if header.version >= PROTOCOL_2_10 else 0
    if not need:
        return Range.between(load, end)
    return Range.between(min(load, start), max(end, start + need))


def _entry_points(header: SetupHeader, load: int) -> dict[str, int]:
    points = {"linux32": load}
    if machine(header) == "x86_64":
        points["linux64"] = load + ENTRY_64_OFFSET
    return points


def _findings(memory: GuestMemory, header: SetupHeader, footprint: Range) -> Iterator[Finding]:
    if header.version < PROTOCOL_2_10 or not header.init_size:
        what = "the header does not say how much RAM the kernel needs while it decompresses itself"
        yield Finding("init-size-unknown", what)
    elif not memory.contains(footprint.start, footprint.size):
        yield footprint_beyond_ram(footprint)
    if header.version >= PROTOCOL_2_05:
        if not header.relocatable_kernel:
            yield Finding("not-relocatable", "the kernel moves itself to its preferred address")
        elif header.kernel_alignment.bit_count() != 1:
            what = f"kernel_alignment {header.kernel_alignment:#x} is not a power of two"
            yield Finding("odd-kernel-alignment", what)
    if header.loadflags & KASLR_FLAG:
        what = "loadflags has KASLR_FLAG set, which only the kernel itself does"
        yield Finding("kaslr-flag", what)
    if header.version >= PROTOCOL_2_12 and header.xloadflags & XLF_5LEVEL:
        enabled = "on" if header.xloadflags & XLF_5LEVEL_ENABLED else "off"
        yield Finding(
            "five-level-paging", f"the kernel knows 5-level paging; it is {enabled} by default"
        )
