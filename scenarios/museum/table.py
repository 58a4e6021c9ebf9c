"""All exhibits: the one list."""

from __future__ import annotations

from typing import Final

from bootproof.scenarios.museum import Exhibit, arm64, linux, machine, pvh, riscv64

EXHIBITS: Final[tuple[Exhibit, ...]] = (
    *linux.EXHIBITS,
    *machine.EXHIBITS,
    *pvh.EXHIBITS,
    *arm64.EXHIBITS,
    *riscv64.EXHIBITS,
)
