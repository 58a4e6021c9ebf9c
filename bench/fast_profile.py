"""What each word of the fast profile saves, in guest instructions.

    .venv/bin/python -m bench.fast_profile [KERNEL ...]

Owns booting kernels of the catalogue's cache with the whole profile, and once without each of its
words and initcalls. A deterministic boot has one count, so one boot each is enough, on any machine
and under any load. A word that saves nothing on any kernel has no place in the profile.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bootproof.harness.arch.profiles import FAST_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.inputs.images import catalogue_file
from bootproof.harness.prove import prove
from bootproof.loader.address import MIB

_LIST: Final = "initcall_blacklist="
_KERNELS: Final = (
    *("6.1-cloud-amd64", "6.12-cloud-amd64", "newest-cloud-amd64"),
    *("6.1-cloud-arm64", "6.12-cloud-arm64", "newest-cloud-arm64"),
)
_REQUESTS: Final = {
    "x86_64": ("elf", "linux64", None),
    "aarch64": ("image", "auto", ARCHES["aarch64"].ram_base() + 2 * MIB),
}


def without_each(words: str) -> Iterator[tuple[str, str]]:
    """Each word and each initcall of a command line, and the line that is left without it."""
    parts = words.split()
    for part in parts:
        others = " ".join(other for other in parts if other is not part)
        if not part.startswith(_LIST):
            yield part, others
            continue
        names = part.removeprefix(_LIST).split(",")
        for name in names:
            left = ",".join(other for other in names if other != name)
            yield name, f"{others} {_LIST}{left}"


def instructions(arch: str, kernel: str, cmdline: str) -> int:
    """Guest instructions of a boot that proved itself. Raises RuntimeError when it did not."""
    format_, protocol, offset = _REQUESTS[arch]
    path = str(catalogue_file(kernel).path)
    case = Case(arch, kernel, format_, protocol, offset, kernel_path=path, cmdline=cmdline)
    with tempfile.TemporaryDirectory() as directory:
        proven = prove(case, Path(directory) / "run")
    count = None if proven.outcome is None else proven.outcome.costs.instructions
    if proven.problem is not None or count is None:
        raise RuntimeError(f"{kernel} with {cmdline!r}: {proven.reason}")
    return count


def measure(kernel: str) -> None:
    """Prints the kernel's table."""
    arch = catalogue_file(kernel).arch
    needed, fast = ARCHES[arch].cmdline, ARCHES[arch].fast
    plain = instructions(arch, kernel, needed)
    whole = instructions(arch, kernel, ARCHES[arch].command_line(FAST_PROFILE))
    print(
        f"{kernel}: {whole:,} instructions, {whole / plain:.2f} of the default profile's {plain:,}"
    )
    for word, others in without_each(fast):
        more = instructions(arch, kernel, f"{needed} {others}") - whole
        print(f"  {word:32} saves {more:12,}  {100 * more / whole:5.1f} %", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kernels", nargs="*", default=_KERNELS, metavar="KERNEL")
    for kernel in parser.parse_args().kernels:
        measure(kernel)


if __name__ == "__main__":
    main()
