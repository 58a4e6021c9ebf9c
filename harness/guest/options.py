"""Kernel parameters that change what a guest sees of its machine: which of them a guest was given.

Pure. Owns the names only: what each of them makes of a machine is the kernel's.

Source: Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

from typing import Final

from bootproof.loader import kernelargs

MEMORY: Final = frozenset((b"mem", b"memmap", b"efi_fake_mem"))
"""Those that take RAM away, or call something else RAM."""

CPUS: Final = frozenset(
    (
        *(b"nosmp", b"maxcpus", b"nr_cpus", b"possible_cpus", b"disable_cpu_apicid"),
        *(b"acpi", b"noapic", b"nolapic", b"disableapic"),  # the tables that list them; their APICs
    )
)
"""Those that leave CPUs out."""


def given(cmdline: str, names: frozenset[bytes]) -> tuple[str, ...]:
    """The arguments of a command line that have one of these names, as they are written there."""
    line = cmdline.encode()
    return tuple(
        line[argument.start : argument.end].decode("utf-8", "backslashreplace")
        for argument in kernelargs.for_kernel(line)
        if argument.name in names
    )
