"""What each word of the fast profile saves: of the guest's work, and of QEMU's.

    .venv/bin/python -m bench.fast_profile [--json FILE] [KERNEL ...]

Owns booting kernels of the catalogue's cache with the whole profile, and once without each of its
words and initcalls. A deterministic boot has one count of each thing, so one boot each is enough,
on any machine and under any load: of guest instructions; of blocks of code that QEMU translated,
which is more than half of its work, for a kernel runs most of its code once (a block costs as much
as some ten thousand instructions); of how often QEMU forgot its TLB. The blocks of two boots differ
by up to 0.6 % for nothing but timers that tick elsewhere. A word that saves nothing on any kernel
has no place in the profile.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest import mock

from bench import numbers
from bootproof.harness.arch.profiles import PROFILES
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.inputs.images import catalogue_file
from bootproof.harness.prove import prove
from bootproof.harness.qemu.session import Session
from bootproof.loader.address import MIB

_LIST: Final = "initcall_blacklist="
_KERNELS: Final = (
    *("6.1-cloud-amd64", "6.12-cloud-amd64", "newest-cloud-amd64"),
    *("6.1-cloud-arm64", "6.12-cloud-arm64", "newest-cloud-arm64"),
    *("6.12-riscv64", "newest-riscv64"),
)
_REQUESTS: Final = {
    "x86_64": ("elf", "linux64", None),
    "aarch64": ("image", "auto", ARCHES["aarch64"].ram_base() + 2 * MIB),
    "riscv64": ("image", "auto", ARCHES["riscv64"].ram_base() + 2 * MIB),
}
TRANSLATED: Final = re.compile(r"TB count +(\d+).*TLB partial flushes +(\d+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a boot took. QEMU's part is None where it ended with its guest."""

    instructions: int
    blocks: int | None
    flushes: int | None

    def __str__(self) -> str:
        translated = f"{self.blocks} blocks, {self.flushes} TLB flushes"
        return f"{self.instructions:,} instructions, {translated}"


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


def asked(said: list[str]) -> AbstractContextManager[object]:
    """While it is open, QEMU says what it translated before it is told to end."""
    tell_to_end = Session.tell_to_end

    def ask_and_tell(session: Session) -> bool:
        if not session.process.ended():
            words = {"command-line": "info jit"}
            said.append(str(session.monitor.execute("human-monitor-command", words)))
        return tell_to_end(session)

    return mock.patch.object(Session, "tell_to_end", ask_and_tell)


def cost(arch: str, kernel: str, cmdline: str) -> Cost:
    """What a boot took that proved itself. Raises RuntimeError when it did not."""
    format_, protocol, offset = _REQUESTS[arch]
    path = str(catalogue_file(kernel).path)
    case = Case(arch, kernel, format_, protocol, offset, kernel_path=path, cmdline=cmdline)
    said: list[str] = []
    with tempfile.TemporaryDirectory() as directory, asked(said):
        proven = prove(case, Path(directory) / "run")
    count = None if proven.outcome is None else proven.outcome.costs.instructions
    if proven.problem is not None or count is None:
        raise RuntimeError(f"{kernel} with {cmdline!r}: {proven.reason}")
    translated = TRANSLATED.search("".join(said))
    return Cost(count, *(map(int, translated.groups()) if translated else (None, None)))


def _saved(without: int | None, whole: int | None, *, share: bool = True) -> str:
    if without is None or whole is None:
        return f"{'-':>12}" + " " * 8 * share
    saved = f"{without - whole:12,}"
    return f"{saved} {100 * (without - whole) / whole:5.1f} %" if share else saved


def measure(kernel: str) -> dict[str, Cost]:
    """Prints the kernel's table, and returns what is in it, by what was left out."""
    arch = catalogue_file(kernel).arch
    default, fast = (ARCHES[arch].command_line(profile) for profile in PROFILES)
    plain, whole = cost(arch, kernel, default), cost(arch, kernel, fast)
    print(f"{kernel}: {whole}; with the default profile {plain}")
    print(f"  {'without':32} {'instructions':>20} {'blocks':>20} {'TLB flushes':>12}")
    costs = {"default profile": plain, "fast profile": whole}
    for word, others in without_each(ARCHES[arch].fast):
        costs[word] = without = cost(arch, kernel, f"{default} {others}")
        instructions = _saved(without.instructions, whole.instructions)
        blocks = _saved(without.blocks, whole.blocks)
        flushes = _saved(without.flushes, whole.flushes, share=False)
        print(f"  {word:32} {instructions} {blocks} {flushes}", flush=True)
    return costs


def main() -> None:
    parser = numbers.parser(__doc__)
    parser.add_argument("kernels", nargs="*", default=_KERNELS, metavar="KERNEL")
    arguments = parser.parse_args()
    numbers.write(arguments.json, {kernel: measure(kernel) for kernel in arguments.kernels})


if __name__ == "__main__":
    main()
