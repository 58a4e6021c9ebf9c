"""How much disk the cases of a matrix take: while they run, and afterwards.

    .venv/bin/python -m bench.disk [--json FILE] [KERNEL ...]

Owns running `bootproof matrix` on real kernels, each in its formats and at a few places, with what
is kept by default, and counting blocks from outside ten times a second: each file once, whatever
its names. What stays is given for each case, and as a share of what the boot images alone would
take, each in a file of its own.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import numbers
from bench.memory import MATRIX
from bootproof.harness.arch.profiles import FAST_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases import case_file
from bootproof.harness.inputs.images import catalogue_file
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
from bootproof.loader import bootimage
from bootproof.loader.address import MIB
from tests.builders.disks import used

TARGET: Final = 20 * MIB  # a passed case
_KERNELS: Final = ("6.1-cloud-amd64", "newest-cloud-amd64", "newest-cloud-arm64", "newest-riscv64")
_OFFSETS: Final = (0, 2 * MIB, 16 * MIB)


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of a matrix of so many cases: at its peak, at its end, and of its boot images."""

    cases: int
    peak: int
    kept: int
    images: int

    def __str__(self) -> str:
        each = self.kept / self.cases
        return (
            f"{self.cases} cases: {each / MIB:.1f} MiB each stay, {self.kept / self.images:.2f} of"
            f" their boot images; at the peak {self.peak / self.kept:.2f} of what stays"
        )


def cases(kernel: str) -> list[Case]:
    """The kernel in its formats, at a few places."""
    found = catalogue_file(kernel)
    x86 = found.arch == "x86_64"
    base = 0 if x86 else ARCHES[found.arch].ram_base(None) + 2 * MIB
    ways = [("elf", "linux64"), ("bzimage", "linux64")] if x86 else [("image", "auto")]
    return [
        Case(
            *(found.arch, kernel, form, protocol, base + offset or None),
            kernel_path=str(found.path),
            profile=FAST_PROFILE,
        )
        for form, protocol in ways
        for offset in _OFFSETS
    ]


def measure(chosen: Sequence[Case], directory: Path) -> Disk:
    """Runs a matrix of these cases. Raises CalledProcessError when one is not as expected."""
    file = directory / f"bench{case_file.SUFFIX}"
    case_file.write_cases(file, chosen)
    out, peak = directory / "out", 0
    words = matrix.arguments(matrix.Selection(MatrixOptions(out, jobs=2)), file)
    command = [sys.executable, "-c", MATRIX, *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, _used(out))
            time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command[:2])
    images, kept = sum(map(_image, out.glob("*/boot.json"))), used(out)
    return Disk(len(chosen), max(peak, kept), kept, images)


def _used(out: Path) -> int:
    try:
        return used(out)
    except OSError:  # something has just gone
        return 0


def _image(description: Path) -> int:
    """Bytes of a boot image's RAM that hold data."""
    directory = description.parent
    with bootimage.open_ram(bootimage.open_boot_image(directory), directory) as memory:
        return sum(extent.size for extent in memory.data_extents())


def main() -> int:
    """Prints a line; 0 when the target is met, else 1."""
    parser = numbers.parser(__doc__)
    parser.add_argument("kernels", nargs="*", default=_KERNELS, metavar="KERNEL")
    arguments = parser.parse_args()
    chosen = [case for kernel in arguments.kernels for case in cases(kernel)]
    with tempfile.TemporaryDirectory() as directory:
        found = measure(chosen, Path(directory))
    print(f"{', '.join(arguments.kernels)}: {found}")
    met = found.kept <= TARGET * found.cases
    print(f"target ({TARGET // MIB} MiB a case):", "met" if met else "missed")
    numbers.write(arguments.json, found)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
