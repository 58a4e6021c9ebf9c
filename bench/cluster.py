"""What a cluster adds to a case: many cases that boot nothing, on a scheduler on this machine.

    .venv/bin/python -m bench.cluster [--cases 100 1000 10000] [--workers 2] [--json FILE]

Owns starting a scheduler and workers of dask.distributed in processes of their own, and handing
them cases as a matrix does: what they are made of is read here, as many are under way as workers
have threads, and a run directory of the real size comes back and is written. In place of the boot
is nothing. Prints wall time and CPU time for each case, by process, and the memory of this one.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import psutil
import zstandard

from bench import numbers
from bootproof.dataclass import dataclass
from bootproof.harness import typedjson
from bootproof.harness.case import Case
from bootproof.harness.inputs import images
from bootproof.harness.prove import prove
from bootproof.harness.suite.case_result import case_result
from bootproof.harness.suite.cluster import client, task
from bootproof.harness.suite.cluster.luggage import Packed
from bootproof.harness.suite.cluster.work import Done, Job
from bootproof.loader.address import MIB

_RETURNED: Final = 64 << 10  # bytes: what a passed case sends back without its RAM
_BUSYBOX: Final = 2 * MIB  # as Debian's
_THREADS: Final = 4  # of a worker
_SECONDS: Final = 120  # to start in


def nothing(result: Mapping[str, Any], _job: Job) -> tuple[str, Done]:
    """A case that costs nothing and returns as much as one that passed."""
    data = zstandard.ZstdCompressor(level=1).compress(os.urandom(_RETURNED))
    return "worker", Done(result, {"console.log": Packed(0o600, _RETURNED, {0: data})})


@contextlib.contextmanager
def site(workers: int, directory: Path) -> Iterator[tuple[str, list[psutil.Process]]]:
    """A scheduler and so many workers: its address, and their processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    lines = [["scheduler", "--host=127.0.0.1", f"--port={port}", "--no-show"]]
    lines += [["worker", address, f"--nthreads={_THREADS}", "--no-nanny"]] * workers
    with contextlib.ExitStack() as stack:
        processes = []
        for name, *words in lines:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{name}", *words, "--no-dashboard"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "BOOTPROOF_CACHE": str(directory), "TMPDIR": str(directory)},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(psutil.Process(process.pid))
        _wait_for(address, workers)
        yield address, processes


def _wait_for(address: str, workers: int) -> None:
    import distributed

    connect: Any = distributed.Client
    with connect(address, timeout=_SECONDS, set_as_default=False) as connection:
        connection.wait_for_workers(workers, timeout=_SECONDS)


@dataclass(frozen=True, slots=True)
class Row:
    """What so many cases took."""

    count: int
    # Of wall time.
    seconds: float
    # Of CPU time: of this process, the scheduler, and all workers.
    cpu_seconds: tuple[float, float, float]
    # The most bytes of this process.
    memory: int


def measure(
    cluster: client.Cluster, processes: Sequence[psutil.Process], kernel: Path, count: int
) -> Row:
    """Takes so many cases of one kernel through the cluster."""
    made = (Case("x86_64", f"k{n}", "file", "auto", kernel_path=str(kernel)) for n in range(count))
    began, before, most = time.monotonic(), _used(processes), 0
    with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor(cluster.slots) as pool:
        boot = functools.partial(cluster.boot, reproduce="", keep_ram=False)
        for done in pool.map(boot, made, (Path(out, str(n)) for n in range(count))):
            shutil.rmtree(done.directory)
            most = max(most, psutil.Process().memory_info().rss)
    seconds, used = time.monotonic() - began, _used(processes)
    here, scheduler, *workers = (after - b for after, b in zip(used, before, strict=True))
    return Row(count, seconds, (here, scheduler, sum(workers)), most)


def _used(processes: Sequence[psutil.Process]) -> list[float]:
    """CPU seconds of this process and of each of the others."""
    return [sum(each.cpu_times()[:2]) for each in (psutil.Process(), *processes)]


def show(row: Row) -> None:
    wall, *cpu = (1000 * each / row.count for each in (row.seconds, *row.cpu_seconds))
    here, scheduler, workers = cpu
    print(
        f"{row.count:6} cases: {wall:6.2f} ms each; CPU: {here:5.2f} ms here, {scheduler:5.2f} ms"
        f" scheduler, {workers:5.2f} ms workers; {row.memory / MIB:5.0f} MiB here",
        flush=True,
    )


def main() -> None:
    parser = numbers.parser(__doc__)
    parser.add_argument("--cases", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    images.busybox = lambda arch: os.urandom(_BUSYBOX)  # type: ignore[assignment]  # not fetched
    with tempfile.TemporaryDirectory() as place:
        kernel = Path(place, "vmlinux")
        kernel.write_bytes(b"no kernel")
        case = Case("x86_64", "k", "file", "auto", kernel_path=str(kernel))
        result = typedjson.to_json(case_result(prove(case, Path(place, "run")), ""))
        task.run = functools.partial(nothing, result)
        with site(arguments.workers, Path(place)) as (address, processes):
            cluster = client.connect(address, {})
            measure(cluster, processes, kernel, 10)  # imports
            rows = []
            for count in arguments.cases:
                rows.append(measure(cluster, processes, kernel, count))
                show(rows[-1])
            cluster.close()
    numbers.write(arguments.json, rows)


if __name__ == "__main__":
    main()
