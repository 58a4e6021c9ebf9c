"""aarch64: what others show of a CPU: core notes, and debuggers.

Sources: Linux's struct user_pt_regs (cores); GDB's aarch64-core.xml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.importing import Importing, Seen
from bootproof.loader.corefile import Note, user_registers

# Arm ARM C5.2 (PSTATE.BTYPE): how the last branch was made, of CPUs that have BTI. With the MMU off
# nothing asks for it, and a CPU without BTI could not be started so.
_LAST_BRANCH: Final = 3 << 10


def _from_notes(notes: Sequence[Note]) -> list[Seen]:
    """The CPUs of a core: Linux's struct user_pt_regs. Raises CoreError."""
    return [
        Seen({"x": tuple(x), "sp": sp, "pc": pc, "pstate": pstate})
        for *x, sp, pc, pstate in user_registers(notes, 34)
    ]


def _from_debugger(found: Mapping[str, int]) -> Seen:
    """By the names of GDB's aarch64-core.xml."""
    values: dict[str, Any] = {name: found[name] for name in ("sp", "pc") if name in found}
    if all(f"x{number}" in found for number in range(31)):
        values["x"] = tuple(found[f"x{number}"] for number in range(31))
    if "cpsr" in found:
        values["pstate"] = found["cpsr"]
    return Seen(values)


IMPORTING: Final[Importing[Arm64Registers]] = Importing(
    counter="pc",
    tells_mode=("pstate",),
    machines=(183,),  # EM_AARCH64
    from_notes=_from_notes,
    debugger=(*((f"x{number}", 64) for number in range(31)), ("sp", 64), ("pc", 64), ("cpsr", 32)),
    from_debugger=_from_debugger,
    conclude=lambda seen, demanded, memory: iter(()),
    left_out={"pstate": _LAST_BRANCH},
)
