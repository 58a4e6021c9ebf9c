"""Boots that are compared, and comparisons, that never ran."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bootproof.harness.compare.comparison import Comparison, Cost, ExplainedDifference
from bootproof.harness.compare.differences import BootDifference, ComparedBoot, Section
from bootproof.harness.compare.memory_at_entry import MemoryAtEntry
from bootproof.harness.guest.memory_map import USABLE, MapEntry
from bootproof.harness.guest.stages import Stage
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import X86Registers
from tests.builders.guests import flat32, framed

RAM = Range(0, 512 * MIB)
KERNEL = Range(16 * MIB, 0x3000)

KERNEL_LOG = (
    b"[    0.000000] Linux version 6.1.0\r\n"
    b"[    0.000000] BIOS-e820: [mem 0x0000000000000000-0x000000000009fbff] usable\r\n"
    b"[    0.000000] BIOS-e820: [mem 0x0000000000100000-0x000000001fffffff] usable\r\n"
    b"[    0.100000] Memory: 219840K/523896K available (14343K kernel code, 2327K rwdata,"
    b" 53068K reserved, 0K cma-reserved)\r\n"
)


def console_log(*, low: str = "00001000-0009fbff", proof: str = "0" * 64) -> bytes:
    """A console with evidence, as init prints it."""
    said = (("cmdline", "console=ttyS0"), ("ram", low), ("ram", "00100000-1fffffff"))
    lines = "".join(framed(number, *pair) for number, pair in enumerate(said, start=1))
    return KERNEL_LOG + f"{lines}bootproof: proof {proof}\r\n".encode()


LOG = console_log()


def side(
    protocol: str = "pvh",
    registers: X86Registers | Arm64Registers | None = None,
    log: bytes = LOG,
    verdict: Verdict = Verdict.BOOTED,
    values: Mapping[str, str] | None = None,
) -> ComparedBoot:
    memory = MemoryAtEntry(
        {"cmdline": "console=ttyS0", "initrd": "512 bytes"} | dict(values or {}),
        (MapEntry(RAM, USABLE),),
        KERNEL,
        (1, 2, 3),
    )
    return ComparedBoot(verdict, "", protocol, registers or flat32(0x1000000), memory, log)


def comparison(*differences: ExplainedDifference) -> Comparison:
    stages = (Stage("first-output", 900_000, None), Stage("banner", None, 0.0))
    cost = Cost("booted", "pvh", 1_000_000, stages)
    return Comparison("case", differences, cost, cost, Path("/nowhere"))


BAD = ExplainedDifference(
    BootDifference(Section.PARAMETERS, "cmdline", "console=ttyS0 quietly", "console=ttyS0"), None
)
GOOD = ExplainedDifference(BootDifference(Section.REGISTERS, "rbx", "0x1040", "0x21e0"), "place")
