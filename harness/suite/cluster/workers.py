"""The workers of a scheduler: who is there, what each has, and which of them may run what.

One that joins later is asked when it is seen. All cases that ask for one QEMU (an architecture's,
or one by name) run on one build of it, or what a case comes to would depend on the worker that
happened to be free.
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


class Workers:
    """Those of one scheduler. All of it may be used by several threads."""

    def __init__(self, client: Any, qemus: Mapping[str, str]) -> None:
        """Asks those that are there, also for QEMUs by paths of theirs. Raises OSError when the
        scheduler has gone.
        """
        self._client = client
        self.qemus = qemus
        self._threads: Mapping[str, int] = {}
        # What each has; a text says why it runs nothing.
        self._has: dict[str, Mapping[str, Any] | str] = {}
        self._builds: dict[Qemu, str] = {}
        self._seen: dict[Qemu, float] = {}  # when one was there that has it
        self._asked: Collection[Qemu] = ()  # by the cases of the run
        self._told: set[str] = set()
        self._looking = threading.Lock()
        self._look()
        self._looked = time.monotonic()

    @property
    def slots(self) -> int:
        """How many cases those that can run any run at once."""
        return sum(self._threads.get(worker, 0) for worker in self._usable())

    @property
    def left_out(self) -> Mapping[str, str]:
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
        if found := self._able(case):
            self._seen[asked(case)] = time.monotonic()
        return found

    def hopeless(self, case: Case) -> bool:
        """Whether there has been none for so long that none is going to come."""
        return time.monotonic() - self._seen.get(asked(case), 0.0) > _RETURN_SECONDS

    def _able(self, case: Case) -> list[str]:
        if not select.boots(case):
            return list(self._usable())
        build = self._builds.get(asked(case))
        builds = {worker: has["qemu"].get(asked(case)) for worker, has in self._usable().items()}
        return [worker for worker, its in builds.items() if its is not None and its == build]

    def has(self, worker: str) -> bool:
        """Whether it is there, as of the last look."""
        return worker in self._threads

    def none_left(self) -> str:
        """Why there is none that can run anything."""
        told = (f"{worker}: {why}" for worker, why in self.left_out.items())
        return "; ".join(told) or "the scheduler has no worker"

    def why_not(self, case: Case) -> str:
        """Why none of them can run a case."""
        usable = self._usable()
        if not usable:
            return self.none_left()
        path = self.qemus.get(case.qemu or "")
        where = f" at {path}" if path else ""
        return f"none of {len(usable)} has a QEMU for {case.arch}{where}"

    def other_builds(self, qemus: Iterable[Qemu]) -> Mapping[str, str]:
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
        return [each for each in self._has.copy().items() if each[0] in self._threads]

    def _usable(self) -> dict[str, Mapping[str, Any]]:
        return {worker: has for worker, has in self._present() if not isinstance(has, str)}

    def _look(self) -> None:
        self._threads = self._client.nthreads()
        new = [worker for worker in self._threads if worker not in self._has]
        if new:
            self._has |= zip(new, self._client.sync(self._ask_all, new), strict=True)
            self._choose_builds()

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
        return difference(has) or has

    def _choose_builds(self) -> None:
        """Of each QEMU that has none yet, the one that most threads have."""
        votes: dict[Qemu, Counter[str]] = {}
        for worker, has in self._usable().items():
            for qemu, build in has["qemu"].items():
                votes.setdefault(qemu, Counter())[build] += self._threads[worker]
        for qemu, builds in votes.items():
            most = max(builds, key=lambda build: (builds[build], build))
            self._builds.setdefault(qemu, most)


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
