"""What QEMU prints for `info registers`, as much of it as tests need."""

from __future__ import annotations

from bootproof.harness.arch.table import ARCHES

X86, ARM64 = ARCHES["x86_64"].dump, ARCHES["aarch64"].dump


def x86_dump(rip: int, flags: int = 2, rax: int = 0) -> str:
    return f"\nCPU#0\nRAX={rax:016x} RBX=0\nRIP={rip:016x} RFL={flags:08x} [-------] HLT=0\n"


def arm64_dump(pc: int, pstate: int = 0x3C5) -> str:
    return f"\nCPU#0\n PC={pc:016x} X00=0\nPSTATE={pstate:08x} ---- EL1h\n"
