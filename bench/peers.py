"""What a verdict costs beside a public peer: virtme-ng on the same kernel, a panic included.

    apt-get download linux-image-6.1.0-56-amd64            # any, with its modules and 9p
    .venv/bin/python -m bench.peers PACKAGE.deb [--vng vng] [--rounds 5] [--json FILE]

Owns starting each program as its users do, from the kernel to its exit code, in real QEMU without
KVM, with one CPU and 512 MiB: once where the kernel boots, and once where it panics in userspace.
They take turns; CPU time is that of the program and its QEMU, all given as shares of what
`bootproof boot` takes for the kernel that boots. What the exit codes say stands beside; any other
one than a program has for such an end is an error, since what did not run takes no time. virtme-ng
(PyPI, Debian; all of it in PATH) needs kmod, a static busybox, and udev for a script's exit code.
tuxrun is not here: without containers it needs LAVA's dispatcher.
"""

from __future__ import annotations

import os
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

_BOOT: Final = (sys.executable, "-P", "-m", "bootproof.harness.cli", "boot")
_PANIC: Final = "echo c > /proc/sysrq-trigger"
_ENDS: Final = {"boots": "true", "panics": _PANIC}  # what userspace does
_CODES: Final = {"bootproof": {"boots": 0, "panics": 1}, "virtme-ng": {"boots": 0, "panics": 255}}
_SECONDS: Final = 900  # a peer that never ends


@dataclass(frozen=True, slots=True)
class Took:
    """One run: seconds of CPU and wall time, and the exit code."""

    cpu: float
    wall: float
    code: int


def commands(package: Path, vng: str, directory: Path) -> dict[str, list[str]]:
    """By "program, end"."""
    subprocess.run(["dpkg", "-x", package, directory / "kernel"], check=True)
    (kernel,) = (directory / "kernel" / "boot").glob("vmlinuz-*")
    machine = ["--disable-kvm", "--force-9p", "--cpus", "1", "--memory", "512M"]
    out = ["--out", str(directory / "run")]
    found = {}
    for end, script in _ENDS.items():
        test = ["--test", script] if script == _PANIC else []
        for profile in ("default", "fast"):
            words = [*_BOOT, str(package), "--profile", profile, *test, *out]
            found[f"bootproof, {profile}: {end}"] = words
        found[f"virtme-ng: {end}"] = [vng, "-r", str(kernel), *machine, "--", script]
    return found


def run(name: str, command: Sequence[str]) -> Took:
    """Starts a command and waits for its end. Raises TimeoutExpired; SystemExit where it did not
    come to what it is measured for.
    """
    before, began = os.times(), time.monotonic()
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS
    )
    after = os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    program, _, end = name.partition(": ")
    if done.returncode != (expected := _CODES[program.partition(",")[0]][end]):
        said = (done.stderr or done.stdout).decode(errors="replace").strip().rpartition("\n")[2]
        sys.exit(f"{name}: exit code {done.returncode}, not {expected}: {said}")
    return Took(cpu, time.monotonic() - began, done.returncode)


def show(took: Mapping[str, Sequence[Took]]) -> None:
    first = next(iter(took.values()))
    cpu, wall = (statistics.median(getattr(each, name) for each in first) for name in _COLUMNS)
    print("shares of the first line's median (lowest to highest); exit codes")
    for name, runs in took.items():
        shares = []
        for column, whole in zip(_COLUMNS, (cpu, wall), strict=True):
            each = sorted(getattr(one, column) / whole for one in runs)
            middle = statistics.median(each)
            shares.append(f"{column} {middle:5.2f} ({each[0]:.2f} to {each[-1]:.2f})")
        codes = ", ".join(map(str, sorted({one.code for one in runs})))
        print(f"  {name:28} {'   '.join(shares)}   {codes}", flush=True)


_COLUMNS: Final = ("cpu", "wall")


def main() -> None:
    parser = numbers.parser(__doc__)
    parser.add_argument("package", type=Path, metavar="PACKAGE.deb")
    parser.add_argument("--vng", default="vng", help="virtme-ng's program (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    version = subprocess.run(
        [arguments.vng, "--version"], capture_output=True, text=True, check=True
    )
    print(f"{version.stdout.strip()}; {arguments.package.name}")
    with tempfile.TemporaryDirectory() as directory:
        tried = commands(arguments.package.absolute(), arguments.vng, Path(directory))
        for name, command in tried.items():  # caches are warm before anything counts
            run(name, command)
        took: dict[str, list[Took]] = {name: [] for name in tried}
        for _ in range(arguments.rounds):
            for each, command in tried.items():
                took[each].append(run(each, command))
    show(took)
    numbers.write(arguments.json, took)


if __name__ == "__main__":
    main()
