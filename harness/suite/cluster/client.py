"""The matrix's side of the cluster: a dask.distributed client that boots cases elsewhere.

Owns the connection, which worker may run what, and what is sent where. A case whose worker was lost
runs on another one, and for no other reason does a case run twice. Must not know pytest.

Sources: distributed.dask.org, "Client", "Task launch", "TLS/SSL" and "Worker resources".
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError as NotYet
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bootproof.harness import VERSION, typedjson
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.host.process import RUNNING
from bootproof.harness.inputs import images
from bootproof.harness.prepare import initrd_of
from bootproof.harness.results import results
from bootproof.harness.results.results import CaseResult
from bootproof.harness.suite.cluster import luggage, work
from bootproof.harness.suite.cluster.luggage import Sent
from bootproof.harness.verdict import Verdict
from bootproof.loader.errors import one_line

_SCHEMES: Final = ("tcp", "tls")
_PLAIN: Final = "plain+"
_TLS: Final = {  # dask's settings, and the fields of its Security
    "CA_FILE": "tls_ca_file",
    "CLIENT__CERT": "tls_client_cert",
    "CLIENT__KEY": "tls_client_key",
}
_CONNECT_SECONDS: Final = 30
_LOOK_SECONDS: Final = 2.0
_MOST_WORKERS_LOST: Final = 3  # under one case: then it is the case that does it


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
    if parts.scheme not in _SCHEMES or not parts.hostname or port is None:
        raise UserError(f"--cluster: {address!r} must be tcp://HOST:PORT or tls://HOST:PORT")
    if parts.scheme == "tcp" and not plain and not _is_loopback(parts.hostname):
        raise UserError(
            f"--cluster: {address} is not encrypted and not on this machine: anybody there could"
            f" run code on every worker; use tls:// (docs/scale.md), or {_PLAIN}{address} where the"
            " network itself is trusted"
        )
    return bare


def _is_loopback(host: str) -> bool:
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(str(each).partition("%")[0]).is_loopback for each in found)


class Cluster:
    """A scheduler and its workers; any thread may call `boot`."""

    def __init__(self, client: Any, abilities: Mapping[str, Mapping[str, Any]]) -> None:
        self._client = client
        self._abilities = dict(abilities)
        self._lock = threading.Lock()
        self._running: set[Any] = set()

    @property
    def slots(self) -> int:
        """How many cases all workers together run at once."""
        return sum(self._client.nthreads().values())

    def prepare(self, cases: Sequence[Case]) -> None:
        """Gives every worker, now and later, what the cases read; each file once a worker.

        Raises UserError for a case that no worker can run, before any of them runs.
        """
        from bootproof.harness.suite.cluster.delivery import Delivery

        for case in cases:
            if case.qemu is not None:
                raise UserError(f"{case.id}: names a QEMU, and --cluster has those of its workers")
            if not self._able(case):
                raise UserError(f"--cluster: no worker can run {case.id}: {self._why_not(case)}")
        contents = {sent: content for case in cases for sent, content in _files(case).values()}
        missing = self._client.run(work.lacking, tuple(contents))
        for sent in {sent for each in missing.values() for sent in each}:
            delivery = Delivery(sent, contents[sent]())
            self._client.register_plugin(delivery, name=f"bootproof-{sent.sha256}")

    def boot(self, case: Case, directory: Path, reproduce: str, *, keep_ram: bool) -> CaseResult:
        """Boots a case on a worker that can, and brings its run directory here.

        Raises UserError when no worker is left for it, and as `prove`.
        """
        sent = {name: file for name, (file, _) in _files(case).items()}
        job = work.Job(case, sent, reproduce, keep_ram)
        done = self._done(job)
        luggage.unpacked(done.files, directory)
        return replace(typedjson.from_json(CaseResult, done.result), directory=str(directory))

    def _done(self, job: work.Job) -> work.Done:
        """What became of a job; while its workers get lost, it goes to others."""
        for _ in range(_MOST_WORKERS_LOST):
            with self._submitted(job) as future:
                done = self._waited_for(future, job.case)
            if done is not None:
                return done
            self._abilities = dict(self._client.run(work.abilities))
        raise UserError(f"--cluster: {_MOST_WORKERS_LOST} workers were lost under {job.case.id}")

    @contextlib.contextmanager
    def _submitted(self, job: work.Job) -> Iterator[Any]:
        able = self._able(job.case)
        if not able:
            raise UserError(f"--cluster: every worker that can run {job.case.id} has gone")
        key = f"bootproof-{job.case.id}-{uuid.uuid4()}"
        future = self._client.submit(work.boot, job, workers=able, pure=False, key=key)
        with self._lock:
            self._running.add(future)
        try:
            yield future
        finally:
            with self._lock:
                self._running.discard(future)
            future.release()

    def _waited_for(self, future: Any, case: Case) -> work.Done | None:
        """Its result; None when no worker that could give it is there any more."""
        from distributed import KilledWorker

        while True:
            if RUNNING.ending:
                raise KeyboardInterrupt
            try:
                done: work.Done = future.result(timeout=_LOOK_SECONDS)
            except (NotYet, TimeoutError):
                there = self._client.scheduler_info(n_workers=-1)["workers"]
                if not any(worker in there for worker in self._able(case)):
                    return None
            except KilledWorker:
                return None
            else:
                return done

    def _able(self, case: Case) -> list[str]:
        needs = case.expect.verdict is not Verdict.LOAD_REFUSED
        return [
            worker
            for worker, has in self._abilities.items()
            if _is_ours(has) and (case.arch in has["qemu"] or not needs)
        ]

    def _why_not(self, case: Case) -> str:
        others = [has["bootproof"] for has in self._abilities.values() if not _is_ours(has)]
        if others:
            return f"bootproof {others[0]} is there, {VERSION} is here"
        return f"none of {len(self._abilities)} has a QEMU for {case.arch}"

    def cancel(self) -> None:
        """Ends every case that this client has running."""
        with self._lock:
            running = list(self._running)
        with contextlib.suppress(Exception):  # the cluster may be what has gone
            self._client.cancel(running, force=True)
            self._client.run(work.end_all)

    def close(self) -> None:
        self._client.close()


def connect(address: str) -> Cluster:
    """Connects to a scheduler and asks its workers what they have. Raises UserError."""
    address = checked(address)
    try:
        import distributed

        dask: Any = distributed  # which has no types worth the name
    except ImportError as error:
        raise UserError(
            "--cluster needs dask.distributed: pip install 'bootproof[cluster]'"
        ) from error
    encrypted = address.startswith("tls:")
    if encrypted:
        _check_certificates(dask.Security())
    try:
        client: Any = dask.Client(address, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        advice = "; the certificates of both sides must be of one authority" if encrypted else ""
        raise UserError(f"--cluster: {address}: {one_line(str(error))}{advice}") from error
    try:
        client.run_on_scheduler(work.abilities)  # it unpacks what the workers get
        abilities = client.run(work.abilities)
    except Exception as error:  # whatever went wrong there, also an import
        client.close()
        remedy = f"bootproof {VERSION} must be installed for the scheduler and each worker"
        raise UserError(f"--cluster: {address}: {one_line(str(error))}; {remedy}") from error
    if not abilities:
        client.close()
        raise UserError(f"--cluster: {address}: the scheduler has no worker")
    return Cluster(client, abilities)


def _check_certificates(security: Any) -> None:
    """Raises UserError for what dask needs for TLS and has not been told, or cannot read."""
    for name, field in _TLS.items():
        variable, given = f"DASK_DISTRIBUTED__COMM__TLS__{name}", getattr(security, field)
        if given is None:
            raise UserError(f"--cluster: TLS needs {variable} (docs/scale.md)")
        if "\n" not in given and not Path(given).is_file():  # dask takes the text itself as well
            raise UserError(f"--cluster: {variable}: {given}: no such file")


def _files(case: Case) -> dict[str, tuple[Sent, Callable[[], bytes]]]:
    """What a case reads, by what it is to the case: where it is found, and how it is read here."""
    kernel, initrd = images.kernel_file(case.kernel_source), initrd_of(case)
    digest = hashlib.sha256(initrd).hexdigest()
    return {
        work.KERNEL: (Sent(kernel.sha256, kernel.path.name), kernel.content.path.read_bytes),
        work.INITRD: (Sent(digest, "initrd"), lambda: initrd),
    }


def _is_ours(has: Mapping[str, Any]) -> bool:
    return (has["bootproof"], has["results"]) == (VERSION, results.VERSION)
