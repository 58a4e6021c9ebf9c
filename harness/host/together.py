"""Two boots that do not need one another, side by side.

Owns that the end of one's patience ends both of them: a thread hears of no signal.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bootproof.harness.host.process import RUNNING

T = TypeVar("T")
U = TypeVar("U")


def together(one: Callable[[], T], other: Callable[[], U]) -> tuple[T, U]:
    """What each returns, when both have ended; raises what the first of them raises."""
    with ThreadPoolExecutor(2, "boot") as threads:
        first, second = threads.submit(one), threads.submit(other)
        try:
            return first.result(), second.result()
        except KeyboardInterrupt:
            RUNNING.end()
            threads.shutdown(wait=True)
            RUNNING.begin()
            raise
