"""What one boot costs, against QEMU's own -kernel of the same kernel, initrd and command line.

    .venv/bin/python -m bench.boot [--rounds 5] [--json FILE] [KERNEL ...]

Owns timing whole commands, from start to exit: a plain `qemu -kernel` that nobody watches (on x86
of the bzImage, on the board pc with its firmware), and `bootproof boot` of what stands in _WAYS.
They take turns, so that a busy host disturbs all of them alike; medians, lowest and highest are
given as shares of the plain QEMU's median.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import numbers
from bootproof.harness import command_line
from bootproof.harness.arch.profiles import DEFAULT_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.inputs.images import catalogue_file
from bootproof.harness.prepare import evidence_archive
from bootproof.harness.qemu.binary import find_qemu, version_text

_BOOT: Final = (sys.executable, "-P", "-m", "bootproof.harness.cli", "boot")
_PLAIN: Final = "qemu -kernel"
_BOARDS: Final = {"x86_64": "pc"}  # QEMU's default there; the only one elsewhere is ours
_FAST: Final = ("--profile", "fast")
_WAYS: Final[Mapping[str, tuple[str, ...]]] = {"boot": (), "boot, fast": _FAST}
_MORE_WAYS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "x86_64": {"boot, fast, ELF by PVH": (*_FAST, "--format", "elf", "--protocol", "pvh")}
}
_KERNELS: Final = (
    *("6.1-cloud-amd64", "newest-cloud-amd64", "6.1-cloud-arm64", "newest-cloud-arm64"),
    "6.12-riscv64",
)


@dataclass(frozen=True, slots=True)
class Row:
    """What one way took, in each round, in seconds of wall time."""

    way: str
    seconds: tuple[float, ...]

    def shares(self, plain: float) -> tuple[float, float, float]:
        """Median, lowest and highest, as shares of `plain` seconds."""
        took = self.seconds
        return statistics.median(took) / plain, min(took) / plain, max(took) / plain


def plain_qemu(kernel: str, directory: Path) -> list[str]:
    """The command that boots a kernel to the end of its proof by QEMU's own -kernel."""
    fetched = catalogue_file(kernel)
    arch = ARCHES[fetched.arch]
    initrd = directory / f"{arch.name}.cpio"
    initrd.write_bytes(evidence_archive(arch.name))
    cmdline = command_line.complete(arch.command_line(DEFAULT_PROFILE), "0" * 32, None)
    return [
        *(find_qemu(arch.name).path, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", _BOARDS.get(arch.name, arch.board), "-cpu", arch.cpu, "-m", "512M"),
        *("-serial", f"file:{directory}/console", "-no-reboot"),
        *("-kernel", str(fetched.path), "-initrd", str(initrd), "-append", cmdline),
    ]


def seconds(command: Sequence[str]) -> float:
    """Wall time of a command from start to exit. Raises CalledProcessError when it fails."""
    began = time.monotonic()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.monotonic() - began


def measure(kernel: str, rounds: int) -> list[Row]:
    """The plain QEMU first, then each way of ours."""
    ways = {**_WAYS, **_MORE_WAYS.get(catalogue_file(kernel).arch, {})}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        commands = {_PLAIN: plain_qemu(kernel, directory)}
        for way, words in ways.items():
            out = ("--out", str(directory / "run"))
            commands[way] = [*_BOOT, kernel, *words, *out]
        for command in commands.values():  # caches are warm before anything counts
            seconds(command)
        took: dict[str, list[float]] = {way: [] for way in commands}
        for _ in range(rounds):
            for way, command in commands.items():
                took[way].append(seconds(command))
    return [Row(way, tuple(each)) for way, each in took.items()]


def show(kernel: str, rows: Sequence[Row]) -> None:
    """Prints the shares of a kernel's rows."""
    plain = statistics.median(rows[0].seconds)
    print(f"{kernel}: shares of {rows[0].way}'s median; its own lowest and highest first")
    for row in rows:
        median, low, high = row.shares(plain)
        print(f"  {row.way:24} {median:5.2f}   {low:.2f} to {high:.2f}", flush=True)


def main() -> None:
    parser = numbers.parser(__doc__)
    parser.add_argument("kernels", nargs="*", metavar="KERNEL")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    kernels = arguments.kernels or _KERNELS
    for arch in sorted({catalogue_file(kernel).arch for kernel in kernels}):
        print(f"{find_qemu(arch).path} {version_text(find_qemu(arch).version)}")
    results = {}
    for kernel in kernels:
        results[kernel] = measure(kernel, arguments.rounds)
        show(kernel, results[kernel])
    numbers.write(arguments.json, results)


if __name__ == "__main__":
    main()
