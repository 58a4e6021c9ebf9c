"""Kernel images into guest memory: bytes in, bytes out; nothing here starts a process.

    with GuestMemory([(0, parse_size("512M"))]) as memory:
        kernel = Elf().load(memory, "vmlinux", kernel_offset=parse_size("16M"))
        load_cmdline(memory, 0x20000, Cmdline.try_from("console=ttyS0", 2048))

The semantics are those of rust-vmm's linux-loader 0.14; docs/differences.md lists where and why
they are not. Every refusal is a LoaderError. A name of this package brings its module in when it is
first asked for (PEP 562): whoever imports any module in here imports this one, and may need no
other. What few need (identify, unpack, inspect, protocols, assemble) are modules of their own.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bootproof.loader import configurators as configurators
    from bootproof.loader.address import Range as Range
    from bootproof.loader.address import format_size as format_size
    from bootproof.loader.address import parse_size as parse_size
    from bootproof.loader.bzimage import BzImage as BzImage
    from bootproof.loader.cmdline import Cmdline as Cmdline
    from bootproof.loader.cmdline import load_cmdline as load_cmdline
    from bootproof.loader.configurators import BootParams as BootParams
    from bootproof.loader.conformance import check as check
    from bootproof.loader.elf import Elf as Elf
    from bootproof.loader.errors import Bzimage as Bzimage
    from bootproof.loader.errors import CommandLineCopy as CommandLineCopy
    from bootproof.loader.errors import CommandLineOverflow as CommandLineOverflow
    from bootproof.loader.errors import Fdt as Fdt
    from bootproof.loader.errors import GuestMemoryError as GuestMemoryError
    from bootproof.loader.errors import Image as Image
    from bootproof.loader.errors import InvalidAddress as InvalidAddress
    from bootproof.loader.errors import InvalidCommandLine as InvalidCommandLine
    from bootproof.loader.errors import InvalidKernelStartAddress as InvalidKernelStartAddress
    from bootproof.loader.errors import Linux as Linux
    from bootproof.loader.errors import LoaderError as LoaderError
    from bootproof.loader.errors import MemoryOverflow as MemoryOverflow
    from bootproof.loader.errors import MissingStartAddress as MissingStartAddress
    from bootproof.loader.errors import Overflow as Overflow
    from bootproof.loader.errors import Pvh as Pvh
    from bootproof.loader.image import ImageSource as ImageSource
    from bootproof.loader.image import open_image as open_image
    from bootproof.loader.memory import Bank as Bank
    from bootproof.loader.memory import GuestMemory as GuestMemory
    from bootproof.loader.pe import Pe as Pe
    from bootproof.loader.pe import load_dtb as load_dtb
    from bootproof.loader.result import Finding as Finding
    from bootproof.loader.result import KernelLoaderResult as KernelLoaderResult
    from bootproof.loader.result import PvhBootCapability as PvhBootCapability
    from bootproof.loader.result import PvhRelocation as PvhRelocation
    from bootproof.loader.result import PvhState as PvhState
    from bootproof.loader.structures.setup_header import SetupHeader as SetupHeader

_HOMES: Final[Mapping[str, tuple[str, ...]]] = {
    "address": ("Range", "format_size", "parse_size"),
    "bzimage": ("BzImage",),
    "cmdline": ("Cmdline", "load_cmdline"),
    "configurators": ("BootParams",),
    "conformance": ("check",),
    "elf": ("Elf",),
    "errors": (
        *("Bzimage", "CommandLineCopy", "CommandLineOverflow", "Fdt", "GuestMemoryError", "Image"),
        *("InvalidAddress", "InvalidCommandLine", "InvalidKernelStartAddress", "Linux"),
        *("LoaderError", "MemoryOverflow", "MissingStartAddress", "Overflow", "Pvh"),
    ),
    "image": ("ImageSource", "open_image"),
    "memory": ("Bank", "GuestMemory"),
    "pe": ("Pe", "load_dtb"),
    "result": ("Finding", "KernelLoaderResult", "PvhBootCapability", "PvhRelocation", "PvhState"),
    "structures.setup_header": ("SetupHeader",),
}

if not TYPE_CHECKING:  # where a wrong name is the type checker's to find
    __all__ = ["configurators"]
    __all__ += [name for names in _HOMES.values() for name in names]

    def __getattr__(name: str) -> object:
        home = next((home for home, names in _HOMES.items() if name in (home, *names)), None)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(f"{__name__}.{home}")
        globals()[name] = module if name == home else getattr(module, name)
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
