"""The boot protocols there are, by name: the one list that every other is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from bootproof.loader.ondemand import OnDemand

if TYPE_CHECKING:
    from bootproof.loader.arch import Registers
    from bootproof.loader.boot_parameters import BootParameters, Memory
    from bootproof.loader.protocols.protocol import BootProtocol
    from bootproof.loader.rules import Hardware, RuleFinding

AnyProtocol: TypeAlias = "BootProtocol[Any]"
# Of what a kernel offers, that of the lowest rank.
AUTO: Final = "auto"
PVH: Final = "pvh"

PROTOCOLS: Final[Mapping[str, AnyProtocol]] = OnDemand(
    "bootproof.loader.protocols",
    {
        "linux64": "linux64.PROTOCOL",
        "linux32": "linux32.PROTOCOL",
        PVH: "pvh.PROTOCOL",
        "arm64": "arm64.PROTOCOL",
        "riscv64": "riscv64.PROTOCOL",
    },
)
# What does not hold at a kernel's first instruction, by the protocol. Written from the documents.
RULES: Final[Mapping[str, Callable[[Hardware[Any]], Iterator[RuleFinding]]]] = OnDemand(
    "bootproof.loader.rules",
    {
        "linux64": "linux.linux64",
        "linux32": "linux.linux32",
        PVH: "pvh.pvh",
        "arm64": "arm64.arm64",
        "riscv64": "riscv64.riscv64",
    },
)


def boot_parameters(protocol: str, registers: Registers, memory: Memory) -> BootParameters:
    """What a kernel that is entered with `registers` is told: nothing, as far as one can know,
    where they follow no known protocol. Raises nothing for what is wrong.
    """
    from bootproof.loader.boot_parameters import BootParameters, reader

    known = PROTOCOLS.get(protocol)
    return known.read(registers, reader(memory)) if known else BootParameters()


def broken_rules(protocol: str, hardware: Hardware[Any]) -> list[RuleFinding]:
    """Every rule of `protocol` that does not hold; what is no known protocol has none to break."""
    rules = RULES.get(protocol)
    return list(rules(hardware)) if rules else []
