"""Command lines and initrds of users, as distributions and public bug reports have them.

Good boots that were once taken for bad ones, and what is said where a proof cannot be read.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.inputs import images
from bootproof.harness.prove import prove
from bootproof.harness.verdict import Verdict
from bootproof.loader import initramfs
from bootproof.loader.address import MIB

pytestmark = pytest.mark.beside
RunDirectory = Callable[[str], Path]

X86_64, AARCH64 = (default_kernels(arch)[1] for arch in ("x86_64", "aarch64"))

# What a user's init sees of the kernel, and of the environment that the kernel made for it.
INIT: Final = b"""#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo "user: level $(/bin/busybox cat /proc/sys/kernel/printk)"
echo "user: arguments $*"
echo "user: environment $memory"
/bin/busybox mknod /dev/kmsg c 1 11
echo '<4>user: a warning' > /dev/kmsg
/bin/busybox sleep 1
/bin/busybox reboot -f
"""


def archive(*files: initramfs.Entry) -> bytes:
    """A user's, with the program that runs INIT."""
    places = map(initramfs.directory, ("bin", "proc"))
    busybox = initramfs.file("bin/busybox", images.busybox("x86_64"), 0o755)
    return initramfs.archive([*places, busybox, *files])


def case(kernel: str, cmdline: str, initrd: Path | None = None) -> Case:
    """With what the fast profile leaves out: consoles and init are as the user says."""
    if kernel == AARCH64:
        arch = ARCHES["aarch64"]
        made = Case(arch.name, kernel, "image", "arm64", arch.ram_base() + 2 * MIB, cmdline=cmdline)
    else:
        arch, line = ARCHES["x86_64"], f"{cmdline} nokaslr reboot=t panic=-1"
        made = Case(arch.name, kernel, "elf", "pvh", cmdline=line)
    file = None if initrd is None else str(initrd)
    return replace(made, append=arch.fast, initrd=file)


def booted(case_: Case, directory: Path) -> None:
    proven = prove(case_, directory)
    (directory / "ram.img").unlink()
    assert proven.verdict is Verdict.BOOTED, proven.reason


PROOFS: Final = (
    (X86_64, "console=ttyS0 console=tty0"),
    (X86_64, "quiet"),
    (X86_64, 'console=ttyS0 foo="a -- b" "c -- d" -- e'),
    # A message after each transmit interrupt of the serial port.
    (X86_64, "console=ttyS0 ignore_loglevel tp_printk trace_event=irq:irq_handler_entry"),
    (X86_64, "console=ttyS0 initcall_blacklist=serial8250_init"),  # the kernel's console only
    (AARCH64, "console=ttyS0"),
    (AARCH64, "initcall_blacklist=pl011_init earlycon keep_bootcon"),
)


@pytest.mark.parametrize(
    "number", [pytest.param(0, marks=pytest.mark.short), *range(1, len(PROOFS))]
)
def test_proof_gets_through(number: int, run_directory: RunDirectory) -> None:
    booted(case(*PROOFS[number]), run_directory(f"command-lines-console-{number}"))


def test_no_serial_port_that_a_program_can_use(run_directory: RunDirectory) -> None:
    """Init ran, and nobody could read its proof: neither a boot nor a failure of the kernel's."""
    directory = run_directory("command-lines-unheard")
    proven = prove(case(X86_64, "quiet 8250.nr_uarts=0"), directory)
    (directory / "ram.img").unlink()
    assert proven.verdict is Verdict.INCONCLUSIVE
    assert "its proof went elsewhere (the log buffer in RAM has it)" in proven.reason
    assert "the kernel's console is tty0, not ttyS0: add console=ttyS0" in proven.reason


@pytest.mark.short
def test_users_init_finds_the_kernel_as_the_command_line_made_it(
    run_directory: RunDirectory, tmp_path: Path
) -> None:
    """Its own rdinit runs after the proof, with its arguments; kernel messages show again."""
    (tmp_path / "my.cpio").write_bytes(archive(initramfs.file("my-init", INIT, 0o755)))
    directory = run_directory("command-lines-init")
    words = "console=ttyS0 loglevel=7 ignore_loglevel memory=kept rdinit=/my-init -- one 'two'"
    booted(case(X86_64, words, initrd=tmp_path / "my.cpio"), directory)
    said = (directory / "console.log").read_text("utf-8", "replace")
    after = said[said.rindex("bootproof: proof ") :]
    assert "user: level 7\t" in after
    assert "user: arguments one 'two'" in after
    assert "user: environment kept" in after
    assert "] user: a warning" in after


def test_archive_that_the_kernel_cannot_unpack_does_not_hide_the_proof(
    run_directory: RunDirectory, tmp_path: Path
) -> None:
    """It unpacks into a tmpfs, which has half of the guest's memory."""
    files = initramfs.file("init", INIT, 0o755), initramfs.file("large", bytes(64 * MIB), 0o644)
    (tmp_path / "my.gz").write_bytes(gzip.compress(archive(*files), compresslevel=1))
    directory = run_directory("command-lines-archive")
    asked = case(X86_64, "console=ttyS0", initrd=tmp_path / "my.gz")
    booted(replace(asked, memory=128 * MIB), directory)
    said = (directory / "console.log").read_text("utf-8", "replace")
    assert "Initramfs unpacking failed: write error" in said
