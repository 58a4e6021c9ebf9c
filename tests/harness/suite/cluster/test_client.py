"""What the matrix makes of what dask says, where no worker can be had to say it soon."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed import KilledWorker

from bootproof.harness import typedjson
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.prove import prove
from bootproof.harness.results.key import Key
from bootproof.harness.results.results import CaseResult
from bootproof.harness.suite.case_result import case_result
from bootproof.harness.suite.cluster import client, work, workers
from bootproof.harness.suite.cluster.client import Cluster
from bootproof.harness.suite.cluster.work import Done, Failed, Lacks, Worker
from bootproof.harness.suite.cluster.workers import Workers
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, vmlinux_with_text


class Future:
    """What becomes of a case on one of those that it is for."""

    key = "case"

    def __init__(self, scheduler: Scheduler, worker: str) -> None:
        self._scheduler, self._worker = scheduler, worker

    def exception(self, timeout: float) -> None:
        assert timeout == 0
        self._scheduler.asked.append(self._worker)
        if isinstance(self._scheduler.says, TimeoutError):
            raise self._scheduler.says

    def result(self, timeout: float) -> Any:
        assert timeout > 0
        says = self._scheduler.says
        if isinstance(says, Exception):
            raise says
        return self._worker, says[self._worker] if isinstance(says, dict) else says

    def release(self) -> None:
        pass


class Scheduler:
    """A scheduler that says the same of each case, from a new worker each time, or of each of its
    workers what it says.
    """

    def __init__(self, says: Any, *, lost: int = 0, stays: bool = False) -> None:
        self.says, self.lost, self.stays = says, lost, stays
        self.asked: list[str] = []

    def sync(self, _function: object, new: list[str]) -> list[Any]:
        has = {**work.VERSIONS, "qemu": {(None, "x86_64"): "7.2"}, "unfit": None}
        return [has for _ in new]

    def submit(self, *_: object, workers: list[str], **__: object) -> Future:
        return Future(self, workers[0])

    def run(self, *_: object, workers: list[str], **__: object) -> dict[str, Any]:
        return {workers[0]: ()}

    def run_on_scheduler(self, function: object, *_: object) -> Any:
        if function is work.lost_under:
            return self.lost
        number = 0 if self.stays else len(self.asked)
        names = self.says if isinstance(self.says, dict) else [f"worker{number}"]
        return {name: Worker(name, 1) for name in names}


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (client, workers):
        monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    monkeypatch.setattr(images, "busybox", lambda arch: b"no busybox")


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (Scheduler(TimeoutError(), lost=1), "4 workers were lost under x86_64-k-elf-linux64-none"),
        (Scheduler(UnboundLocalError(), lost=1), "4 workers were lost under x86_64-k-elf-linux64"),
        (Scheduler(Lacks(()), lost=2), "4 workers were lost under x86_64-k-elf-linux64-none"),
        (Scheduler(KilledWorker("k", None, 3)), "4 workers were lost under x86_64-k"),  # type: ignore[arg-type]
        (Scheduler(Lacks(()), stays=True), "worker0: does not keep what it is sent"),
        (Scheduler(Failed("full"), stays=True), "^worker0: full$"),
        (Scheduler({"a": Failed("full"), "b": Failed("no QEMU")}), "^a: full; b: no QEMU$"),
        (Scheduler(OSError("closed")), "the connection to the scheduler was lost"),
    ],
)
def test_a_case_that_comes_to_nothing_is_given_up(
    scheduler: Scheduler, said: str, tmp_path: Path
) -> None:
    """However its workers are lost, and whatever else they come to."""
    with pytest.raises(UserError, match=said):
        boot(scheduler, tmp_path)


def boot(scheduler: Scheduler, directory: Path) -> CaseResult:
    kernel = directory / "vmlinux"
    kernel.write_bytes(vmlinux_with_text(X86Program(LOAD).reset()))
    case = Case("x86_64", "k", "elf", "linux64", kernel_path=str(kernel))
    cluster = Cluster(scheduler, Workers(scheduler, {}))
    return cluster.boot(case, directory / "run", "again", keep_ram=True)


@pytest.fixture
def result(tmp_path: Path) -> CaseResult:
    """Of a case that was refused, which is quickly had."""
    case = Case("x86_64", "k", "elf", "linux64", offset=3, kernel_path=str(tmp_path / "vmlinux"))
    Path(case.kernel_path or "").write_bytes(vmlinux_with_text(X86Program(LOAD).reset()))
    return case_result(prove(case, tmp_path / "refused"), "again")


def done(result: CaseResult, of_host: str | None = None) -> Done:
    return Done(typedjson.to_json(result), {}, of_host)


def test_what_is_wrong_with_a_worker_is_said_of_no_case(
    tmp_path: Path, result: CaseResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """It runs on another one, once, and a line says so."""
    scheduler = Scheduler({"a": Failed("/tmp: full"), "b": done(result)})
    assert boot(scheduler, tmp_path).verdict == result.verdict
    assert scheduler.asked == ["a", "b"]
    assert capsys.readouterr().err == (
        "bootproof: --cluster: x86_64-k-elf-linux64-none runs again elsewhere: a: /tmp: full\n"
    )


def test_what_two_machines_cannot_tell_is_the_cases_doing(
    tmp_path: Path, result: CaseResult
) -> None:
    """Where there is a third one; and where there is only one, what that one has come to."""
    first, second = (
        done(replace(result, verdict="qemu-failed", reason=reason), "qemu-failed: killed")
        for reason in ("one", "two")
    )
    scheduler = Scheduler({"a": first, "b": second, "c": done(result)})
    assert boot(scheduler, tmp_path).reason == "two"
    assert scheduler.asked == ["a", "b"]
    assert boot(Scheduler({"a": first, "b": done(result)}), tmp_path).reason == result.reason
    assert boot(Scheduler({"a": first}), tmp_path).reason == "one"
    assert boot(Scheduler({"a": first, "b": Failed("full")}), tmp_path).reason == "one"


def test_a_result_of_another_qemu_is_none_of_this_run(
    tmp_path: Path, result: CaseResult, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after an upgrade of its package on a worker."""
    key = Key(
        "7.2", "pc", "qemu64", 32, 1, 0, probe=True, console="file", profile=None, boot_image=""
    )
    right = done(replace(result, key=key))
    other = done(replace(result, key=replace(key, qemu="10.0")))
    boot(Scheduler({"a": other, "b": right}), tmp_path)
    assert "a: its QEMU has become 10.0; this run is on 7.2\n" in capsys.readouterr().err
