"""Guests of one process take turns, and who waits does so at nobody's cost."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from bootproof.harness.host.turns import Turns


def never() -> bool:
    return False


def guest(turns: Turns, order: list[str], name: str) -> None:
    turns.take(never)
    order.append(name)
    turns.give_back()


def case(turns: Turns, order: list[str], name: str) -> None:
    turns.come_last()
    guest(turns, order, name)


def waits(turns: Turns, count: int) -> None:
    """Until so many threads wait for their turn."""
    while len(turns._changed._waiters) < count:  # type: ignore[attr-defined]
        threading.Event().wait(0.001)


def started(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_no_more_have_a_turn_than_may() -> None:
    turns, now, most = Turns(), list[int](), list[int]()

    def one() -> None:
        turns.take(never)
        now.append(1)
        most.append(len(now))
        threading.Event().wait(0.005)
        now.pop()
        turns.give_back()

    with turns.at_most(2):
        for thread in [started(one) for _ in range(8)]:
            thread.join(60)
    assert (len(most), max(most)) == (8, 2)


def test_without_a_limit_nobody_waits() -> None:
    turns = Turns()
    turns.take(never)
    other = started(lambda: guest(turns, [], "other"))
    other.join(60)
    assert not other.is_alive()


def test_who_does_not_come_last_gets_the_next_one() -> None:
    """However many cases are waiting: while a test waits, nobody hears what has become of them."""
    turns, order = Turns(), list[str]()
    held, free = threading.Event(), threading.Event()

    def first() -> None:
        turns.take(never)
        held.set()
        free.wait(60)
        turns.give_back()

    def let_go() -> None:
        waits(turns, 9)
        free.set()

    with turns.at_most(1):
        others = [started(first)]
        assert held.wait(60)
        others += [started(lambda n=n: case(turns, order, f"case {n}")) for n in range(8)]  # type: ignore[misc]
        waits(turns, 8)
        others.append(started(let_go))
        guest(turns, order, "test")
        for thread in others:
            thread.join(60)
    assert order[0] == "test"
    assert len(order) == 9


def test_a_thread_does_not_wait_for_itself() -> None:
    """A test that talks to one guest and starts another."""
    turns = Turns()
    with turns.at_most(1):
        turns.take(never)
        turns.take(never)
        turns.give_back()
        order: list[str] = []
        other = started(lambda: guest(turns, order, "other"))
        waits(turns, 1)
        assert order == []
        turns.give_back()
        other.join(60)
    assert order == ["other"]


def test_who_waits_is_told_that_all_are_ended() -> None:
    turns, ending, said = Turns(), threading.Event(), list[str]()

    def one() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            turns.take(ending.is_set)
            said.append("has a turn")

    with turns.at_most(0):
        thread = started(one)
        waits(turns, 1)
        ending.set()
        turns.wake()
        thread.join(60)
    assert not thread.is_alive()
    assert said == []


def test_waiting_is_nobodys_time() -> None:
    turns, costs = Turns(), list[float]()

    def one() -> None:
        began, waited = turns.clock(), time.monotonic()
        turns.take(never)
        costs.extend((turns.clock() - began, time.monotonic() - waited))
        turns.give_back()

    with turns.at_most(1):
        turns.take(never)
        thread = started(one)
        waits(turns, 1)
        threading.Event().wait(0.2)
        turns.give_back()
        thread.join(60)
    cost, waited = costs
    assert waited >= 0.2
    assert cost < waited - 0.19
