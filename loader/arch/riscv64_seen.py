"""riscv64: what others show of a hart: core notes, and debuggers.

Sources: Linux's struct user_regs_struct (cores); GDB's 64bit-cpu.xml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bootproof.loader.arch.importing import Importing, Seen
from bootproof.loader.arch.riscv64 import RiscvRegisters
from bootproof.loader.corefile import Note, user_registers

_NAMES: Final = (
    *("zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "fp", "s1"),
    *(f"a{number}" for number in range(8)),
    *(f"s{number}" for number in range(2, 12)),
    *(f"t{number}" for number in range(3, 7)),
)


def _from_notes(notes: Sequence[Note]) -> list[Seen]:
    """The harts of a core: Linux's struct user_regs_struct, pc first. Raises CoreError."""
    return [Seen({"pc": pc, "x": (0, *x)}) for pc, *x in user_registers(notes, 32)]


def _from_debugger(found: Mapping[str, int]) -> Seen:
    """By the names of GDB's 64bit-cpu.xml."""
    values: dict[str, Any] = {"pc": found["pc"]} if "pc" in found else {}
    if all(name in found for name in _NAMES):
        values["x"] = tuple(found[name] for name in _NAMES)
    if "satp" in found:
        values["satp"] = found["satp"]
    return Seen(values)


IMPORTING: Final[Importing[RiscvRegisters]] = Importing(
    counter="pc",
    tells_mode=("privilege",),
    machines=(243,),  # EM_RISCV
    from_notes=_from_notes,
    debugger=(*((name, 64) for name in _NAMES), ("pc", 64)),
    from_debugger=_from_debugger,
    conclude=lambda seen, demanded, memory: iter(()),
)
