"""What the matrix makes of what dask says, where no worker can be had to say it soon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from distributed import KilledWorker

from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.suite.cluster import client, work, workers
from bootproof.harness.suite.cluster.client import Cluster
from bootproof.harness.suite.cluster.work import Lacks
from bootproof.harness.suite.cluster.workers import Workers
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, vmlinux_with_text


class Future:
    """What becomes of a case on the workers that are there, one after the other."""

    key = "case"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def exception(self, timeout: float) -> None:
        assert timeout == 0
        self._scheduler.asked += 1
        if isinstance(self._scheduler.says, TimeoutError):
            raise self._scheduler.says

    def result(self, timeout: float) -> Any:
        assert timeout > 0
        worker = f"worker{self._scheduler.asked}"
        if isinstance(self._scheduler.says, Exception):
            raise self._scheduler.says
        return (worker if self._scheduler.others else "worker", self._scheduler.says)

    def release(self) -> None:
        pass


class Scheduler:
    """A scheduler that says the same of each case, from a new worker each time or from one."""

    def __init__(self, says: Any, *, others: bool = True, lost: int = 0) -> None:
        self.says, self.others, self.lost = says, others, lost
        self.asked = 0

    def nthreads(self) -> dict[str, int]:
        return {f"worker{self.asked + 1}": 1}

    def sync(self, _function: object, new: list[str]) -> list[Any]:
        return [{**work.VERSIONS, "qemu": {(None, "x86_64"): "7.2"}} for _ in new]

    def submit(self, *_: object, **__: object) -> Future:
        return Future(self)

    def run(self, *_: object, workers: list[str], **__: object) -> dict[str, Any]:
        return {workers[0]: ()}

    def run_on_scheduler(self, *_: object) -> int:
        return self.lost


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
        (Scheduler(Lacks(()), others=False), "worker: does not keep what it is sent"),
        (Scheduler(OSError("closed")), "the connection to the scheduler was lost"),
    ],
)
def test_a_case_that_comes_to_nothing_is_given_up(
    scheduler: Scheduler, said: str, tmp_path: Path
) -> None:
    """However its workers are lost, and whatever else they come to."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux_with_text(X86Program(LOAD).reset()))
    case = Case("x86_64", "k", "elf", "linux64", kernel_path=str(kernel))
    cluster = Cluster(scheduler, Workers(scheduler, {}))
    with pytest.raises(UserError, match=said):
        cluster.boot(case, tmp_path / "run", "again", keep_ram=True)
