"""The workers of a scheduler: who is there, what each has, and which of them may run what.

One that joins later is asked when it is seen, and one that could not run a case is asked again. All
cases that ask for one QEMU (an architecture's, or one by name) run on one build of it, or what a
case comes to would depend on the worker that happened to be free.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from bootproof.harness.case import Case
from bootproof.harness.cases import select
from bootproof.harness.host.stdout import say
from bootproof.harness.suite.cluster import work
from bootproof.harness.suite.cluster.work import Qemu
from bootproof.printable import one_line

LOOK_SECONDS: Final = 2.0  # between two looks at who is there
_ANSWER_SECONDS: Final = 30  # the first one imports all of us, on a machine that is busy
_RETURN_SECONDS: Final = 60  # in which a worker is started again by what looks after it
_MOST_FAILED: Final = 3  # cases, one after the other, which others could run


class Workers:
    """Those of one scheduler. All of it may be used by several threads."""

    def __init__(self, client: Any, qemus: Mapping[str, str]) -> None:
        """Asks those that are there, also for QEMUs by paths of theirs. Raises OSError when the
        scheduler has gone.
        """
        self._client = client
        self.qemus = qemus
        self._there: Mapping[str, work.Worker] = {}
        # What each has; a text says why it runs nothing.
        self._has: dict[str, Mapping[str, Any] | str] = {}
        # When one went that could run something, and what it had.
        self._gone: dict[str, tuple[float, Mapping[str, Any]]] = {}
        self._builds: dict[Qemu, str] = {}
        self._ran: set[str] = set()
        # How many cases each could not run since it ran one, and others could.
        self._failed: Counter[str] = Counter()
        self._asked: Collection[Qemu] = ()  # by the cases of the run
        self._told: set[str] = set()
        self._looking = threading.Lock()
        self._asking_again = threading.Lock()
        self._look()
        self._looked = time.monotonic()

    @property
    def slots(self) -> int:
        """How many cases those that can run any run at once."""
        there = self._there
        return sum(there[worker].threads for worker in self._usable() if worker in there)

    @property
    def left_out(self) -> dict[str, str]:
        """Those that run nothing, and why."""
        return {worker: has for worker, has in self._present() if isinstance(has, str)}

    def tell(self, qemus: Collection[Qemu]) -> None:
        """Names those that are left out of what runs on these, and from now on who joins and is."""
        self._asked = qemus
        left_out = {**self.left_out, **self.other_builds(qemus)}
        for worker in sorted(left_out.keys() - self._told):
            say(f"--cluster: {worker} is left out: {left_out[worker]}")
        self._told |= left_out.keys()

    def look(self) -> None:
        """Notes who has come and who has gone since. Raises OSError as __init__."""
        if self._looking.acquire(blocking=False):  # or another thread is at it
            try:
                if time.monotonic() - self._looked >= LOOK_SECONDS:
                    self._look()
                    self.tell(self._asked)
                    self._looked = time.monotonic()
            finally:
                self._looking.release()

    def able(self, case: Case) -> list[str]:
        """Those that can run a case."""
        return [worker for worker, has in self._usable().items() if self._can(has, case)]

    def another(self, case: Case, failed: Collection[str]) -> list[str]:
        """Those of them that it has not failed on. Once it has failed, those that have run cases
        come first: what one of them makes of it tells whether it was the worker's doing.
        """
        others = [worker for worker in self.able(case) if worker not in failed]
        proven = [worker for worker in others if worker in self._ran] if failed else []
        return proven or others

    def hopeless(self, case: Case) -> bool:
        """Whether none can be about to come back: what looks after a worker starts it again."""
        gone = self._gone.copy().values()
        now = time.monotonic()
        return not any(now - at < _RETURN_SECONDS and self._can(has, case) for at, has in gone)

    def ask_again(self, worker: str) -> None:
        """After a case has failed there: is its disk full, its QEMU gone? Raises OSError."""
        with self._asking_again:
            if isinstance(self._has.get(worker), str):  # by what another case came to
                return
            [has] = self._client.sync(self._ask_all, [worker])
            if worker in self._there:
                self._has[worker] = has
        self.tell(self._asked)

    def ran(self, worker: str, failed: Mapping[str, str]) -> None:
        """Notes that a worker ran a case, and that others could not, and why."""
        self._ran.add(worker)
        self._failed.pop(worker, None)
        for other, why in failed.items():
            self._failed[other] += 1
            if self._failed[other] >= _MOST_FAILED and isinstance(self._has.get(other), Mapping):
                self._has[other] = f"{_MOST_FAILED} cases that others ran failed there, last: {why}"
        self.tell(self._asked)

    def build(self, case: Case) -> str | None:
        """Of the QEMU that a case runs on, whatever worker it is."""
        return self._builds.get(asked(case))

    def _can(self, has: Mapping[str, Any], case: Case) -> bool:
        if not select.boots(case):
            return True
        build = self.build(case)
        return build is not None and has["qemu"].get(asked(case)) == build

    def has(self, worker: str) -> bool:
        """Whether it is there, as of the last look."""
        return worker in self._there

    def none_left(self) -> str:
        """Why there is none that can run anything."""
        return told_of(self.left_out) or "the scheduler has no worker"

    def why_not(self, case: Case) -> str:
        """Why none of them can run a case."""
        others = self.other_builds([asked(case)])
        lacking = len(self._usable()) - len(others)
        if not lacking:
            return told_of(others | self.left_out) or self.none_left()
        path = self.qemus.get(case.qemu or "")
        where = f" at {path}" if path else ""
        none = f"none of {lacking} has a QEMU for {case.arch}{where}"
        return "; ".join(filter(None, (none, told_of(others | self.left_out))))

    def other_builds(self, qemus: Iterable[Qemu]) -> dict[str, str]:
        """Those that run nothing on one of these, since theirs is not the others'."""
        return {
            worker: f"its QEMU {called} is {build}, and {self._builds[name, arch]} is most workers'"
            for name, arch in qemus
            for called in [f"for {arch}" if name is None else f"{name} for {arch}"]
            for worker, has in self._usable().items()
            if (build := has["qemu"].get((name, arch)))
            not in (None, self._builds.get((name, arch)))
        }

    def _present(self) -> list[tuple[str, Mapping[str, Any] | str]]:
        return [each for each in self._has.copy().items() if each[0] in self._there]

    def _usable(self) -> dict[str, Mapping[str, Any]]:
        return {worker: has for worker, has in self._present() if not isinstance(has, str)}

    def _look(self) -> None:
        there = self._client.run_on_scheduler(work.workers_there)
        for worker, _ in self._there.items() - there.items():
            has = self._has.pop(worker, None)
            if isinstance(has, Mapping):
                self._gone[worker] = time.monotonic(), has
            self._forget(worker)
        new = [worker for worker in there if there[worker] != self._there.get(worker)]
        answers = self._client.sync(self._ask_all, new) if new else []
        self._has |= zip(new, answers, strict=True)
        self._there = there
        self._choose_builds()

    def _forget(self, worker: str) -> None:
        """Where another one may come: an address can be used again."""
        self._ran.discard(worker)
        self._told.discard(worker)
        self._failed.pop(worker, None)

    async def _ask_all(self, workers: Sequence[str]) -> Sequence[Mapping[str, Any] | str]:
        return await asyncio.gather(*map(self._ask, workers))

    async def _ask(self, worker: str) -> Mapping[str, Any] | str:
        """What a worker has; for itself, since one that does not answer keeps all waiting."""
        try:
            answers = await self._client.run(
                work.abilities,
                self.qemus,
                workers=[worker],
                on_error="return",
                asynchronous=True,
                callback_timeout=_ANSWER_SECONDS,
            )
        except TimeoutError:
            return f"has not answered for {_ANSWER_SECONDS} s"
        except OSError as error:
            return one_line(str(error))
        has = answers[worker]
        if isinstance(has, OSError):
            return one_line(str(has))
        if isinstance(has, Exception):  # whatever it is: an import, most likely
            return f"{one_line(str(has))}; bootproof {work.VERSIONS['bootproof']} must be there"
        return difference(has) or has["unfit"] or has

    def _choose_builds(self) -> None:
        """Of each QEMU that has none yet, the one that most threads have."""
        votes: dict[Qemu, Counter[str]] = {}
        for worker, has in self._usable().items():
            for qemu, build in has["qemu"].items():
                votes.setdefault(qemu, Counter())[build] += self._there[worker].threads
        for qemu, builds in votes.items():
            most = max(builds, key=lambda build: (builds[build], build))
            self._builds.setdefault(qemu, most)


def told_of(workers: Mapping[str, str]) -> str:
    """What is said of each of them, in one line."""
    return "; ".join(f"{worker}: {why}" for worker, why in workers.items())


def asked(case: Case) -> Qemu:
    """The QEMU that a case asks for."""
    return case.qemu, case.arch


def difference(theirs: Mapping[str, Any]) -> str | None:
    """What another bootproof has that is not as here; None where it is the same."""
    name = "bootproof"
    if theirs.get(name) != work.VERSIONS[name]:
        return f"bootproof {theirs.get(name)} is there, {work.VERSIONS[name]} is here"
    if any(theirs.get(name) != ours for name, ours in work.VERSIONS.items()):
        return f"bootproof {theirs[name]} is there too, but of other sources; restart it with these"
    return None
