"""The matrix's side of the cluster: a dask.distributed client that boots cases elsewhere.

Owns the connection, and what is sent where. A case whose worker was lost, or could not run it, runs
on another one, and for no other reason does a case run twice. Must not know pytest.

Sources: distributed.dask.org, "Client", "Task launch", "TLS/SSL" and "Why did my worker die?".
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import ipaddress
import logging
import socket
import ssl
import threading
import time
import uuid
from asyncio import CancelledError as LoopCancelled
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotYet
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from bootproof.dataclass import dataclass
from bootproof.harness import VERSION, typedjson
from bootproof.harness.case import Case
from bootproof.harness.cases import select
from bootproof.harness.errors import UserError
from bootproof.harness.host import rundir
from bootproof.harness.host.process import RUNNING
from bootproof.harness.host.stdout import say
from bootproof.harness.prepare import Inputs, inputs_of
from bootproof.harness.results.results import CaseResult
from bootproof.harness.suite.cluster import luggage, work
from bootproof.harness.suite.cluster.work import Done, Failed, Job, Lacks
from bootproof.harness.suite.cluster.workers import (
    LOOK_SECONDS,
    Workers,
    asked,
    difference,
    told_of,
)
from bootproof.loader.address import MIB
from bootproof.printable import one_line

_SCHEMES: Final = ("tcp", "tls")
_PLAIN: Final = "plain+"
_TLS: Final = {  # dask's settings, and the fields of its Security
    "CA_FILE": "tls_ca_file",
    "CLIENT__CERT": "tls_client_cert",
    "CLIENT__KEY": "tls_client_key",
}
_ADVICE: Final = {
    False: "is it there, and without TLS?",
    True: "has it TLS? The certificates of both sides must be of one authority",
}
_CONNECT_SECONDS: Final = 30
_BRINGING_SECONDS: Final = 300.0  # for a result of any size, to come from its worker
_CLOSE_SECONDS: Final = 5
_MOST_REMEMBERED: Final = 4 * MIB  # bytes: no archive of ours is larger
_MOST_WORKERS_LOST: Final = 3  # under one case, as dask has it: then it is the case that does it

Contents: TypeAlias = Mapping[str, Callable[[], bytes]]
"""How files are read here, by their digests."""


def checked(address: str) -> str:
    """The address as dask knows it. Raises UserError for what is none, or would run in the open.

    Whoever reaches an unencrypted scheduler can run code on all its machines: only loopback may be
    one, unless `plain+tcp://` says that the network is trusted.
    """
    plain = address.startswith(_PLAIN)
    bare = address.removeprefix(_PLAIN)
    parts = urlsplit(bare)
    try:
        port = parts.port
    except ValueError:
        port = None
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    if parts.scheme not in _SCHEMES or bare.lower() != f"{parts.scheme}://{host}:{port}":
        raise UserError(f"--cluster: {address!r} must be tcp://HOST:PORT or tls://HOST:PORT")
    if parts.scheme == "tcp" and not plain and not _is_loopback(str(parts.hostname)):
        raise UserError(
            f"--cluster: {address} is not encrypted and not on this machine: anybody there could"
            f" run code on every worker; use tls:// (docs/scale.md), or {_PLAIN}{address} where the"
            " network itself is trusted"
        )
    return bare.lower()


def _is_loopback(host: str) -> bool:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise UserError(f"--cluster: {host}: {error.strerror}") from error
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)


Told: TypeAlias = Done | Lacks | Failed
"""What a worker says of a job."""


@dataclass(slots=True)
class _Attempts:
    """What has become of a job so far."""

    # How many workers were lost while they had it.
    lost: int = 0
    # Those that were sent what they lacked.
    supplied: set[str] = field(default_factory=set)
    # Those that could not run it, and why.
    failed: dict[str, str] = field(default_factory=dict)
    # The first of its results that say nothing of the guest.
    of_host: Done | None = None


class Cluster:
    """A connection to a scheduler. Close it in the end."""

    def __init__(self, client: Any, workers: Workers) -> None:
        self._client = client
        self._workers = workers
        self._lock = threading.Lock()
        self._running: set[Any] = set()
        self._sending: dict[str, threading.Lock] = {}
        self._gone: str | None = None

    @property
    def slots(self) -> int:
        """How many cases all workers together run at once."""
        return self._workers.slots

    def check(self, cases: Sequence[Case]) -> None:
        """Raises UserError for a case that no worker can run, before any of them runs."""
        for case in cases:
            if not self._workers.able(case):
                why = self._workers.why_not(case)
                raise UserError(f"--cluster: no worker can run {case.id}: {why}")
        self._workers.tell({*map(asked, cases)})

    def boot(self, case: Case, directory: Path, reproduce: str, *, keep_ram: bool) -> CaseResult:
        """Boots a case on a worker that can, and brings its run directory here.

        Raises UserError when no worker is left for it, and as `prove`.
        """
        # First: of what comes to nothing, no earlier run may tell.
        rundir.make_fresh(directory, case.files)
        job, contents = packed_up(case, inputs_of(case), reproduce, keep_ram=keep_ram)
        done = self._done(replace(job, qemus=self._workers.qemus), contents)
        luggage.unpacked(done.files, directory)
        return replace(typedjson.from_json(CaseResult, done.result), directory=str(directory))

    def _done(self, job: Job, contents: Contents) -> Done:
        """What became of a job. Its worker is sent what it lacks; if that is lost, or cannot run
        it, another one is asked.
        """
        so_far = _Attempts()
        while so_far.lost <= _MOST_WORKERS_LOST:
            with self._reaching():
                if not (able := self._able(job.case, so_far.failed)):
                    return self._at_last(job.case, so_far)
                worker, told = self._answer(job, able, so_far)
                if isinstance(told, Lacks):
                    told = self._supply(worker, told.files, contents, so_far)
                if isinstance(told, Done):
                    told = self._believed(job.case, told, so_far)
                if isinstance(told, Done):
                    if told.of_host is None:
                        self._workers.ran(worker, so_far.failed)
                    return told
                if isinstance(told, Failed):
                    self._elsewhere(job.case, worker, told.why, so_far)
        raise UserError(f"--cluster: {so_far.lost} workers were lost under {job.case.id}")

    def _believed(self, case: Case, done: Done, so_far: _Attempts) -> Done | Failed:
        """The result, unless another worker may have a better one. What two say of their guests'
        hosts is what the case does to any.
        """
        key, build = done.result["key"], self._workers.build(case)
        if select.boots(case) and key is not None and key["qemu"] != build:
            return Failed(f"its QEMU has become {key['qemu']}; this run is on {build}")
        if done.of_host is None or so_far.of_host is not None:
            return done
        so_far.of_host = done
        return Failed(done.of_host)

    def _elsewhere(self, case: Case, worker: str, why: str, so_far: _Attempts) -> None:
        """Notes that a worker could not run a case, which says nothing of the case."""
        so_far.failed[worker] = why
        if self._workers.another(case, so_far.failed):
            say(f"--cluster: {case.id} runs again elsewhere: {worker}: {why}")
        self._workers.ask_again(worker)

    def _at_last(self, case: Case, so_far: _Attempts) -> Done:
        """What there is where no worker is left. Raises UserError."""
        if so_far.of_host is not None:
            return so_far.of_host
        if so_far.failed:
            raise UserError(told_of(so_far.failed))
        why = self._workers.why_not(case)
        raise UserError(f"--cluster: no worker is left that can run {case.id}: {why}")

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        """Once the scheduler has gone it is not waited for again. Raises UserError."""
        if self._gone is not None:
            raise UserError(self._gone)
        try:
            yield
        except (CancelledError, LoopCancelled, OSError) as error:
            if RUNNING.ending:
                raise KeyboardInterrupt from error
            self._gone = "--cluster: the connection to the scheduler was lost"
            raise UserError(self._gone) from error

    def _answer(self, job: Job, able: list[str], so_far: _Attempts) -> tuple[str, Told | None]:
        """What one of these workers makes of a job, and which; nothing where they were lost."""
        from distributed import KilledWorker

        with self._submitted(job, able) as future:
            try:
                worker, told = self._waited_for(future, able)
            except KilledWorker:
                so_far.lost = _MOST_WORKERS_LOST + 1
                return "", None
            if not isinstance(told, Done):
                so_far.lost += self._client.run_on_scheduler(work.lost_under, future.key)
            return worker, told

    def _able(self, case: Case, failed: Mapping[str, str]) -> list[str]:
        """Those that can run a case and have not failed to; what was killed may be about to be
        started again.
        """
        while not (able := self._workers.another(case, failed)):
            if RUNNING.ending:
                raise KeyboardInterrupt
            if self._workers.hopeless(case):
                break
            time.sleep(LOOK_SECONDS)
            self._workers.look()
        return able

    @contextlib.contextmanager
    def _submitted(self, job: Job, able: list[str]) -> Iterator[Any]:
        from bootproof.harness.suite.cluster import task

        key = f"bootproof-{job.case.id}-{uuid.uuid4()}"
        future = self._client.submit(task.run, job, workers=able, pure=False, key=key)
        with self._lock:
            self._running.add(future)
        try:
            yield future
        finally:
            with self._lock:
                self._running.discard(future)
            future.release()

    def _waited_for(self, future: Any, able: list[str]) -> tuple[str, Told | None]:
        """What a worker says, and which: none, where all of those that it was for have gone."""
        while True:
            if RUNNING.ending:
                raise KeyboardInterrupt
            try:
                future.exception(timeout=LOOK_SECONDS)
                # What is given up on its way begins anew, and so do others that come with it: dask
                # then has an UnboundLocalError for them.
                answered: tuple[str, Told] = future.result(timeout=_BRINGING_SECONDS)
            except (NotYet, TimeoutError, UnboundLocalError):
                self._workers.look()
                if not any(map(self._workers.has, able)):
                    return "", None
            else:
                return answered

    def _supply(
        self, worker: str, lacks: tuple[str, ...], contents: Contents, so_far: _Attempts
    ) -> Failed | None:
        """Sends a worker what it lacks, unless the thread of another case has just done it."""
        if worker in so_far.supplied:
            return Failed("does not keep what it is sent")
        so_far.supplied.add(worker)
        with self._lock:
            sending = self._sending.setdefault(worker, threading.Lock())
        with sending:
            for sha256 in self._on(worker, work.lacking, lacks) or ():
                why: str | None = self._on(worker, work.keep, sha256, contents[sha256]())
                if why is not None:
                    return Failed(why)
        return None

    def _on(self, worker: str, function: Callable[..., Any], *values: Any) -> Any:
        """What a function gives on a worker; None when that is lost. Raises UserError."""
        told = self._client.run(function, *values, workers=[worker], on_error="return")[worker]
        if isinstance(told, OSError):
            return None
        if isinstance(told, Exception):
            raise UserError(f"{worker}: {one_line(str(told))}") from told
        return told

    def cancel(self) -> None:
        """Ends every case that this client has running: their workers see it."""
        with self._lock:
            running = list(self._running)
        with contextlib.suppress(Exception):  # the cluster may be what has gone
            self._client.cancel(running, force=True)

    def close(self) -> None:
        _close(self._client)


def connect(address: str, qemus: Mapping[str, str]) -> Cluster:
    """Connects to a scheduler and asks its workers what they have; `qemus` are the paths there of
    those that cases name. Raises UserError.
    """
    address = checked(address)
    dask = _dask()
    encrypted = address.startswith("tls:")
    if encrypted:
        check_certificates(dask.Security())
    try:
        client = _connected(dask, address)
    except (OSError, TimeoutError, ValueError) as error:
        said = one_line(str(error)) or "the connection was closed"
        raise UserError(f"--cluster: {address}: {said}; {_ADVICE[encrypted]}") from error
    try:
        return Cluster(client, _workers_of(client, qemus))
    except BaseException as error:
        _close(client)
        if isinstance(error, UserError | OSError):
            raise UserError(f"--cluster: {address}: {one_line(str(error))}") from error
        raise


def _connected(dask: Any, address: str) -> Any:
    """A client of a scheduler. Raises OSError, TimeoutError and ValueError.

    One that is interrupted as it begins is not closed when nobody refers to it any more, as dask
    has it: that waits a minute for what will not come.
    """
    ours: Any = type("Client", (dask.Client,), {"__del__": lambda _: None})
    return ours(address, timeout=_CONNECT_SECONDS, set_as_default=False)


def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        client.close(timeout=_CLOSE_SECONDS)


def _dask() -> Any:
    """The library, which has no types worth the name. Raises UserError."""
    try:
        import distributed
    except ImportError as error:
        raise UserError(
            "--cluster needs dask.distributed: pip install 'bootproof[cluster]'"
        ) from error
    for name in ("distributed", "distributed.client"):  # we say what becomes of the connection
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    return distributed


def _workers_of(client: Any, qemus: Mapping[str, str]) -> Workers:
    """Those of a scheduler that can run something. Raises UserError; OSError when it has gone."""
    try:
        differs = difference(client.run_on_scheduler(work.versions))
    except OSError:
        raise
    except Exception as error:  # whatever it is: an import, most likely
        raise UserError(
            f"the scheduler: {one_line(str(error))}; bootproof {VERSION} must be there"
        ) from error
    if differs:  # it unpacks what the workers get
        raise UserError(f"the scheduler: {differs}")
    workers = Workers(client, qemus)
    if not workers.slots:
        raise UserError(workers.none_left())
    return workers


def check_certificates(security: Any) -> None:
    """Raises UserError for what dask needs for TLS and has not been told, or cannot read."""
    files: dict[str, str] = {}
    for name, attribute in _TLS.items():
        variable, given = f"DASK_DISTRIBUTED__COMM__TLS__{name}", getattr(security, attribute)
        if given is None:
            raise UserError(f"--cluster: TLS needs {variable} (docs/scale.md)")
        files[name] = given
        if "\n" not in given and not Path(given).is_file():  # dask takes the text itself as well
            raise UserError(f"--cluster: {variable}: {given}: no such file")
    if any("\n" in given for given in files.values()):
        return
    ca_file, certificate, key = (files[name] for name in _TLS)
    try:
        ssl.create_default_context(cafile=ca_file).load_cert_chain(certificate, key, _no_password)
    except (OSError, ValueError) as error:
        which = f"{certificate}, {key} and {ca_file}"
        raise UserError(f"--cluster: TLS: {which}: {one_line(str(error))}") from error


def _no_password() -> str:
    """Dask would ask for it on the terminal, if there is one."""
    raise ValueError("the key has a password: take one without")


def _digest(content: bytes) -> str:
    """Of an initrd or a device tree. Most cases have the same object, our archive, and hashing that
    was half of what a case cost here; users' may be large, and are not kept for it.
    """
    return (_remembered if len(content) <= _MOST_REMEMBERED else _sha256)(content)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_remembered: Final = functools.lru_cache(maxsize=16)(_sha256)


def packed_up(
    case: Case, inputs: Inputs, reproduce: str, *, keep_ram: bool
) -> tuple[Job, Contents]:
    """What a worker is told of a case, and what it is sent if it lacks that."""
    contents: dict[str, Callable[[], bytes]] = {inputs.kernel.sha256: inputs.kernel.read}
    digests: list[str | None] = []
    for content in (inputs.initrd, inputs.dtb):
        digest = None if content is None else _digest(content)
        digests.append(digest)
        if digest is not None and content is not None:
            contents[digest] = content.__bytes__
    initrd, dtb = digests
    job = Job(
        case=case,
        kernel=inputs.kernel.sha256,
        kernel_name=inputs.kernel.name,
        initrd=initrd,
        has_init=inputs.has_init,
        dtb=dtb,
        reproduce=reproduce,
        keep_ram=keep_ram,
    )
    return job, contents
