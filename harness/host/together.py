"""Boots that do not need one another, side by side.

Owns that the end of one's patience ends all of them: a thread hears of no signal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

from bootproof.harness.host.process import RUNNING

T = TypeVar("T")
U = TypeVar("U")


def together(one: Callable[[], T], other: Callable[[], U]) -> tuple[T, U]:
    """What each returns, when both have ended; raises what the first of them raises."""
    return cast("tuple[T, U]", tuple(at_once([one, other], 2)))


def at_once(boots: Sequence[Callable[[], T]], most: int) -> list[T]:
    """The same of many, no more than `most` at a time."""
    with ThreadPoolExecutor(most, "boot") as threads:
        running = [threads.submit(boot) for boot in boots]
        try:
            return [each.result() for each in running]
        except KeyboardInterrupt:
            RUNNING.end()
            threads.shutdown(wait=True, cancel_futures=True)
            RUNNING.begin()
            raise
