"""The architectures there are, by name: the one list that every other is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from bootproof.loader.ondemand import OnDemand

if TYPE_CHECKING:
    from bootproof.loader.arch import Architecture
    from bootproof.loader.arch.importing import Importing

AnyArchitecture: TypeAlias = "Architecture[Any]"

_PACKAGE: Final = "bootproof.loader.arch"
ARCHITECTURES: Final[Mapping[str, AnyArchitecture]] = OnDemand(
    _PACKAGE,
    {"x86_64": "x86_64.X86_64", "aarch64": "aarch64.AARCH64", "riscv64": "riscv64.RISCV64"},
)

# How CPUs of other programs are read, by the name of the architecture.
IMPORTING: Final[Mapping[str, Importing[Any]]] = OnDemand(
    _PACKAGE,
    {
        "x86_64": "x86_seen.IMPORTING",
        "aarch64": "aarch64_seen.IMPORTING",
        "riscv64": "riscv64_seen.IMPORTING",
    },
)
