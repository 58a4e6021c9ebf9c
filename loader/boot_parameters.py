"""What a kernel is given beside its image, read back out of guest memory at its first instruction.

The way round from what protocols write, also for the hand-over of another loader: whoever reads
follows the registers and trusts nothing. Owns the values that come out and the steps that every
protocol's reader takes; which register leads to which structure is the protocol's. All addresses
are guest-physical.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from bootproof.dataclass import dataclass
from bootproof.loader.address import PAGE, Range
from bootproof.loader.arch import Memory as Memory
from bootproof.loader.arch import Read as Read
from bootproof.loader.declared import Declared

if TYPE_CHECKING:
    from bootproof.loader.structures.zero_page import E820Entry

_TEXT_LIMIT: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class BootParameters:
    """What a kernel is told; what is not there, or cannot be read, is None."""

    # As it lies in memory, without the NUL.
    cmdline: str | None = None
    initrd: Range | None = None
    # As the loader tells it, None where the kernel reads it elsewhere; and what kernels make of it.
    memory_map: tuple[E820Entry, ...] | None = None
    # The RAM that any kernel is told of, whatever it may use of it.
    ram: tuple[Range, ...] | None = None
    system_ram: tuple[Range, ...] | None = None
    # Bytes of it that kernels keep from themselves, wherever they like.
    unplaced: int = 0
    # What of the RAM kernels keep from themselves or not: it is reserved in two ways.
    reserved_twice: tuple[Range, ...] = ()
    # How /proc/sys/kernel/bootloader_type must read.
    bootloader_type: int | None = None
    # The kernel decompresses itself, and may choose another place.
    unpacks: bool = False
    # The request, in a device tree of ours.
    label: str | None = None
    # The CPUs that ACPI tables or a device tree tell of, by the hardware's own numbers.
    cpus: tuple[int, ...] = ()
    # That of the CPU which enters the kernel, where a register has it.
    boot_cpu: int | None = None
    # Those of them that wait in a loop (spin-table), and how firmware is called: "hvc", "smc".
    spinning: tuple[int, ...] = ()
    firmware_call: str = ""
    # Where a device tree has the interrupt controller: guest-physical, its first parts.
    interrupts: tuple[int, ...] = ()


def reader(memory: Memory) -> Read:
    """Reads guest-physical `memory`, and gives None outside of it."""
    return lambda address, size: (
        memory.read(address, size) if memory.contains(address, size) else None
    )


def text_at(read: Read, address: int) -> bytes | None:
    """The NUL-terminated string at a guest-physical address, which is not 0."""
    data = b""
    while address and len(data) < _TEXT_LIMIT:
        at = address + len(data)
        chunk = read(at, PAGE - at % PAGE)
        if chunk is None:
            return None
        text, end, _ = chunk.partition(b"\0")
        data += text
        if end:
            return data
    return None


def decoded(text: bytes | None) -> str | None:
    return None if text is None else text.rstrip(b"\0").decode("utf-8", "backslashreplace")


def values(structure: Declared, prefix: str) -> Iterator[tuple[str, str]]:
    """The fields of a structure by name, as text; bytes are "0" when all of them are."""
    for field in fields(structure):  # type: ignore[arg-type]
        value = getattr(structure, field.name)
        if isinstance(value, bytes):
            value = value.hex() if any(value) else "0"
        yield prefix + field.name, value if isinstance(value, str) else hex(value)
