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
from bootproof.harness.suite.cluster.work import Worker
from bootproof.harness.suite.cluster.workers import Workers, asked
from bootproof.harness.verdict import Verdict

X86 = Case("x86_64", "k", "elf", "pvh")
ARM = Case("aarch64", "k", "image", "linux")
REFUSED = Case("riscv64", "k", "image", "linux", expect=Expectation(Verdict.LOAD_REFUSED))


class Scheduler:
    """What dask's client says of workers that say this; each has as many threads as its name."""

    def __init__(self, **said: Any) -> None:
        self.said = said
        self.start = 0  # of the processes that have these addresses

    def run_on_scheduler(self, _function: object) -> dict[str, Worker]:
        return {name: Worker(f"{name} {self.start}", int(name[1:])) for name in self.said}

    def sync(self, function: Callable[..., Coroutine[Any, Any, Any]], *values: Any) -> Any:
        return asyncio.run(function(*values))

    async def run(self, *_values: object, workers: list[str], **_: object) -> dict[str, Any]:
        said = self.said[workers[0]]
        if isinstance(said, TimeoutError):
            raise said
        return {workers[0]: said}


def has(versions: Mapping[str, Any] = work.VERSIONS, **qemu: str) -> dict[str, Any]:
    builds = {(None, arch): build for arch, build in qemu.items()}
    return {**versions, "qemu": builds, "unfit": None}


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
        (
            {**has(x86_64="7.2"), "unfit": "/tmp: Read-only file system"},
            "/tmp: Read-only file system",
        ),
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


def test_one_that_cannot_run_a_case_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Its QEMU or its room may be gone; what is left out is not asked for every case."""
    scheduler = Scheduler(a1=has(x86_64="7.2"), b1=has(x86_64="7.2"), c1=has(x86_64="7.2"))
    found = Workers(scheduler, {})
    scheduler.said["a1"] = has()
    found.ask_again("a1")
    assert found.able(X86) == ["b1", "c1"]
    scheduler.said["b1"] = {**has(), "unfit": "/tmp: No space left on device"}
    found.ask_again("b1")
    scheduler.said["b1"] = AssertionError("asked again")
    found.ask_again("b1")
    assert found.able(X86) == ["c1"]
    said = "bootproof: --cluster: b1 is left out: /tmp: No space left on device\n"
    assert capsys.readouterr().err == said
    assert found.why_not(ARM) == (
        "none of 2 has a QEMU for aarch64; b1: /tmp: No space left on device"
    )


def test_one_that_fails_what_others_run_is_left_out() -> None:
    """Again and again, and not once in between: what fails everywhere is no machine's doing."""
    found = Workers(Scheduler(a1=has(x86_64="7.2"), b1=has(x86_64="7.2")), {})
    assert found.another(X86, ["a1"]) == ["b1"]
    for failed in ("first", "second", "third", "fourth", "fifth"):
        if failed == "third":
            found.ran("a1", {})
        assert found.able(X86) == ["a1", "b1"]
        found.ran("b1", {"a1": failed})
    assert found.left_out == {"a1": "3 cases that others ran failed there, last: fifth"}
    assert found.another(X86, ["b1"]) == []


def test_after_a_failure_those_come_first_that_have_run_cases() -> None:
    scheduler = Scheduler(a1=has(x86_64="7.2"), b1=has(x86_64="7.2"), c1=has(x86_64="7.2"))
    found = Workers(scheduler, {})
    found.ran("c1", {})
    assert found.another(X86, []) == ["a1", "b1", "c1"]
    assert found.another(X86, ["a1"]) == ["c1"]
    assert found.another(X86, ["a1", "c1"]) == ["b1"]


def test_another_process_at_an_address_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a nanny starts it that was given a port: with other sources, or with room again."""
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0)
    scheduler = Scheduler(a1=has(x86_64="7.2"), b1={**has(x86_64="7.2"), "unfit": "full"})
    found = Workers(scheduler, {})
    scheduler.said = {"a1": OSError("closed"), "b1": has(x86_64="7.2")}
    found.look()
    assert (found.able(X86), found.hopeless(X86)) == (["a1"], True)
    scheduler.start += 1
    found.look()
    assert found.able(X86) == ["b1"]
    assert found.left_out == {"a1": "closed"}


def test_only_one_that_could_run_a_case_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for, and then no longer."""
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0)
    scheduler = Scheduler(a1=has(x86_64="7.2"), b1=has(aarch64="7.2"))
    found = Workers(scheduler, {})
    scheduler.said.clear()
    found.look()
    assert (found.hopeless(X86), found.hopeless(ARM)) == (False, False)
    assert found.why_not(X86) == "the scheduler has no worker"
    monkeypatch.setattr(workers, "_RETURN_SECONDS", 0)
    assert found.hopeless(X86)
