"""What a worker of the cluster does: one case, from what was sent to what is sent back.

Owns `Job`, `Done`, `Lacks` and `Failed`, which are all that the two sides tell each other of a
case. Must not know the scheduler, or who asked.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final, TypeAlias

from bootproof.dataclass import dataclass
from bootproof.harness import VERSION, places, typedjson
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.host import rundir
from bootproof.harness.host.files import disk_errors
from bootproof.harness.inputs.images import KernelFile
from bootproof.harness.judgement import ERROR
from bootproof.harness.prepare import Inputs, Options
from bootproof.harness.prove import prove
from bootproof.harness.qemu import binary
from bootproof.harness.suite.case_result import case_result
from bootproof.harness.suite.cluster import luggage
from bootproof.harness.suite.cluster.luggage import Packed
from bootproof.harness.terms import Budget
from bootproof.kernels import content, scratch
from bootproof.kernels.cache import CachedFile, default_cache_dir
from bootproof.kernels.errors import FetchError
from bootproof.printable import one_line


def _sources() -> str:
    """The digest of all of our modules: of one version there are many, between two releases."""
    found = hashlib.sha256()
    for room in ("harness", "kernels", "loader"):
        for path in sorted((places.PACKAGES / room).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()


VERSIONS: Final = {"bootproof": VERSION, "sources": _sources()}
"""What both sides must have in common, or one has results of the other's: as it was imported."""


Qemu: TypeAlias = tuple[str | None, str]
"""Which one a case asks for: the name that it has for it, if any, and the architecture."""


@dataclass(frozen=True, slots=True)
class Job:
    """A case, and what it is made of: files by their digests, as a worker keeps them."""

    case: Case
    kernel: str
    # As the user knows it.
    kernel_name: str
    initrd: str | None
    # Whether the user's has an /init.
    has_init: bool
    dtb: str | None
    reproduce: str
    # Whether guest RAM comes back of a case that was as expected.
    keep_ram: bool
    # Where the QEMUs are that cases name, on a worker.
    qemus: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """How the case ended (a CaseResult as JSON), and its run directory."""

    result: Mapping[str, Any]
    files: Mapping[str, Packed]
    # Why nobody can say what the guest would have come to: it may be this machine's doing.
    of_host: str | None = None


@dataclass(frozen=True, slots=True)
class Lacks:
    """Digests of what has to be sent here first."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Why there is no result: of a machine that another one may be better than."""

    why: str


def boot(job: Job, wanted: Callable[[], bool]) -> Done | Lacks:
    """Boots a case in a directory of its own, as long as it is wanted. Raises as `prove`."""
    files = {sha256: luggage.kept(sha256) for sha256 in (job.kernel, job.initrd, job.dtb) if sha256}
    there = {sha256: file for sha256, file in files.items() if file is not None}
    if len(there) < len(files):
        return Lacks(tuple(sha256 for sha256 in files if sha256 not in there))

    def observe(*_: object) -> None:
        if not wanted():
            raise KeyboardInterrupt

    options = Options(qemus=job.qemus, inputs=_inputs(job, there), observer=observe)
    try:
        with disk_errors(Path(tempfile.gettempdir())), scratch.directory() as place:
            observe()
            return _proven(job, place / "run", options)
    except KeyboardInterrupt:  # dask would end the worker
        raise UserError(f"{job.case.id}: its result is not wanted any more") from None


def _proven(job: Job, directory: Path, options: Options) -> Done:
    proven = prove(job.case, directory, options)
    result = case_result(proven, job.reproduce)
    if result.as_expected and not job.keep_ram:
        rundir.drop_ram(directory)
    of_host = f"{result.verdict}: {result.reason}" if proven.came_to == ERROR else None
    return Done(typedjson.to_json(result), luggage.packed(directory), of_host)


def _inputs(job: Job, files: Mapping[str, CachedFile]) -> Inputs:
    kernel, initrd, dtb = (files.get(each or "") for each in (job.kernel, job.initrd, job.dtb))
    assert kernel is not None
    return Inputs(
        kernel=KernelFile(job.kernel_name, kernel.path, job.kernel, content.of_cached(kernel)),
        initrd=None if initrd is None else initrd.path.read_bytes(),
        has_init=job.has_init,
        dtb=None if dtb is None else dtb.path.read_bytes(),
    )


def versions() -> dict[str, Any]:
    """Of what is installed here."""
    return VERSIONS


def abilities(qemus: Mapping[str, str]) -> dict[str, Any]:
    """What this worker has: the versions, and what each QEMU says of its build, by the name that
    cases have for it, if they have one, and architecture. `qemus` are the paths of those named.
    And, if it has no room for what any case needs, why.
    """
    binary.forget()  # a worker may be older than its QEMU
    emulators: dict[Qemu, str] = {}
    for name, arch in itertools.product((None, *qemus), ARCHES):
        with contextlib.suppress(UserError):
            found = binary.find_qemu(arch, qemus[name] if name else None)
            emulators[name, arch] = binary.build_of(found.path)
    return {**VERSIONS, "qemu": emulators, "unfit": _unfit()}


def _unfit() -> str | None:
    """Why no case can run here: there is no room where they run, or for what comes to them."""
    try:
        for place in (Path(tempfile.gettempdir()), default_cache_dir()):
            with (
                disk_errors(place),
                scratch.directory(place) as made,
                (made / "room").open("wb") as file,
            ):
                os.posix_fallocate(file.fileno(), 0, Budget().console_bytes)
    except UserError as error:
        return str(error)
    return None


def keep(sha256: str, content: bytes) -> str | None:
    """Keeps what a case needs; if that cannot be, gives why."""
    try:
        luggage.keep(sha256, content)
    except (UserError, FetchError, OSError, ValueError) as error:
        return one_line(str(error))
    return None if luggage.kept(sha256) else "does not keep what it is sent"


def lacking(files: tuple[str, ...]) -> tuple[str, ...]:
    """What of this is not here."""
    return tuple(sha256 for sha256 in files if luggage.kept(sha256) is None)


@dataclass(frozen=True, slots=True)
class Worker:
    """One that is there: another process has another id, also at the same address."""

    id: str
    threads: int


def workers_there(dask_scheduler: Any) -> dict[str, Worker]:
    """On the scheduler: its workers, by their addresses."""
    there = dask_scheduler.workers.values()
    return {each.address: Worker(each.server_id, each.nthreads) for each in there}


def lost_under(key: str, dask_scheduler: Any) -> int:
    """On the scheduler: how many workers were lost while they had a task."""
    task = dask_scheduler.tasks.get(key)
    return 0 if task is None else task.suspicious
