"""The 32-bit boot protocol of x86 Linux: paging off, flat segments, ESI -> zero page.

Source: Documentation/arch/x86/boot.rst, section "32-bit Boot Protocol".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader.address import Range
from bootproof.loader.arch.x86_64 import ATTR_CODE32, Segment, X86Registers
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, Handover, bootparams, entry_point
from bootproof.loader.result import KernelLoaderResult

NAME: Final = "linux32"
ARCH: Final = "x86_64"


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    entry_point(kernel, NAME)
    return bootparams.plan(ram, kernel, request, [bootparams.zero_page_wanted()])


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure. EBP, EDI and EBX are zero, as the protocol demands."""
    regions = plan([bank.range for bank in memory.banks], kernel, request)
    zero_page = bootparams.write(memory, regions, kernel, request)
    code, data = Segment(bootparams.BOOT_CS, attributes=ATTR_CODE32), Segment(bootparams.BOOT_DS)
    flat = X86Registers.with_segments(
        entry_point(kernel, NAME), code, data, bootparams.write_gdt(memory, regions, [code, data])
    )
    registers = replace(flat, rsi=zero_page)
    return Handover(registers, tuple(regions))
