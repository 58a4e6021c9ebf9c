"""How fast a kernel gets into guest memory, next to what copying its bytes costs anyway.

    .venv/bin/python -m bench.load [--rounds N] [--directory DIR] [--json FILE]

Owns measuring loads of real kernels from the catalogue's cache. In each round, one after the other
and each into a new file (or buffer): the load into a file-backed guest memory, `cp` of the same
bytes into a file of the same file system, and a copy of them from memory to memory. The page cache
is hot. What is printed are ratios of medians: to `cp` as a command ("x cp"), to `cp` less what it
needs for an empty file ("x net"), and to the copy in memory ("x copy"). Peak memory is that of
another process, over what it needs before the load. Wall time: nothing here sleeps.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import numbers
from bootproof.harness.inputs.images import in_format, kernel_file
from bootproof.loader import BzImage, Elf, GuestMemory, Pe
from bootproof.loader.address import GIB, MIB

TARGET: Final = 1.3  # times cp
MEMORY_TARGET: Final = 40 * MIB

Loader = Elf | BzImage | Pe


@dataclass(frozen=True, slots=True)
class Subject:
    """A kernel of the catalogue in one format, and the guest memory that it goes into."""

    name: str
    format: str
    loader: Loader
    bank: tuple[int, int]
    offset: int | None = None

    @property
    def path(self) -> Path:
        return in_format(kernel_file(self.name), self.format).path


SUBJECTS: Final = (
    Subject("newest-cloud-amd64", "elf", Elf(), (0, GIB)),
    Subject("newest-cloud-amd64", "bzimage", BzImage(), (0, GIB)),
    Subject("newest-cloud-arm64", "image", Pe(), (GIB, GIB), GIB + 2 * MIB),
)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds (host wall), median over the rounds; `start` is what `cp` of an empty file takes."""

    load: float
    cp: float
    start: float
    memory: float


def measure(subject: Subject, directory: Path, rounds: int) -> Times:
    """Takes them all in turn, `rounds` times, after one round that does not count."""
    source = subject.path
    content = source.read_bytes()
    buffer = memoryview(bytearray(content))  # faulted in
    ram, copy, empty = directory / "ram.img", directory / "copy", directory / "empty"
    empty.touch()
    memory_: list[GuestMemory] = []

    def load() -> None:
        memory_.append(GuestMemory([subject.bank], path=ram))
        subject.loader.load(memory_[0], source, kernel_offset=subject.offset)

    def cp() -> None:
        subprocess.run(["cp", "--", source, copy], check=True)

    def start() -> None:
        subprocess.run(["cp", "--", empty, directory / "copy of nothing"], check=True)

    def move() -> None:
        buffer[:] = content

    taken: dict[Callable[[], None], list[float]] = {load: [], cp: [], start: [], move: []}
    for _ in range(rounds + 1):
        for action, times in taken.items():
            started = time.perf_counter()
            action()
            times.append(time.perf_counter() - started)
        memory_.pop().close()
        ram.unlink()
        copy.unlink()
    return Times(*(statistics.median(times[1:]) for times in taken.values()))


_PEAK = """
import sys
from bootproof.loader import *
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
loader, path, base, size, offset, ram = sys.argv[1:]
before = peak()
with GuestMemory([(int(base), int(size))], path=__import__("pathlib").Path(ram)) as memory:
    globals()[loader]().load(memory, path, kernel_offset=eval(offset))
print((peak() - before) * 1024)
"""


def peak_memory(subject: Subject, directory: Path) -> int:
    """Bytes of resident memory that a process has more at its peak than before the load."""
    ram = directory / "ram.img"
    loader, (base, size) = type(subject.loader).__name__, subject.bank
    arguments = [loader, subject.path, base, size, subject.offset, ram]
    command = [sys.executable, "-c", _PEAK, *map(str, arguments)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    ram.unlink()
    return int(run.stdout)


def main() -> int:
    """Prints the table; 0 when every kernel meets the targets, else 1."""
    parser = numbers.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--directory", help="where the files are made (default: a temporary one)")
    arguments = parser.parse_args()
    met = True
    rows: list[dict[str, object]] = []
    print(f"{'kernel':20} {'format':8} {'MiB':>6} {'x cp':>6} {'x net':>6} {'x copy':>7}", end="")
    print(f" {'ms':>7} {'peak MiB':>9}")
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        for subject in SUBJECTS:
            times = measure(subject, Path(name), arguments.rounds)
            peak = peak_memory(subject, Path(name))
            rows.append({"kernel": subject.name, "format": subject.format, "seconds": times})
            rows[-1]["peak"] = peak
            met = met and times.load <= TARGET * times.cp and peak <= MEMORY_TARGET
            print(
                f"{subject.name:20} {subject.format:8} {subject.path.stat().st_size / MIB:6.1f}"
                f" {times.load / times.cp:6.2f} {times.load / (times.cp - times.start):6.2f}"
                f" {times.load / times.memory:7.2f}"
                f" {times.load * 1000:7.1f} {peak / MIB:9.1f}"
            )
    print(
        f"targets (at most {TARGET} x cp, {MEMORY_TARGET // MIB} MiB):", "met" if met else "missed"
    )
    numbers.write(arguments.json, rows)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
