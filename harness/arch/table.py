"""The architectures whose guests the harness starts: the only list of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bootproof.harness.arch import Arch
from bootproof.harness.arch.aarch64 import AARCH64
from bootproof.harness.arch.riscv64 import RISCV64
from bootproof.harness.arch.x86_64 import X86_64

ARCHES: Final[Mapping[str, Arch]] = {arch.name: arch for arch in (X86_64, AARCH64, RISCV64)}
