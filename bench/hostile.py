"""What it costs to refuse each structural lie: CPU time of this process, and memory.

    .venv/bin/python -m bench.hostile [--json FILE]

Owns measuring; the lies are in tests/builders/hostile.py, and tests/loader/test_hostile_cost.py
asserts bounds on them. The bounds of the loader are 50 ms and 64 MiB on an idle machine.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from typing import Final

from bench import numbers
from bootproof.loader import GuestMemory, LoaderError
from bootproof.loader.address import MIB
from tests.builders.hostile import RAM, Lie, lies

ROUNDS: Final = 5


def cpu_seconds(memory: GuestMemory, lie: Lie) -> float:
    """CPU seconds that refusing `lie` takes, user and system."""
    started = time.process_time()
    refuse(memory, lie)
    return time.process_time() - started


def peak_memory(memory: GuestMemory, lie: Lie) -> int:
    """The most bytes that refusing `lie` has allocated at once, its own content not counted."""
    tracemalloc.start()
    try:
        refuse(memory, lie)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refuse(memory: GuestMemory, lie: Lie) -> None:
    """Has `lie` refused. Raises AssertionError when it is not, or with another error."""
    code = "none"
    try:
        lie.look(memory, lie.content)
    except LoaderError as error:
        code = error.code
        nowhere = error.file is None or error.field is None or error.value is None
        assert not nowhere, f"{lie.name}: the error does not say where: {error!r}"
    assert code == lie.code, f"{lie.name}: {code} instead of {lie.code}"


def main() -> None:
    arguments = numbers.parser(__doc__).parse_args()
    print(f"{'lie':50} {'file':>10} {'CPU ms':>8} {'MiB':>6}  refused with")
    rows = []
    with GuestMemory([(0, RAM)]) as memory:
        for lie in lies():
            times = [cpu_seconds(memory, lie) for _ in range(ROUNDS)]
            peak, size = peak_memory(memory, lie), len(lie.content)
            rows.append({"lie": lie.name, "cpu_seconds": times, "peak": peak, "size": size})
            cpu = statistics.median(times)
            print(f"{lie.name:50} {size:10} {cpu * 1000:8.1f} {peak / MIB:6.1f}  {lie.code}")
    numbers.write(arguments.json, rows)


if __name__ == "__main__":
    main()
