"""What a case more costs: matrices of 10, 100 and 1,000 cheap cases.

    .venv/bin/python -m bench.growth [--cases 10 100 1000] [--rounds 3] [--page 2000] [--json FILE]

Owns running `bootproof matrix` on cases that are refused (each loads, and is judged and reported as
any), and measuring from outside: the time from the first case's line to the last one's, CPU time of
it all, the most memory of the matrix's process, and the sizes of results.json and report.html.
Sizes take turns, so that a busy host disturbs all alike; medians. From CPU time, memory and sizes
those of a matrix of one case are taken off, so that what is shown is a case's own; CPU time only
of matrices that last longer than a start of Python varies by. All are shares of the largest size's,
which is measured best. At the end, how long a page of 2,000 cases takes to open (bench/page.py).
"""

from __future__ import annotations

import os
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bench import numbers, page
from bootproof.harness.case import Case, Expectation
from bootproof.harness.results.results import RESULTS
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests import ROOT
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, bootproof_matrix, environment, vmlinux

_LINE: Final = re.compile(rb"\[ *\d+/\d+\]")
_ALONE: Final = 1
_FEW, _MORE = 100, 5  # so few cases cost less than a start of Python varies by
_OFFSET: Final = MIB  # no multiple of 2 MiB: refused


@dataclass(frozen=True, slots=True)
class Cost:
    """What one matrix took: seconds, and bytes; `lines` is from its first case's to its last's."""

    lines: float
    cpu: float
    memory: int
    results: int
    report: int


def measure(count: int, directory: Path) -> Cost:
    """Runs a matrix of so many cases. Raises CalledProcessError when one is not as expected."""
    kernel = directory / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    refused = Expectation(Verdict.LOAD_REFUSED, why="bench")
    cases = [
        Case(
            *("x86_64", f"k{number}", "elf", "linux64", _OFFSET),
            memory=32 * MIB,
            kernel_path=str(kernel),
            expect=refused,
        )
        for number in range(count)
    ]
    words = bootproof_matrix(directory, cases, jobs=2, lines=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(words, cwd=ROOT, env=environment(directory), stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = [time.monotonic() for line in process.stdout if _LINE.match(line)]
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words[:4])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    out = directory / "out"
    sizes = ((out / name).stat().st_size for name in (RESULTS, "report.html"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(told[-1] - told[0], cpu, used.ru_maxrss << 10, *sizes)


def medians(costs: Sequence[Cost]) -> Cost:
    values: Mapping[str, list[float]] = {
        name: [asdict(cost)[name] for cost in costs] for name in Cost.__slots__
    }
    lines, cpu, *sizes = (statistics.median(each) for each in values.values())
    return Cost(lines, cpu, *map(int, sizes))


def curve(counts: Sequence[int], rounds: int) -> dict[int, Cost]:
    """The median costs by the number of cases, that of one case among them."""
    sizes = (_ALONE, *counts)
    found: dict[int, list[Cost]] = {count: [] for count in sizes}
    for number in range(rounds):
        for count in sizes:
            for _ in range(1 if count > _FEW else _MORE):
                with tempfile.TemporaryDirectory() as name:
                    found[count].append(measure(count, Path(name)))
        print(f"round {number + 1} of {rounds}", flush=True)
    return {count: medians(costs) for count, costs in found.items()}


def show(costs: Mapping[int, Cost]) -> None:
    """A line for each size: what a case has of its own there, as a share of the largest size's."""
    base = costs[_ALONE]
    own = {
        count: {
            name: (asdict(cost)[name] - asdict(base)[name]) / (count - _ALONE)
            for name in Cost.__slots__
        }
        for count, cost in costs.items()
        if count != _ALONE
    }
    size, most = max(own.items())
    print(f"what a case takes, by how many there are: shares of what it is at {size}")
    for count, each in own.items():
        names = ("lines", *(("cpu",) if count >= _FEW else ()), "results", "report")
        shares = {name: each[name] / most[name] for name in names}
        text = "   ".join(f"{name} {share:5.2f}" for name, share in shares.items())
        memory = costs[count].memory / base.memory
        kept = each["memory"] / 1024
        print(f"  {count:5} cases: {text}   memory {memory:.2f} of one case's, {kept:.0f} KiB each")


def main() -> None:
    parser = numbers.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--page", type=int, default=2000, help="0: no page is opened")
    arguments = parser.parse_args()
    costs = curve(arguments.cases, arguments.rounds)
    show(costs)
    opened = page.opened(arguments.page) if arguments.page else None
    if opened is not None:
        print(opened)
    numbers.write(arguments.json, {"cases": costs, "page": opened})


if __name__ == "__main__":
    main()
