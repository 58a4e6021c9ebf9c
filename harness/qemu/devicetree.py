"""The device tree of a machine: the one that QEMU makes, asked of QEMU itself (`-machine dumpdtb`),
or ours, of a board for which it makes none.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

from bootproof.harness.errors import UserError
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.text import printable
from bootproof.kernels import scratch


@functools.cache
def device_tree(machine: Machine) -> bytes | None:
    """The device tree of this machine, or None where kernels want none.

    Raises UserError when QEMU refuses the machine.
    """
    if not machine.arch.device_tree:
        return None
    if machine.traits.tree is not None:
        return machine.traits.tree(machine.banks, machine.cpus)
    from bootproof.harness.qemu.argv import machine_words  # of no use to other architectures

    with scratch.directory() as directory:
        path = Path(directory) / "machine.dtb"
        command = [*machine_words(machine, dumpdtb=str(path)), "-display", "none"]
        run = subprocess.run(command, capture_output=True, timeout=60, check=False)
        if not path.exists():
            reason = printable(run.stderr.strip()) or f"exit code {run.returncode}"
            raise UserError(f"{machine.qemu}: no device tree for {machine.board}: {reason}")
        return path.read_bytes()
