"""Tests that are Python functions, and run in a thread as cases do.

pytest sets up one test at a time, in the main thread: what waits there for a guest has all that
follow wait. A test that is marked is called before pytest comes to it, which then hears how it
ended. It asks only for what can be given to it without pytest, and must neither print nor change
what other threads see. Where cases take no turns (one at a time, or on other machines) it is a
test like any other.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeGuard

import pytest

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.suite.live import AREA, TEST
from bootproof.harness.suite.options import OPTIONS
from bootproof.kernels import scratch

BESIDE: Final = "beside"
"""Marks such a test."""
_FOR_THEM: Final = frozenset({"request", "tmp_path_factory"})
"""What pytest's fixtures of the names in `_MAKERS` ask for."""


@dataclass(frozen=True, slots=True)
class Called:
    """How a test ended."""

    # What it raised, to be raised again where pytest hears of it.
    error: BaseException | None
    seconds: float


CALLED: Final = pytest.StashKey[Future[Called]]()
"""Where a test has been called already, by another thread."""


def call(item: pytest.Function) -> Called:
    """Calls a test, in whatever thread this is. Raises KeyboardInterrupt only."""
    began, area = time.monotonic(), item.config.stash.get(AREA, None)
    error: BaseException | None = None
    with contextlib.ExitStack() as stack:
        if area is not None:
            stack.enter_context(area.case(item.name, TEST))
        try:
            item.obj(**_given(item, stack))
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # as pytest's own are: a skip is no Exception
            error = raised
    return Called(error, time.monotonic() - began)


class Hearing:
    """A pytest plugin: what has been called is not called again, and took as long as it did."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        called = pyfuncitem.stash.get(CALLED, None)
        if called is None:
            return None
        if (error := called.result().error) is not None:
            raise error
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "call" and CALLED in item.stash:
            report.duration = item.stash[CALLED].result().seconds
        return report


def may_be_called(item: pytest.Item) -> TypeGuard[pytest.Function]:
    """Whether a test is marked."""
    return isinstance(item, pytest.Function) and item.get_closest_marker(BESIDE) is not None


def run_directories(item: pytest.Item) -> Callable[[str], Path]:
    """Where a run of a name keeps its artifacts."""
    out = item.config.stash[OPTIONS].out.absolute()
    return lambda name: out / name


def _given(item: pytest.Function, stack: contextlib.ExitStack) -> Mapping[str, object]:
    """The arguments of a test, which pytest does not make once more. Raises UserError."""
    callspec = getattr(item, "callspec", None)
    parameters = {} if callspec is None else callspec.params
    wanted = set(item.fixturenames) - parameters.keys() - _FOR_THEM
    if unknown := wanted - _MAKERS.keys():
        raise UserError(f"{item.name}: is marked {BESIDE}, and asks for {', '.join(unknown)}")
    item.funcargs.update({name: _MAKERS[name](item, stack) for name in wanted})
    values = {**parameters, **item.funcargs}
    return {name: values[name] for name in inspect.signature(item.obj).parameters}


def _record(item: pytest.Item) -> Callable[[str, object], None]:
    return lambda name, value: item.user_properties.append((name, value))


_MAKERS: Final[Mapping[str, Callable[[pytest.Item, contextlib.ExitStack], Any]]] = {
    "run_directory": lambda item, _: run_directories(item),
    "tmp_path": lambda _, stack: stack.enter_context(scratch.directory()),
    "record_property": lambda item, _: _record(item),
    "pytestconfig": lambda item, _: item.config,
}
