"""Several cases at once in one process, a thread for each: how `bootproof matrix -n N` runs them.

A case waits for its QEMU nearly all of its time, so threads are enough, and the memory is that of
one process. There are more threads than guests may run, so that the next one stands before its
first instruction when a guest ends (bootproof.harness.host.turns). Owns the threads and their end,
and the order in which pytest hears of results: as they come. Before the cases, in the same threads,
come those tests that are Python functions and may run there (bootproof.harness.suite.beside): many
boot more than once. The others run meanwhile, in the main thread; each guest of theirs gets the
next turn.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any, Final, TypeAlias

import pytest

from bootproof.harness.errors import lack_of
from bootproof.harness.host.process import RUNNING
from bootproof.harness.host.turns import TURNS
from bootproof.harness.results.results import CaseResult
from bootproof.harness.suite import beside
from bootproof.harness.suite.items import BOOTING, CLUSTER, CaseItem, longest_first
from bootproof.loader.address import counted


class Threads:
    """The threads that work on a case: to be interrupted as the main thread is by a signal, where
    the end of their QEMUs does not end them. To read what a guest has said may take long.
    """

    def __init__(self) -> None:
        self._working: set[int] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def here(self) -> Iterator[None]:
        """Counts the thread that works in the block."""
        with self._changed:
            self._working.add(threading.get_ident())
        try:
            yield
        finally:
            with self._changed:
                self._working.discard(threading.get_ident())
                self._changed.notify_all()

    def end(self, seconds: float) -> None:
        """Waits for them, and from then on interrupts those that are still there."""
        with self._changed:
            while not self._changed.wait_for(lambda: not self._working, seconds):
                self._working = {thread for thread in self._working if _interrupted(thread)}


def _interrupted(thread: int) -> bool:
    """Raises KeyboardInterrupt in a thread, as soon as it is between two steps; False when it has
    ended.
    """
    interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc
    return bool(interrupt(ctypes.c_ulong(thread), ctypes.py_object(KeyboardInterrupt)))


_JUDGING_SECONDS: Final = 2.0
# Beside those that run: one is made ready while another is judged.
_READY: Final = 2
_GROW_SECONDS: Final = 2.0  # between two looks at whether a cluster has more room
CROWD: Final = "crowd"
"""Marks a test that has more guests at once than a session may: it runs when all else has ended."""

Waiting: TypeAlias = dict[Future[Any], pytest.Item]
"""What runs in a thread, or has, and pytest has not heard of."""


class Growing(Executor):
    """As many threads as `room` says, also when it says more than before, and none until `grow`.

    What is submitted is begun in its order. No thread goes before there is nothing left to begin.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        self._room = room
        self._left: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._threads: list[threading.Thread] = []
        self._growing = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *values: Any, **named: Any) -> Future[Any]:
        """To be done in its turn."""
        future: Future[Any] = Future()
        self._left.append((future, functools.partial(function, *values, **named)))
        return future

    def grow(self) -> None:
        """Starts the threads that there is room for and something to do."""
        with self._growing:
            there = len(self._threads)
            for number in range(there, min(self._room(), there + len(self._left))):
                self._threads.append(threading.Thread(target=self._work, name=f"case_{number}"))
                self._threads[-1].start()

    def _work(self) -> None:
        while self._left:
            with contextlib.suppress(IndexError):  # another thread was faster
                future, function = self._left.popleft()
                self.grow()
                _fulfil(future, function)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As that of any executor."""
        while cancel_futures and self._left:
            with contextlib.suppress(IndexError):
                self._left.popleft()[0].cancel()
        for thread in self._threads if wait else ():
            thread.join()


def _fulfil(future: Future[Any], function: Callable[[], Any]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(function())
        except BaseException as error:  # as an executor's thread does
            future.set_exception(error)


class InFlight:
    """A pytest plugin of one session; `jobs` is how many guests run at once."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._judging = Threads()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.config.option.collectonly:
            return None
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            raise session.Interrupted(f"{counted(session.testsfailed, 'error')} during collection")
        self._run_all(session)
        return True

    def _run_all(self, session: pytest.Session) -> None:
        pool: Executor = ThreadPoolExecutor(self._jobs + _READY, thread_name_prefix="case")
        if _elsewhere(session):
            pool = Growing(lambda: session.config.stash[CLUSTER].slots)
        waiting: Waiting = {}
        try:
            self._run(session, pool, waiting)
        except BaseException as end:
            self._end(session, pool, waiting, end)
            if lack := lack_of(end):
                raise pytest.UsageError(lack) from end
            raise

    def _end(
        self,
        session: pytest.Session,
        pool: Executor,
        waiting: Waiting,
        end: BaseException,
    ) -> None:
        """Ends what is under way. Pytest still hears of what had ended before an interruption by a
        user, which is no session.Interrupted.
        """
        ended = {future: item for future, item in waiting.items() if future.done()}
        RUNNING.end()
        try:
            if _elsewhere(session):
                session.config.stash[CLUSTER].cancel()
            pool.shutdown(wait=False, cancel_futures=True)
            self._judging.end(_JUDGING_SECONDS)
            if type(end) is KeyboardInterrupt:
                with contextlib.suppress(session.Failed):  # -x
                    self._hear(session, ended, seconds=0)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            RUNNING.begin()

    def _run(self, session: pytest.Session, pool: Executor, waiting: Waiting) -> None:
        tests = [item for item in session.items if not isinstance(item, CaseItem)]
        called = [] if _elsewhere(session) else [*filter(beside.may_be_called, tests)]
        waiting |= {pool.submit(self._call, item): item for item in called}
        ordered = longest_first(session.config, session.items)
        waiting |= {pool.submit(self._boot, item): item for item in ordered}
        # A case's item is of no use once pytest has heard of it, and there may be thousands.
        ordered.clear()
        session.items[:] = tests
        crowds = [item for item in tests if item.get_closest_marker(CROWD)]
        here = [item for item in tests if item not in [*crowds, *called]]
        grow = pool.grow if isinstance(pool, Growing) else lambda: None
        grow()
        with contextlib.nullcontext() if _elsewhere(session) else TURNS.at_most(self._jobs):
            for item in here:
                _report(session, item)
                self._hear(session, waiting, seconds=0)
            while waiting:
                self._hear(session, waiting, _GROW_SECONDS)
                grow()
            pool.shutdown()
        for item in crowds:
            _report(session, item)

    def _boot(self, item: CaseItem) -> CaseResult:
        TURNS.come_last()  # until a test has ended, nobody hears of other results
        with self._judging.here():
            return item.boot()

    def _call(self, item: pytest.Function) -> beside.Called:
        TURNS.come_last()
        with self._judging.here():
            return beside.call(item)

    def _hear(
        self,
        session: pytest.Session,
        waiting: Waiting,
        seconds: float,
    ) -> None:
        """Lets pytest report the cases that have ended; none is kept in memory afterwards."""
        done, _ = wait(waiting, timeout=seconds, return_when=FIRST_COMPLETED)
        for future in done:
            item = waiting.pop(future)
            key: Any = BOOTING if isinstance(item, CaseItem) else beside.CALLED
            item.stash[key] = future
            try:
                _report(session, item)
            finally:
                del item.stash[key]
                item.user_properties.clear()


def _elsewhere(session: pytest.Session) -> bool:
    """Whether cases are booted on other machines, and only the guests of tests run here."""
    return CLUSTER in session.config.stash


def _report(session: pytest.Session, item: pytest.Item) -> None:
    """One item through pytest, as its own loop does it."""
    try:
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    except KeyboardInterrupt:  # what its fixtures hold is in the way of the next item
        session._setupstate.teardown_exact(None)  # nothing, where that was done already
        raise
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)
