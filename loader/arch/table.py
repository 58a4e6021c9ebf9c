"""The architectures there are, by name: the one list that every other is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from bootproof.loader.arch import Architecture, Importing, aarch64, riscv64, x86_seen
from bootproof.loader.arch.aarch64 import AARCH64
from bootproof.loader.arch.riscv64 import RISCV64
from bootproof.loader.arch.x86_64 import X86_64

AnyArchitecture: TypeAlias = Architecture[Any]

ARCHITECTURES: Final[Mapping[str, AnyArchitecture]] = {
    arch.name: arch for arch in (X86_64, AARCH64, RISCV64)
}

# How CPUs of other programs are read, by the name of the architecture.
IMPORTING: Final[Mapping[str, Importing[Any]]] = {
    X86_64.name: x86_seen.IMPORTING,
    AARCH64.name: aarch64.IMPORTING,
    RISCV64.name: riscv64.IMPORTING,
}
