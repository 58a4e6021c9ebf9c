"""Which workers may run what: by what they say of themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest

from bootproof.harness import VERSION
from bootproof.harness.case import Case, Expectation
from bootproof.harness.suite.cluster import work, workers
from bootproof.harness.suite.cluster.workers import Workers, asked
from bootproof.harness.verdict import Verdict

X86 = Case("x86_64", "k", "elf", "pvh")
ARM = Case("aarch64", "k", "image", "linux")
REFUSED = Case("riscv64", "k", "image", "linux", expect=Expectation(Verdict.LOAD_REFUSED))


class Scheduler:
    """What dask's client says of workers that say this; each has as many threads as its name."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def nthreads(self) -> dict[str, int]:
        return {name: int(name[1:]) for name in self.said}

    def sync(self, function: Callable[..., Coroutine[Any, Any, Any]], *values: Any) -> Any:
        return asyncio.run(function(*values))

    async def run(self, *_values: object, workers: list[str], **_: object) -> dict[str, Any]:
        said = self.said[workers[0]]
        if isinstance(said, TimeoutError):
            raise said
        return {workers[0]: said}


def has(versions: Mapping[str, Any] = work.VERSIONS, **qemu: str) -> dict[str, Any]:
    return {**versions, "qemu": {(None, arch): build for arch, build in qemu.items()}}


def test_a_case_goes_to_those_that_have_its_qemu() -> None:
    found = Workers(Scheduler(a1=has(x86_64="7.2"), b2=has(x86_64="7.2", aarch64="7.2")), {})
    assert (found.able(X86), found.able(ARM), found.able(REFUSED)) == (
        ["a1", "b2"],
        ["b2"],
        ["a1", "b2"],
    )
    assert found.slots == 3


def test_an_architecture_has_one_qemu() -> None:
    """That of most threads, and no other one when those have gone."""
    scheduler = Scheduler(a1=has(x86_64="10.0"), b2=has(x86_64="7.2"), c1=has(aarch64="10.0"))
    found = Workers(scheduler, {})
    assert found.able(X86) == ["b2"]
    assert found.other_builds([(None, "x86_64"), (None, "aarch64")]) == {
        "a1": "its QEMU for x86_64 is 10.0, and 7.2 is most workers'"
    }
    del scheduler.said["b2"]
    found._look()
    assert found.able(X86) == []


def test_a_case_that_names_a_qemu_goes_to_those_that_have_it() -> None:
    """At the path that was given, on one build of it, whatever else is there."""
    named = {("ten", "x86_64"): "10.0"}
    of_two = {**has(x86_64="7.2"), "qemu": {(None, "x86_64"): "7.2"} | named}
    older = {**has(), "qemu": {("ten", "x86_64"): "10.1"}}
    found = Workers(Scheduler(a1=has(x86_64="7.2"), b2=of_two, c1=older), {"ten": "/opt/q10"})
    on_ten, arm = replace(X86, qemu="ten"), replace(ARM, qemu="ten")
    assert (found.able(X86), found.able(on_ten), found.able(arm)) == (["a1", "b2"], ["b2"], [])
    assert found.why_not(arm) == "none of 3 has a QEMU for aarch64 at /opt/q10"
    assert found.other_builds([asked(on_ten)]) == {
        "c1": "its QEMU ten for x86_64 is 10.1, and 10.0 is most workers'"
    }


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (TimeoutError(), "has not answered for 30 s"),
        (OSError("closed"), "closed"),
        (ImportError("no bootproof"), f"no bootproof; bootproof {VERSION} must be there"),
        (
            has({**work.VERSIONS, "bootproof": "0.0.1"}),
            f"bootproof 0.0.1 is there, {VERSION} is here",
        ),
        (
            has({**work.VERSIONS, "sources": "other"}),
            f"bootproof {VERSION} is there too, but of other sources; restart it with these",
        ),
    ],
)
def test_a_worker_that_is_not_as_we_are_is_left_out(said: Any, why: str) -> None:
    """Whatever is wrong with it, the others run."""
    found = Workers(Scheduler(a1=said, b1=has(x86_64="7.2")), {})
    assert found.left_out == {"a1": why}
    assert found.able(X86) == ["b1"]
    assert Workers(Scheduler(a1=said), {}).none_left() == f"a1: {why}"


def test_who_joins_later_is_asked_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And named once, where it is left out: nobody else says why it has nothing to do."""
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0)
    scheduler = Scheduler(a1=has(x86_64="7.2"), a2=TimeoutError())
    found = Workers(scheduler, {})
    found.tell([asked(X86)])
    slow = "bootproof: --cluster: a2 is left out: has not answered for 30 s\n"
    assert capsys.readouterr().err == slow
    del scheduler.said["a1"]
    scheduler.said |= {"b1": has(x86_64="7.2"), "c1": has(x86_64="10.0")}
    found.look()
    found.look()
    assert found.able(X86) == ["b1"]
    other = "its QEMU for x86_64 is 10.0, and 7.2 is most workers'"
    assert capsys.readouterr().err == f"bootproof: --cluster: c1 is left out: {other}\n"
