"""How well `bootproof matrix -n 2` keeps two CPUs busy with guests, and where it does not.

    .venv/bin/python -m bench.matrix [--before ../DIR] [-n 2] [-k EXPR] [--json FILE]

Owns running the default matrix, or what -k picks of it, and looking at its processes from outside,
ten times a second. What is shared out is the time of N CPUs from the start of the first QEMU to the
end of the last: the CPU time of QEMUs (with that of the small program that starts each), of the
matrix itself, of what else its test functions start, and what is left. Of what is left, how much
went by while fewer QEMUs than N were there (the harness between two boots, a test function that
boots nothing, the tail), and how much beside N of them (guests that wait in real time, QEMUs that
stand until it is their turn, and whatever else this machine does: best nothing). The sum of all CPU
time is exact; what a single QEMU used is known up to the last look at it.

With --before another checkout, set up with its own .venv, and this one run the very same cases and
test functions as well, one after the other: those that both list under the same id. Whatever only
one of them has is left out of both. Our wall time and the CPU time of our QEMUs are given as shares
of the other's, whose output goes to a temporary directory as ours does.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Final

from bench import numbers
from bootproof.harness.results.results import RESULTS
from bootproof.loader.address import counted
from tests import ROOT

TARGET: Final = 1.85  # of 2 CPUs
_LOOK_SECONDS: Final = 0.1
_LINE: Final = re.compile(r"\[ *\d+/\d+\] (?P<rest>.*)")
_TEST: Final = "::"  # in the name of a test function, and of no case
_ID: Final = re.compile(r"  (\S+)  +\S|(?:.*/)?\S+\.py::(\S+)$")
_QEMU: Final = "qemu-system"
_OURS: Final = (ROOT / "bootproof", "matrix")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Process:
    """One below the matrix, as of the last look: seconds since the machine was started."""

    qemu: bool = False
    directory: str = ""  # its name
    began: float = 0.0
    seen: float = 0.0
    cpu: float = 0.0


@dataclass(slots=True)
class Look:
    """What there was at one time."""

    at: float
    qemus: int
    cpu: float  # of all processes there, the matrix's own and what it has reaped


@dataclass(slots=True)
class Watched:
    """A matrix while it runs."""

    root: int
    processes: dict[tuple[int, float], Process] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    own: float = 0.0

    def look(self) -> None:
        """Adds what there is now. Raises OSError when the matrix is gone."""
        now, qemus = time.clock_gettime(time.CLOCK_BOOTTIME), 0
        _, self.own, reaped, _ = _stat(self.root)
        cpu = self.own + reaped
        for pid in _below(self.root):
            with contextlib.suppress(OSError):  # it has just ended
                name, used, its_reaped, began = _stat(pid)
                cpu += used + its_reaped
                known = self.processes.setdefault((pid, began), Process(began=began))
                known.seen, known.cpu = now, used
                if name.startswith(_QEMU):
                    qemus += 1
                    known.qemu = True
                    known.directory = known.directory or Path(f"/proc/{pid}/cwd").readlink().name
        self.looks.append(Look(now, qemus, cpu))


def _stat(pid: int) -> tuple[str, float, float, float]:
    """Name, CPU seconds, those of children that were reaped, and start (proc(5), stat)."""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")
    words = rest.split()
    user, system, reaped_user, reaped_system = (int(word) / _TICKS for word in words[11:15])
    return (
        name.partition("(")[2],
        user + system,
        reaped_user + reaped_system,
        int(words[19]) / _TICKS,
    )


def _below(pid: int) -> Iterator[int]:
    """All processes that a process has started, and these have; a QEMU starts none."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                yield child
                yield from _below(child)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a matrix took: seconds. `span` is from the first QEMU to the last, the rest is in it."""

    jobs: int
    span: float
    qemu: float  # CPU time of all QEMUs
    of_cases: float  # of which those of cases
    own: float  # CPU time of the matrix itself, before and after as well
    others: float  # and of what else was started
    too_few: float  # CPU time that nobody used while there were fewer QEMUs than jobs
    tail: float  # of which after the last time that there were enough
    wall: float = 0.0  # of the whole command
    tests: float = 0.0  # wall time until the last test function had ended
    ended: int = 0  # cases and test functions
    bad: int = 0  # cases that are not as expected

    @property
    def use(self) -> float:
        return self.qemu / self.span

    @property
    def waiting(self) -> float:
        """What is left: nobody used it although there were enough QEMUs."""
        used = self.qemu + self.own + self.others
        return max(0.0, self.jobs * self.span - used - self.too_few)


def run(command: Sequence[str | Path], out: Path, jobs: int) -> Cost:
    """Runs a matrix into `out`. Raises CalledProcessError when it breaks down."""
    began = time.monotonic()
    words = [*map(str, command), "-n", str(jobs), "--out", str(out)]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        watched, ends, said = Watched(process.pid), list[tuple[float, str]](), list[str]()
        assert process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, ends, said))
        reader.start()
        with contextlib.suppress(OSError):
            while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                watched.look()
                time.sleep(_LOOK_SECONDS)
        reader.join()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1) or not (out / RESULTS).exists():
        raise subprocess.CalledProcessError(process.returncode, words, "".join(said))
    wall, cpu = time.monotonic() - began, used.ru_utime + used.ru_stime
    cases = json.loads((out / RESULTS).read_bytes())["cases"]
    cost = _cost(watched, {case["case"] for case in cases}, jobs, cpu)
    tests = max((at - began for at, line in ends if _TEST in line), default=0.0)
    bad = sum(case["problem"] is not None for case in cases)
    return replace(cost, wall=wall, tests=tests, ended=len(ends), bad=bad)


def _read(lines: IO[str], ends: list[tuple[float, str]], said: list[str]) -> None:
    """When each line of a case or a test function has come, and what else was said."""
    for line in lines:
        if match := _LINE.match(line):
            ends.append((time.monotonic(), match["rest"]))
        else:
            said.append(line)


def _cost(watched: Watched, cases: set[str], jobs: int, cpu: float) -> Cost:
    """What was seen from outside, of `cpu` seconds of CPU time in all."""
    qemus = [each for each in watched.processes.values() if each.qemu]
    others = sum(each.cpu for each in watched.processes.values() if not each.qemu)
    first, last = min(each.began for each in qemus), max(each.seen for each in qemus)
    qemu = cpu - watched.own - others
    share = sum(each.cpu for each in qemus if each.directory in cases)
    looks = [look for look in watched.looks if first <= look.at <= last]
    enough = max((look.at for look in looks if look.qemus >= jobs), default=first)
    too_few = tail = 0.0
    for before, now in itertools.pairwise(looks):
        unused = jobs * (now.at - before.at) - (now.cpu - before.cpu)
        if min(before.qemus, now.qemus) < jobs:
            too_few += unused
            tail += unused if now.at > enough else 0.0
    return Cost(
        jobs=jobs,
        span=last - first,
        qemu=qemu,
        of_cases=qemu * share / sum(each.cpu for each in qemus),
        own=watched.own,
        others=others,
        too_few=too_few,
        tail=tail,
    )


def show(cost: Cost) -> None:
    """What became of the CPUs' time, as shares of it."""
    whole = cost.jobs * cost.span
    print(f"{cost.ended} cases and test functions: {cost.use:.2f} of {cost.jobs} CPUs in QEMU")
    if cost.bad:
        print(f"  {counted(cost.bad, 'case')} not as expected: what is measured is not a good run")
    rows = {
        "QEMUs": cost.qemu,
        "  of cases": cost.of_cases,
        "  of test functions": cost.qemu - cost.of_cases,
        "the matrix itself": cost.own,
        "what else test functions start": cost.others,
        f"nobody, while fewer than {cost.jobs} QEMUs ran": cost.too_few,
        "  after the last time that there were enough": cost.tail,
        "nobody, beside them": cost.waiting,
    }
    for what, seconds in rows.items():
        print(f"  {what:46} {seconds / whole:6.3f}")
    until = cost.tests / cost.wall
    print(
        f"test functions until {until:.2f} of the wall time, QEMUs for {cost.span / cost.wall:.2f}"
    )


