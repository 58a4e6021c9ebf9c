"""Kernel images into guest memory: bytes in, bytes out; nothing here starts a process.

    with GuestMemory([(0, parse_size("512M"))]) as memory:
        kernel = Elf().load(memory, "vmlinux", kernel_offset=parse_size("16M"))
        load_cmdline(memory, 0x20000, Cmdline.try_from("console=ttyS0", 2048))

The semantics are those of rust-vmm's linux-loader 0.14; docs/differences.md lists where and why
they are not. Every refusal is a LoaderError. Importing this package costs little: what few need
(identify, unpack, inspect, protocols, assemble) are modules of their own, and `configurators` is
imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from bootproof.loader.address import Range, format_size, parse_size
from bootproof.loader.bzimage import BzImage
from bootproof.loader.cmdline import Cmdline, load_cmdline
from bootproof.loader.elf import Elf
from bootproof.loader.errors import (
    Bzimage,
    CommandLineCopy,
    CommandLineOverflow,
    Fdt,
    GuestMemoryError,
    Image,
    InvalidAddress,
    InvalidCommandLine,
    InvalidKernelStartAddress,
    Linux,
    LoaderError,
    MemoryOverflow,
    MissingStartAddress,
    Overflow,
    Pvh,
)
from bootproof.loader.image import ImageSource, open_image
from bootproof.loader.memory import Bank, GuestMemory
from bootproof.loader.pe import Pe, load_dtb
from bootproof.loader.result import (
    Finding,
    KernelLoaderResult,
    PvhBootCapability,
    PvhRelocation,
    PvhState,
)
from bootproof.loader.structures import SetupHeader

if TYPE_CHECKING:
    from bootproof.loader import configurators
    from bootproof.loader.configurators import BootParams

__all__ = [
    "Bank",
    "BootParams",
    "BzImage",
    "Bzimage",
    "Cmdline",
    "CommandLineCopy",
    "CommandLineOverflow",
    "Elf",
    "Fdt",
    "Finding",
    "GuestMemory",
    "GuestMemoryError",
    "Image",
    "ImageSource",
    "InvalidAddress",
    "InvalidCommandLine",
    "InvalidKernelStartAddress",
    "KernelLoaderResult",
    "Linux",
    "LoaderError",
    "MemoryOverflow",
    "MissingStartAddress",
    "Overflow",
    "Pe",
    "Pvh",
    "PvhBootCapability",
    "PvhRelocation",
    "PvhState",
    "Range",
    "SetupHeader",
    "configurators",
    "format_size",
    "load_cmdline",
    "load_dtb",
    "open_image",
    "parse_size",
]


def __getattr__(name: str) -> object:
    if name not in ("configurators", "BootParams"):
        raise AttributeError(f"module 'loader' has no attribute {name!r}")
    package = importlib.import_module(f"{__name__}.configurators")
    return package if name == "configurators" else package.BootParams
