"""The CPUs beside the first one wait until the kernel asks for them, whatever the protocol."""

from __future__ import annotations

from collections.abc import Callable

from bootproof.loader.arch import R, Read
from bootproof.loader.rules import Findings, Hardware, violation


def wait(hardware: Hardware[R], runs: Callable[[R, R, Read], str], section: str) -> Findings:
    for number, registers in enumerate(hardware.others, 1):
        if what := runs(registers, hardware.registers, hardware.read):
            sentence = f"CPU {number} {what}: the kernel starts it, and it must wait for that"
            yield violation("secondary-cpu", sentence, section, address=registers.pc)
