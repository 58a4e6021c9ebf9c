"""The architectures whose guests the harness starts: the only list of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from bootproof.loader.ondemand import OnDemand

if TYPE_CHECKING:
    from bootproof.harness.arch.arch import Arch

ARCHES: Final[Mapping[str, Arch]] = OnDemand(
    "bootproof.harness.arch",
    {"x86_64": "x86_64.X86_64", "aarch64": "aarch64.AARCH64", "riscv64": "riscv64.RISCV64"},
)
