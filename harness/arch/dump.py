"""What QEMU's `info registers` prints: what is the same for every architecture, and a description
of what is not.

The human monitor is the only interface that shows the hidden parts of segment registers and the
descriptor-table registers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from bootproof.dataclass import dataclass

if TYPE_CHECKING:
    from bootproof.loader.arch import Registers


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """Where kernels that keep frame pointers put the caller's, and the address to return to."""

    # Its first group is the register that they go by, hexadecimal.
    register: re.Pattern[str]
    # Of two 64-bit values, relative to that.
    caller: int
    return_address: int

    def pointer(self, dump: str) -> int | None:
        """The register's value, guest-virtual; None when the dump has none."""
        match = self.register.search(dump)
        return int(match.group(1), 16) if match else None


@dataclass(frozen=True, slots=True)
class DumpFormat:
    """How an architecture's dump shows what is needed, and how the rest is read."""

    # The registers of the first CPU, with those of `system`. Raises ValueError for an incomplete
    # dump.
    parse: Callable[[str, Mapping[str, int]], Registers]
    # Its first group is the program counter, hexadecimal.
    pc: re.Pattern[str]
    # Its first group is a hexadecimal number; interrupts are off when, of `mask`, exactly the bits
    # of `masked` are set in it.
    flags: re.Pattern[str]
    mask: int
    masked: int
    # What dump, bytes before and bytes at the program counter tell of a reset.
    reset_cause: Callable[[str, bytes, bytes], str]
    # What the dump of a halted CPU shows; or the instruction after which a CPU sleeps until an
    # interrupt comes, even a masked one: its bytes are then just before the program counter.
    halt: str | None = None
    sleep: bytes | None = None
    # None where kernels keep no frame pointers.
    frames: FrameRecord | None = None
    # Registers that only the gdbstub shows, by its names.
    system: tuple[str, ...] = ()

    def program_counter(self, dump: str) -> int | None:
        """The guest-virtual program counter, or None when the dump has none."""
        match = self.pc.search(dump)
        return int(match.group(1), 16) if match else None

    def interrupts_off(self, dump: str) -> bool:
        match = self.flags.search(dump)
        return match is not None and int(match.group(1), 16) & self.mask == self.masked

    def halted(self, dump: str, before: bytes) -> bool:
        """Whether the CPU of a dump waits for an interrupt, the code before its pc given."""
        if self.halt is not None and self.halt in dump:
            return True
        return self.sleep is not None and before.endswith(self.sleep)


_CPU: Final = re.compile(r"^CPU#\d+$", re.MULTILINE)
_ASSIGNMENT: Final = re.compile(r"\b([A-Z][A-Z0-9]{1,5}) *=([0-9a-f]+)\b")


def each_cpu(dump: str) -> list[str]:
    """The parts of `info registers -a`, one for each CPU."""
    _, *parts = _CPU.split(dump)
    return parts or [dump]


def values(dump: str) -> dict[str, int]:
    """The registers that are shown as one number, of the first CPU."""
    return {name: int(number, 16) for name, number in _ASSIGNMENT.findall(each_cpu(dump)[0])}


def incomplete(error: KeyError) -> ValueError:
    """The error of a dump without the register that was looked up."""
    return ValueError(f"QEMU's register dump shows no {error.args[0]}")
