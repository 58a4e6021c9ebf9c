"""What QEMU prints for `info registers`, as much of it as tests need."""

from __future__ import annotations

from bootproof.harness.arch.table import ARCHES

X86, ARM64, RISCV = (ARCHES[name].dump for name in ("x86_64", "aarch64", "riscv64"))


def x86_dump(rip: int, flags: int = 2, rax: int = 0) -> str:
    return f"\nCPU#0\nRAX={rax:016x} RBX=0\nRIP={rip:016x} RFL={flags:08x} [-------] HLT=0\n"


def arm64_dump(pc: int, pstate: int = 0x3C5) -> str:
    return f"\nCPU#0\n PC={pc:016x} X00=0\nPSTATE={pstate:08x} ---- EL1h\n"


def riscv_dump(pc: int, mstatus: int = 0, mcause: int = 0, mepc: int = 0) -> str:
    csrs = {"pc": pc, "mstatus": mstatus, "mepc": mepc, "mcause": mcause}
    shown = "".join(f" {name:<8} {value:016x}\n" for name, value in csrs.items())
    return f"\nCPU#0\n V      =   0\n{shown} x0/zero  {0:016x} x1/ra    {0:016x}\n"
