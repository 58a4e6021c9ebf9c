"""The device tree of a machine: the one that QEMU makes, asked of QEMU itself (`-machine dumpdtb`),
or ours, of a board for which it makes none.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.harness.host.to_end import run_to_end
from bootproof.harness.qemu import binary
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.text import printable

_FILE: Final = "machine.dtb"


@functools.cache
def device_tree(machine: Machine) -> bytes | None:
    """The device tree of this machine, or None where kernels want none.

    A QEMU is asked once for the same machine. Raises UserError when it refuses the machine.
    """
    if not machine.arch.device_tree:
        return None
    if machine.traits.tree is not None:
        return machine.traits.tree(machine.banks, machine.cpus)
    words = _words(machine, _FILE)
    return binary.answer(machine.qemu.path, words, _FILE, functools.partial(_ask, machine))


def _words(machine: Machine, path: str) -> list[str]:
    from bootproof.harness.qemu.argv import machine_words  # of no use to other architectures

    return [*machine_words(machine, dumpdtb=path), "-display", "none"]


def _ask(machine: Machine, path: Path) -> None:
    try:
        run = run_to_end(_words(machine, str(path)), binary.ANSWER_SECONDS)
    except OSError as error:
        told = error.strerror or error
        raise UserError(f"{machine.qemu}: no device tree for {machine.board}: {told}") from error
    if not path.exists():
        reason = printable(run.stderr.strip()) or f"exit code {run.returncode}"
        raise UserError(f"{machine.qemu}: no device tree for {machine.board}: {reason}")
