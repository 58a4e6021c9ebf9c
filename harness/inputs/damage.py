"""Boot images spoilt on purpose, for cases whose point is how the guest then fails.

Each damage is what a faulty VMM does: it forgets a piece, or puts it in the wrong place. A damage
writes into the image's RAM and gives the image that goes with it. Starts nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.loader import bootimage
from bootproof.loader.address import KIB, PAGE, Range
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.structures.setup_header import SetupHeader
from bootproof.loader.structures.zero_page import ZeroPage

Damage = Callable[[BootImage, GuestMemory], BootImage]


def inflict(name: str, image: BootImage, directory: Path) -> BootImage:
    """Spoils the boot image in `directory`; gives it as it is now. Raises LoaderError."""
    path = directory / bootimage.RAM
    with GuestMemory.open(path, image.banks, writable=True) as memory:
        damaged = DAMAGES[name](image, memory)
    bootimage.save(damaged, directory)
    return damaged


def _without(name: str, image: BootImage, memory: GuestMemory) -> BootImage:
    """A piece that was forgotten: only zeros are where it should be."""
    piece = _region(image, name)
    memory.fill(piece.start, piece.size)
    return image


def _empty_e820(image: BootImage, memory: GuestMemory) -> BootImage:
    """A zero page whose memory map has no entry."""
    memory.write(_region(image, "boot_params").start + ZeroPage.OFFSETS["e820_entries"], b"\0")
    return image


def _initrd_over_bss(image: BootImage, memory: GuestMemory) -> BootImage:
    """An initrd in the kernel's BSS: what a VMM does that looks at file sizes only."""
    initrd = _region(image, "initrd")
    place = Range(_longest_zeros(memory, _region(image, "kernel")).start, initrd.size)
    memory.write(place.start, memory.read(initrd.start, initrd.size))
    memory.fill(initrd.start, initrd.size)
    header = _region(image, "boot_params").start + ZeroPage.OFFSETS["hdr"]
    field = header + SetupHeader.OFFSETS["ramdisk_image"]
    memory.write(field, place.start.to_bytes(4, "little"))
    return _with_region(image, Region("initrd", place))


def _moved(distance: int, image: BootImage, memory: GuestMemory) -> BootImage:
    """A kernel `distance` bytes above where its format lets it run, entered there."""
    kernel = _region(image, "kernel")
    data = memory.read(kernel.start, kernel.size)
    memory.fill(kernel.start, distance)
    memory.write(kernel.start + distance, data[: kernel.size - distance])
    moved = Region("kernel", Range(kernel.start + distance, kernel.size))
    cpus = (image.cpus[0].entered_at(image.entry + distance), *image.cpus[1:])
    return replace(_with_region(image, moved), cpus=cpus)


DAMAGES: Final[Mapping[str, Damage]] = {
    "no-dtb": functools.partial(_without, "dtb"),
    "no-initrd": functools.partial(_without, "initrd"),
    "empty-e820": _empty_e820,
    "initrd-over-bss": _initrd_over_bss,
    "kernel-8-bytes-up": functools.partial(_moved, 8),
    "kernel-4k-up": functools.partial(_moved, 4 * KIB),
}


def _longest_zeros(memory: GuestMemory, region: Range) -> Range:
    """The longest run of zero pages: in a kernel as it was loaded, that is its BSS."""
    longest, start = Range(region.start, 0), region.start
    for page in range(region.start, region.end, PAGE):
        if any(memory.read(page, min(PAGE, region.end - page))):
            start = page + PAGE
        elif page + PAGE - start > longest.size:
            longest = Range.between(start, page + PAGE)
    return longest


def _region(image: BootImage, name: str) -> Range:
    region = image.region(name)
    if region is None:
        raise ValueError(f"the boot image has no {name} to damage")
    return region


def _with_region(image: BootImage, changed: Region) -> BootImage:
    regions = tuple(changed if r.name == changed.name else r for r in image.regions)
    return replace(image, regions=regions)
