"""The same case gives the same transcript, byte for byte, and the same number of instructions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.case import RAM_BASE, Case
from harness.prove import Proven, prove
from harness.scenarios import default_kernels
from harness.verdict import Verdict
from loader.address import MIB

X86_64 = Case("x86_64", default_kernels("x86_64")[0], "elf", "pvh")
AARCH64 = Case(
    "aarch64", default_kernels("aarch64")[0], "image", "arm64", RAM_BASE["aarch64"] + 2 * MIB
)


@pytest.mark.parametrize("case", [X86_64, AARCH64], ids=lambda case: case.arch)
def test_same_transcript_and_instruction_count(
    case: Case, run_directory: Callable[[str], Path]
) -> None:
    """Two boots, KASLR left on (x86)."""
    cmdline = "console=ttyS0 reboot=t panic=-1" if case.arch == "x86_64" else None

    named = replace(case, cmdline=cmdline, claim="determinism")
    first, second = (
        prove(named, run_directory(f"determinism-{case.arch}-{name}"))
        for name in ("first", "second")
    )
    assert first.verdict is Verdict.BOOTED, first.reason
    assert _what_happened(first) == _what_happened(second)


def _what_happened(proven: Proven) -> tuple[bytes, int | None]:
    assert proven.outcome is not None
    return proven.outcome.observation.transcript, proven.outcome.costs.instructions
