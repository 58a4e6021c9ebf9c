"""The 64-bit boot protocol of x86 Linux: long mode, identity-mapped, RSI -> zero page.

Source: Documentation/arch/x86/boot.rst, section "64-bit Boot Protocol".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from bootproof.loader.address import GIB, Range, align_up
from bootproof.loader.arch import x86_64
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, entry_point, placed, x86, zero_page
from bootproof.loader.protocols.protocol import BootProtocol, Handover
from bootproof.loader.result import KernelLoaderResult

NAME: Final = "linux64"

_LARGE_PAGE: Final = 2 << 20
_PRESENT_WRITE: Final = 0x3
_PAGE_SIZE_BIT: Final = 0x80
_IDENTITY_MINIMUM: Final = 4  # GiB; kernels expect device memory below 4 GiB to be reachable


def plan(ram: Sequence[Range], kernel: KernelLoaderResult, request: BootRequest) -> list[Region]:
    """See BootProtocol.plan."""
    entry_point(kernel, NAME)
    tables = x86.low_wanted("page tables", (2 + _identity_gib(ram)) * 0x1000, 0x1000)
    return x86.plan(ram, kernel, request, [zero_page.WANTED, tables])


def configure(memory: GuestMemory, kernel: KernelLoaderResult, request: BootRequest) -> Handover:
    """See BootProtocol.configure."""
    ram = [bank.range for bank in memory.banks]
    regions = plan(ram, kernel, request)
    address = zero_page.write(memory, regions, kernel, request)
    tables = placed(regions, "page tables").start
    memory.write(tables, identity_map(tables, _identity_gib(ram)))
    registers = replace(state(entry_point(kernel, NAME), address), cr3=tables)
    return Handover(zero_page.with_gdt(memory, regions, registers), tuple(regions))


def state(entry: int, address: int) -> x86_64.X86Registers:
    """See BootProtocol.state."""
    return replace(
        zero_page.state(entry, address, x86_64.ATTR_CODE64),
        cr0=x86_64.CR0_PG | x86_64.CR0_PE | x86_64.CR0_ET,
        cr4=x86_64.CR4_PAE,
        efer=x86_64.EFER_LME | x86_64.EFER_LMA,
    )


def identity_map(address: int, gib: int) -> bytes:
    """Page tables for guest-physical `address` that map the first `gib` GiB to themselves.

    One PML4, one PDPT, then a page directory of 2 MiB pages per GiB (SDM vol. 3A 4.5); at most 512.
    """
    pml4 = struct.pack("<Q", (address + 0x1000) | _PRESENT_WRITE)
    directories = [(address + 0x2000 + 0x1000 * i) | _PRESENT_WRITE for i in range(gib)]
    pdpt = struct.pack(f"<{gib}Q", *directories)
    pages = [i * _LARGE_PAGE | _PRESENT_WRITE | _PAGE_SIZE_BIT for i in range(gib * 512)]
    return (
        pml4.ljust(0x1000, b"\0")
        + pdpt.ljust(0x1000, b"\0")
        + struct.pack(f"<{len(pages)}Q", *pages)
    )


def _identity_gib(ram: Sequence[Range]) -> int:
    end = max(bank.end for bank in ram)
    return min(max(_IDENTITY_MINIMUM, align_up(end, GIB) // GIB), 512)


PROTOCOL: Final = BootProtocol(
    name=NAME,
    arch=x86_64.X86_64,
    rank=1,
    plan=plan,
    configure=configure,
    state=state,
    pointer=zero_page.POINTER,
    read=lambda registers, read: zero_page.read(registers.rsi, read),
    fields=lambda registers, read: zero_page.fields(registers.rsi, read),
    bootloader_type=zero_page.TYPE_OF_LOADER,
)
