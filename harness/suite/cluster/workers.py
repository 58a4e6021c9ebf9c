"""The workers of a scheduler: who is there, what each has, and which of them may run what.

One that joins later is asked when it is seen. All cases of an architecture run on one build of
QEMU, or what a case comes to would depend on the worker that happened to be free.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bootproof.harness.case import Case
from bootproof.harness.cases import select
from bootproof.harness.suite.cluster import work
from bootproof.printable import one_line

LOOK_SECONDS: Final = 2.0  # between two looks at who is there
_ANSWER_SECONDS: Final = 30  # the first one imports all of us, on a machine that is busy
_RETURN_SECONDS: Final = 60  # in which a worker is started again by what looks after it


class Workers:
    """Those of one scheduler. All of it may be used by several threads."""

    def __init__(self, client: Any) -> None:
        """Asks those that are there. Raises OSError when the scheduler has gone."""
        self._client = client
        self._threads: Mapping[str, int] = {}
        # What each has; a text says why it runs nothing.
        self._has: dict[str, Mapping[str, Any] | str] = {}
        self._builds: dict[str, str] = {}  # of QEMU, by architecture
        self._seen: dict[str, float] = {}  # when one was there that can run an architecture's cases
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

    def look(self) -> None:
        """Notes who has come and who has gone since. Raises OSError as __init__."""
        if self._looking.acquire(blocking=False):  # or another thread is at it
            try:
                if time.monotonic() - self._looked >= LOOK_SECONDS:
                    self._look()
                    self._looked = time.monotonic()
            finally:
                self._looking.release()

    def able(self, case: Case) -> list[str]:
        """Those that can run a case."""
        if found := self._able(case):
            self._seen[case.arch] = time.monotonic()
        return found

    def hopeless(self, case: Case) -> bool:
        """Whether there has been none for so long that none is going to come."""
        return time.monotonic() - self._seen.get(case.arch, 0.0) > _RETURN_SECONDS

    def _able(self, case: Case) -> list[str]:
        if not select.boots(case):
            return list(self._usable())
        build = self._builds.get(case.arch)
        builds = {worker: has["qemu"].get(case.arch) for worker, has in self._usable().items()}
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
        return f"none of {len(usable)} has a QEMU for {case.arch}" if usable else self.none_left()

    def other_builds(self, arches: Iterable[str]) -> Mapping[str, str]:
        """Those that run nothing of an architecture, since their QEMU is not the others'."""
        return {
            worker: f"its QEMU for {arch} is {build}, and {self._builds[arch]} is most workers'"
            for arch in arches
            for worker, has in self._usable().items()
            if (build := has["qemu"].get(arch)) not in (None, self._builds.get(arch))
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
        """Of each architecture that has none yet, the one that most threads have."""
        votes: dict[str, Counter[str]] = {}
        for worker, has in self._usable().items():
            for arch, build in has["qemu"].items():
                votes.setdefault(arch, Counter())[build] += self._threads[worker]
        for arch, builds in votes.items():
            most = max(builds, key=lambda build: (builds[build], build))
            self._builds.setdefault(arch, most)


def difference(theirs: Mapping[str, Any]) -> str | None:
    """What another bootproof has that is not as here; None where it is the same."""
    name = "bootproof"
    if theirs.get(name) != work.VERSIONS[name]:
        return f"bootproof {theirs.get(name)} is there, {work.VERSIONS[name]} is here"
    if any(theirs.get(name) != ours for name, ours in work.VERSIONS.items()):
        return f"bootproof {theirs[name]} is there too, but of other sources; restart it with these"
    return None
