"""What the bench of the fast profile asks a QEMU."""

from __future__ import annotations

from pathlib import Path

from bench.fast_profile import TRANSLATED, asked
from bootproof.harness.case import Case
from bootproof.harness.prove import prove
from bootproof.loader.address import MIB
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, vmlinux_with_text


def test_what_qemu_has_translated_is_asked_before_it_ends(offline: None, tmp_path: Path) -> None:
    """It was not, when QEMU was told to end in another way: every row said None."""
    kernel = tmp_path / "vmlinux"
    program = X86Program(LOAD).say(b"hello\n").reset()
    kernel.write_bytes(vmlinux_with_text(program))
    said: list[str] = []
    with asked(said):
        prove(Case("x86_64", str(kernel), "elf", "linux64", memory=32 * MIB), tmp_path / "run")
    assert TRANSLATED.search("".join(said))