def common(checkouts: Sequence[Path], expression: str | None) -> tuple[str, int, list[str]]:
    """What -k picks the same of all checkouts, how much that is, and what only one of them has."""
    found = [_listed(root, expression) for root in checkouts]
    both = set.intersection(*found)
    picked = " or ".join(sorted(both))
    # -k also finds names in others, and in those of files.
    more = set[str]().union(*(_listed(root, picked) for root in checkouts)) - both
    if more:  # of functions without parameters, in which -k allows few characters
        names = {name.partition("[")[0] or name for name in more}
        picked = f"({picked}) and not ({' or '.join(sorted(names))})"
    if any(_listed(root, picked) != both for root in checkouts):
        raise ValueError("-k cannot tell what both checkouts have from what one of them has")
    return picked, len(both), sorted(set.union(*found) - both)


def _listed(root: Path, expression: str | None) -> set[str]:
    """The ids of cases, as they stand in the names of tests, and the test functions of a matrix."""
    words = [] if expression is None else ["-k", expression]
    command: list[str | Path] = [root / "bootproof", "matrix", *words, "--list"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    matches = [match for line in told.splitlines() if (match := _ID.match(line))]
    return {f"[{match[1]}]" if match[1] else match[2] for match in matches}


def compare(before: Path, expression: str | None, jobs: int, out: Path) -> tuple[Cost, Cost]:
    """The costs of both checkouts, and what their cases have in common."""
    picked, count, left_out = common((ROOT, before), expression)
    print(
        f"{counted(count, 'case')} and test functions that both have; {len(left_out)} are left out"
    )
    then = run([before / "bootproof", "matrix", "-k", picked], out / "before", jobs)
    now = run([*_OURS, "-k", picked], out / "now", jobs)
    print(
        f"wall time {now.wall / then.wall:.2f} of the other's, CPU time of QEMUs"
        f" {now.qemu / then.qemu:.2f}; not as expected: {now.bad} here, {then.bad} there"
    )
    return then, now


def main() -> int:
    """Prints the shares; 0 when the target is met, else 1."""
    parser = numbers.parser(__doc__)
    parser.add_argument("--before", type=Path, metavar="DIR", help="another checkout, set up")
    parser.add_argument("-n", dest="jobs", type=int, default=2)
    parser.add_argument("-k", metavar="EXPR")
    arguments = parser.parse_args()
    costs = {}
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        words = [] if arguments.k is None else ["-k", arguments.k]
        costs["whole"] = run([*_OURS, *words], out / "whole", arguments.jobs)
        show(costs["whole"])
        if arguments.before:
            both = compare(arguments.before, arguments.k, arguments.jobs, out)
            costs["before"], costs["now"] = both
    met = costs["whole"].use >= TARGET * arguments.jobs / 2
    print(f"target ({TARGET} of 2 CPUs):", "met" if met else "missed")
    numbers.write(arguments.json, costs)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
