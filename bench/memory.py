"""How much memory the harness needs with many cases in flight, QEMU and guest RAM left out.

    .venv/bin/python -m bench.memory [--cases 1 4 16] [--kernel 6.1-cloud-amd64] [--json FILE]

Owns measuring `bootproof matrix -n N` on N cases of a real kernel from the catalogue's cache. What
is printed is the largest sum seen of the proportional set sizes (PSS) of all processes of the
harness, and what each further case adds. Sampled ten times a second from outside.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench import numbers
from bootproof.harness.case import Case
from bootproof.harness.cases import case_file
from bootproof.harness.inputs.images import catalogue_file
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
from bootproof.loader.address import MIB

TARGET = 150 * MIB  # for 16 cases

MATRIX = """
import sys
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
selection = matrix.Selection(MatrixOptions())
sys.exit(matrix._pytest(sys.argv[1:], selection))
"""


def harness_memory(pid: int) -> tuple[int, int]:
    """Bytes of all processes of the harness below `pid`, and how many QEMUs there are.

    A child that is not its program yet has its parent's memory, all of it (vfork(2)): not counted.
    """
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    size, qemus, lines = 0, 0, {}
    for each in family:
        try:
            lines[each.pid] = each.cmdline()
            if each.name().startswith("qemu-system"):
                qemus += 1
            elif lines[each.pid] != lines.get(each.ppid()):
                size += each.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return size, qemus


def measure(count: int, kernel: str) -> tuple[int, int]:
    """The most memory with `count` cases in flight, and the most QEMUs that ran at once."""
    path = str(catalogue_file(kernel).path)
    cases = [
        Case("x86_64", f"{kernel}-{n}", "elf", "linux64", kernel_path=path) for n in range(count)
    ]
    most, at_once = 0, 0
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / f"bench{case_file.SUFFIX}"
        case_file.write_cases(file, cases)
        options = MatrixOptions(Path(directory) / "out", jobs=count)
        words = matrix.arguments(matrix.Selection(options), file)
        command = [sys.executable, "-c", MATRIX, *words]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                try:
                    size, qemus = harness_memory(process.pid)
                except psutil.Error:
                    break
                most, at_once = max(most, size), max(at_once, qemus)
                time.sleep(0.1)
    return most, at_once


def main() -> None:
    parser = numbers.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--kernel", default="6.1-cloud-amd64")
    arguments = parser.parse_args()
    first: tuple[int, int] | None = None
    rows = []
    for count in arguments.cases:
        most, at_once = measure(count, arguments.kernel)
        rows.append({"cases": count, "qemus": at_once, "bytes": most})
        each = (
            ""
            if first is None
            else f"; {(most - first[1]) / (count - first[0]) / MIB:.1f} MiB each"
        )
        print(f"cases {count:3}, QEMUs at once {at_once:3}: {most / MIB:6.1f} MiB{each}")
        first = first or (count, most)
    print(f"target: {TARGET / MIB:.0f} MiB for 16 cases")
    numbers.write(arguments.json, rows)


if __name__ == "__main__":
    main()
