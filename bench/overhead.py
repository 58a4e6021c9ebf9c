"""What bootproof takes beside the guest, in Pythons that start and do nothing.

    .venv/bin/python -m bench.overhead [--rounds 20] [--json FILE] [KERNEL]

Owns timing whole commands that boot nothing (help, boots that are refused: no such file, no kernel,
a KERNEL that finds no room; the check of a boot image, shell completion), and a case of KERNEL, one
of many of a process, without what QEMU takes. All of them take turns with `python -c pass`, whose
median is the yardstick, so that a busy host disturbs all alike.

CPU time is user and system time: of a command and all that it started; of a case, what the harness
uses from its first to its last step, also beside a QEMU that runs. The wall time of a case is what
lies outside of QEMU's life.
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
from bootproof.harness.case import Case
from bootproof.harness.cases.from_kernel import case_of
from bootproof.harness.exitcode import OK, USAGE
from bootproof.harness.prove import prove

_PYTHON: Final = (sys.executable, "-P")
_BOOTPROOF: Final = (*_PYTHON, "-m", "bootproof.harness.cli")
_YARDSTICK: Final = "python -c pass"
_CASE: Final = "a case, without QEMU"


@dataclass(frozen=True, slots=True)
class Took:
    """What a command, or a case, took once, in seconds."""

    cpu: float
    wall: float


def commands(kernel: str, directory: Path) -> Mapping[str, tuple[int, tuple[str, ...]]]:
    """The exit code and the words of each command, by what it stands for; the yardstick first."""
    text, image = directory / "text", directory / "image"
    text.write_text("no kernel\n")
    subprocess.run([*_BOOTPROOF, "image", kernel, "--out", image], check=True, capture_output=True)
    small = ("--memory", "16M", "--out", str(directory / "run"))
    return {
        _YARDSTICK: (OK, (*_PYTHON, "-c", "pass")),
        "--help": (OK, (*_BOOTPROOF, "--help")),
        "boot, no such file": (USAGE, (*_BOOTPROOF, "boot", str(directory / "none"))),
        "boot, no kernel": (USAGE, (*_BOOTPROOF, "boot", str(text))),
        "boot, no room for the kernel": (USAGE, (*_BOOTPROOF, "boot", kernel, *small)),
        "check": (OK, (*_BOOTPROOF, "check", str(image))),
        "completion bash": (OK, (*_BOOTPROOF, "completion", "bash")),
    }


def took(words: Sequence[str], code: int) -> Took:
    """What a command takes. Raises ChildProcessError when it ends with another exit code."""
    began = time.monotonic()
    null = subprocess.DEVNULL
    child = subprocess.Popen(words, stdin=null, stdout=null, stderr=null)
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != code:
        raise ChildProcessError(f"{' '.join(words)}: exit code {child.returncode}, not {code}")
    return Took(usage.ru_utime + usage.ru_stime, wall)


def took_case(case: Case, directory: Path) -> Took:
    """What a case takes beside QEMU. Raises ChildProcessError when it does not boot."""
    began = time.process_time()
    proven = prove(case, directory)
    if proven.outcome is None or not proven.verdict.passed:
        raise ChildProcessError(f"{case.id}: {proven.verdict.value}: {proven.reason}")
    wall = proven.host_seconds - proven.outcome.costs.qemu_seconds
    return Took(time.process_time() - began, wall)


def measure(kernel: str, rounds: int) -> Mapping[str, Sequence[Took]]:
    """What each took, in each round; one that is not counted comes before them."""
    case = case_of(kernel, {"profile": "fast"}, "boot")
    with tempfile.TemporaryDirectory() as name:
        all_of_them = commands(kernel, Path(name))
        turns = []
        for _ in range(rounds + 1):
            turn = {what: took(words, code) for what, (code, words) in all_of_them.items()}
            turns.append(turn | {_CASE: took_case(case, Path(name) / "case")})
    return {what: [turn[what] for turn in turns[1:]] for what in turns[0]}


def show(rows: Mapping[str, Sequence[Took]]) -> None:
    """Prints medians as multiples of the yardstick's, with the lowest and highest."""
    print(f"{'':30} CPU time                 wall time")
    for what, each in rows.items():
        cpu = _multiples([one.cpu for one in each], [one.cpu for one in rows[_YARDSTICK]])
        wall = _multiples([one.wall for one in each], [one.wall for one in rows[_YARDSTICK]])
        print(f"  {what:28} {cpu}   {wall}", flush=True)


def _multiples(seconds: Sequence[float], of: Sequence[float]) -> str:
    unit = statistics.median(of)
    median, low, high = statistics.median(seconds), min(seconds), max(seconds)
    return f"{median / unit:5.1f}   ({low / unit:4.1f} to {high / unit:4.1f})"


def main() -> None:
    parser = numbers.parser(__doc__)
    parser.add_argument("kernel", nargs="?", metavar="KERNEL", default="6.1-cloud-amd64")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    rows = measure(arguments.kernel, arguments.rounds)
    show(rows)
    numbers.write(arguments.json, rows)


if __name__ == "__main__":
    main()
