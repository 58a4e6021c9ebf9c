"""The 32-bit boot protocol of x86 Linux: paging off, flat segments, ESI -> zero page.

Source: Documentation/arch/x86/boot.rst, section "32-bit Boot Protocol".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bootproof.loader.address import U32_MAX, Range
from bootproof.loader.arch.x86_64 import ATTR_CODE32, X86_64, X86Registers
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, entry_point, x86, zero_page
from bootproof.loader.protocols.protocol import BootProtocol, Handover
from bootproof.loader.result import KernelLoaderResult

NAME: Final = "linux32"


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    _entry(kernel)
    return x86.plan(ram, kernel, request, [zero_page.WANTED])


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure. EBP, EDI and EBX are zero, as the protocol demands."""
    regions = plan([bank.range for bank in memory.banks], kernel, request)
    address = zero_page.write(memory, regions, kernel, request)
    registers = state(_entry(kernel), address)
    return Handover(zero_page.with_gdt(memory, regions, registers), tuple(regions))


def state(entry: int, address: int) -> X86Registers:
    """See BootProtocol.state."""
    return zero_page.state(entry, address, ATTR_CODE32)


def _entry(kernel: KernelLoaderResult) -> int:
    return x86.below_4_gib(NAME, entry_point(kernel, NAME))


PROTOCOL: Final = BootProtocol(
    name=NAME,
    arch=X86_64,
    rank=2,
    plan=plan,
    configure=configure,
    state=state,
    pointer=zero_page.POINTER,
    read=lambda registers, read: zero_page.read(registers.rsi & U32_MAX, read),
    fields=lambda registers, read: zero_page.fields(registers.rsi & U32_MAX, read),
    bootloader_type=zero_page.TYPE_OF_LOADER,
)
