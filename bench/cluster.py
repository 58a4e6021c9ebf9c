"""What a scheduler adds to a case: many cases that do nothing, through a cluster on this machine.

    .venv/bin/python -m bench.cluster [--cases 100 1000 10000] [--workers 2]

Owns starting a scheduler and workers of dask.distributed in processes of their own, and sending
them jobs of the real size (a case, and a result with its files) that boot nothing. Prints wall time
for each case and the memory of this process, by the number of cases.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any, Final

import distributed
import psutil

from bootproof.harness.case import Case
from bootproof.harness.suite.cluster.luggage import Packed
from bootproof.harness.suite.cluster.work import Done, Job
from bootproof.loader.address import MIB

_RETURNED: Final = 64 << 10  # bytes: what a passed case sends back without its RAM


def nothing(_job: Job) -> Done:
    """A case that costs nothing and returns as much as one that passed."""
    return Done({}, {"console.log": Packed(0o600, _RETURNED, {0: os.urandom(_RETURNED)})})


def measure(client: Any, count: int) -> tuple[float, int]:
    """Seconds of wall time for so many cases, and the most memory of this process in bytes."""
    digest = "0" * 64
    files: dict[str, Any] = {"kernel": digest, "initrd": digest, "dtb": None}
    others: dict[str, Any] = {"kernel_name": "k", "has_init": False, "keep_ram": False}
    began = time.monotonic()
    waiting = {
        client.submit(nothing, Job(case=case, **files, **others, reproduce=""), pure=False)
        for case in (Case("x86_64", f"k{n}", "elf", "linux64") for n in range(count))
    }
    most = 0
    for future in distributed.as_completed(waiting):  # type: ignore[no-untyped-call]
        future.result()
        future.release()
        waiting.discard(future)
        most = max(most, psutil.Process().memory_info().rss)
    return time.monotonic() - began, most


def show(rows: Sequence[tuple[int, float, int]]) -> None:
    """Each count, and its time for one case as a share of the first's."""
    first = rows[0][1] / rows[0][0]
    for count, seconds, memory in rows:
        each = seconds / count
        print(
            f"{count:6} cases: {1000 * each:6.2f} ms each ({each / first:.2f} of the first),"
            f" {memory / MIB:5.0f} MiB here"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    settings: dict[str, Any] = {"dashboard_address": None, "processes": True}
    start: Any = distributed.LocalCluster
    connect: Any = distributed.Client
    with (
        start(n_workers=arguments.workers, threads_per_worker=1, **settings) as cluster,
        connect(cluster) as client,
    ):
        measure(client, 10)  # imports
        show([(count, *measure(client, count)) for count in arguments.cases])


if __name__ == "__main__":
    main()
