"""A matrix on a real scheduler and real workers, all on this machine."""

from __future__ import annotations

import contextlib
import gc
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from bootproof.harness.case import Case, Expectation
from bootproof.harness.errors import UserError
from bootproof.harness.suite.cluster import client
from bootproof.harness.suite.cluster.workers import Workers
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, bootproof_matrix, environment, started, vmlinux_with_text
from tests.builders.programs import host_program

SECONDS = 180
_DASK = (sys.executable, "-m")
ANOTHER_PYTHON = """
from distributed import worker
ours = worker.get_versions()
worker.get_versions = lambda: {**ours, "packages": {**ours["packages"], "python": "3.99.0.final.0"}}
"""


@dataclass
class Site:
    """A scheduler, its workers, and where they leave their things."""

    directory: Path
    address: str
    tls: Mapping[str, str] = field(default_factory=dict)  # dask's options, and files
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, program: str, *words: str, **variables: str) -> subprocess.Popen[bytes]:
        tls = [f"--tls-{name}={file}" for name, file in self.tls.items()]
        with (self.directory / f"{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                [*_DASK, f"distributed.cli.dask_{program}", *words, *tls, "--no-dashboard"],
                cwd=self.directory,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def worker(self, name: str, *more: str, **variables: str) -> subprocess.Popen[bytes]:
        cache = str(self.directory / f"cache-{name}")
        place = str(self.directory / name)
        words = (self.address, "--nthreads=1", "--no-nanny", f"--local-directory={place}")
        return self.start("worker", *words, *more, BOOTPROOF_CACHE=cache, **variables)

    def wait_for(self, workers: int) -> None:
        from distributed import Client, Security

        whole, security = cast(Any, Client), None
        if self.tls:
            ca_file, *pair = (str(self.directory / file) for file in self.tls.values())
            security = cast(Any, Security)(
                tls_ca_file=ca_file, tls_client_cert=pair[0], tls_client_key=pair[1]
            )
        with whole(self.address, timeout=SECONDS, security=security) as connection:
            connection.wait_for_workers(workers, timeout=SECONDS)


@contextmanager
def running(directory: Path, scheme: str, **tls: str) -> Iterator[Site]:
    """A scheduler on a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {name.replace("_", "-"): file for name, file in tls.items()}
    site = Site(directory, f"{scheme}://127.0.0.1:{port}", options)
    site.start("scheduler", f"--host={scheme}://127.0.0.1", f"--port={port}", "--no-show")
    try:
        yield site
    finally:
        for process in reversed(site.processes):
            process.kill()
            process.wait()


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("site"), "tcp") as site:
        yield site


def cases(directory: Path, endless: int = 0) -> list[Case]:
    """Guests that reset and that panic, and some that never end by themselves."""
    resets = X86Program(LOAD).say(b"one\n").reset()
    panics = X86Program(LOAD).say(b"Kernel panic - not syncing: two\r\n").reset()
    kinds = [("resets", resets, Verdict.CPU_RESET), ("panics", panics, Verdict.PANIC)] * 2
    kinds += [("never", X86Program(LOAD).say_for_ever(b"again\n"), Verdict.CONSOLE_LIMIT)] * endless
    made = []
    for number, (name, program, verdict) in enumerate(kinds):
        path = directory / f"{name}.elf"
        path.write_bytes(vmlinux_with_text(program))
        wanted = Expectation(verdict, why="a test")
        made.append(
            Case(
                *("x86_64", f"{name}{number}", "elf", "linux64"),
                memory=32 * MIB,
                kernel_path=str(path),
                expect=wanted,
            )
        )
    return made


def matrix(
    directory: Path, chosen: Sequence[Case], variables: Mapping[str, str] = {}, **options: Any
) -> subprocess.Popen[str]:
    directory.mkdir(exist_ok=True)
    return started(bootproof_matrix(directory, chosen, **options), directory, **variables)


def guests_of(worker: subprocess.Popen[bytes], run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The guests of a worker, as soon as it has some; a QEMU that says its version is none."""
    deadline = time.monotonic() + SECONDS
    while True:
        assert run.poll() is None and time.monotonic() < deadline
        with contextlib.suppress(psutil.Error):  # one that has just ended
            started = psutil.Process(worker.pid).children(recursive=True)
            if guests := [each for each in started if "-nodefaults" in each.cmdline()]:
                return guests
        time.sleep(0.05)


def results(directory: Path) -> Any:
    """results.json without what no two runs share: times, and where they were."""
    found = json.loads((directory / "out/results.json").read_text("utf-8"))
    for case in found["cases"]:
        for key in ("seconds", "harness_seconds", "cpu_seconds", "directory", "reproduce"):
            case.pop(key)
    return found["cases"]


def files(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Rights of all files of a run, and what is in those that have no times in them."""
    timed = ("result.json", "transcript.log", "replay.bin")
    return {
        path.name: (path.stat().st_mode, b"" if path.name in timed else path.read_bytes())
        for path in directory.iterdir()
    }


def test_a_run_on_two_workers_is_that_of_this_machine(site: Site, tmp_path: Path) -> None:
    """All but times is the same; run directories came back, with nothing of an earlier run."""
    chosen = cases(tmp_path)
    why = "no kernel of 64 bits lies there"
    refused = Expectation(Verdict.LOAD_REFUSED, why=why)
    chosen.append(replace(chosen[0], offset=3, expect=refused))
    alone = matrix(tmp_path / "alone", chosen, jobs=2)
    said = alone.communicate(timeout=SECONDS)[0]
    assert alone.returncode == 0, said
    site.worker("first")
    site.worker("second")
    site.wait_for(2)
    for case in chosen:  # of a run that was cut short
        earlier = tmp_path / "there/out" / case.id
        earlier.mkdir(parents=True)
        (earlier / "qemu.sh").touch()
        (earlier / "dmesg.log").touch()
    there = matrix(tmp_path / "there", chosen, cluster=site.address)
    said = there.communicate(timeout=SECONDS)[0]
    assert there.returncode == 0, said
    assert "5 of 5 cases as expected" in re.sub(r"\s+", " ", said)
    assert results(tmp_path / "there") == results(tmp_path / "alone")
    for case in chosen:
        assert files(tmp_path / "there/out" / case.id) == files(tmp_path / "alone/out" / case.id)
    sent = [*site.directory.glob("cache-*/received/*/content")]
    assert 3 <= len(sent) <= 6, sent  # two kernels, and the archive of the proof


@pytest.mark.filterwarnings("ignore:Mismatched versions:Warning")  # here, while it is waited for
def test_a_worker_may_have_another_python(site: Site, tmp_path: Path) -> None:
    """Dask warns of it, and pytest would have made an error of the warning."""
    (site.directory / "another.py").write_text(ANOTHER_PYTHON)
    site.worker("another", "--preload=another.py")
    site.wait_for(1)
    there = matrix(tmp_path / "there", cases(tmp_path)[:1], cluster=site.address)
    said = there.communicate(timeout=SECONDS)[0]
    assert there.returncode == 0, said
    assert "Mismatched" not in said


def test_a_lost_worker_loses_and_doubles_nothing(site: Site, tmp_path: Path) -> None:
    """One of two is killed while it boots: its case runs on the other one."""
    lost = site.worker("lost")
    site.wait_for(1)
    process = matrix(tmp_path / "there", cases(tmp_path), cluster=site.address)
    guests = guests_of(lost, process)
    site.worker("left")
    site.wait_for(2)
    lost.kill()
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, said
    assert "4 of 4 cases as expected" in re.sub(r"\s+", " ", said)
    assert not psutil.wait_procs(guests, timeout=10)[1]  # none outlived its worker


def has_room_for(worker: subprocess.Popen[bytes], size: int) -> None:
    """From now on it can write no larger file, as on a disk that is nearly full."""
    psutil.Process(worker.pid).rlimit(psutil.RLIMIT_FSIZE, (size, size))


def test_a_worker_whose_disk_is_full_attracts_no_cases(site: Site, tmp_path: Path) -> None:
    """It would fail each in no time and be given the next one, to the last of the run. Where all
    are so, that is what is said.
    """
    bad, good = site.worker("bad"), site.worker("good")
    site.wait_for(2)
    chosen = [
        replace(case, kernel=f"{case.kernel}-{again}")
        for again in range(3)
        for case in cases(tmp_path)
    ]
    has_room_for(bad, 24 * MIB)  # for the console's file, and not for the RAM of any guest
    process = matrix(tmp_path / "there", chosen, cluster=site.address)
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 0, said
    assert "12 of 12 cases as expected" in re.sub(r"\s+", " ", said)
    worker = r"tcp://127\.0\.0\.1:\d+"
    assert len(re.findall(rf"runs again elsewhere: {worker}: .*File too large\n", said)) >= 3
    why = "3 cases that others ran failed there, last: .*File too large"
    assert len(re.findall(rf"--cluster: {worker} is left out: {why}\n", said)) == 1
    for each in (bad, good):
        has_room_for(each, MIB)
    process = matrix(tmp_path / "nowhere", chosen, cluster=site.address)
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 2
    why = rf"{worker}: {re.escape(tempfile.gettempdir())}: File too large"
    assert re.fullmatch(rf"bootproof: --cluster: {site.address}: {why}; {why}\n", said), said


def test_who_joins_later_gets_cases_beside_those_that_are_there(site: Site, tmp_path: Path) -> None:
    first = site.worker("first")
    site.wait_for(1)
    process = matrix(tmp_path / "there", cases(tmp_path, endless=3)[-3:], cluster=site.address)
    guests = guests_of(first, process)
    second = site.worker("second")
    guests += guests_of(second, process)
    process.terminate()
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode in (130, 143), said
    assert not psutil.wait_procs(guests, timeout=20)[1]


def test_whatever_ends_a_matrix_ends_its_guests_on_the_workers(site: Site, tmp_path: Path) -> None:
    worker = site.worker("only")
    site.wait_for(1)
    endless = cases(tmp_path, endless=1)[-1:]
    process = matrix(tmp_path / "there", endless, cluster=site.address)
    guests = guests_of(worker, process)
    process.terminate()
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode in (130, 143), said
    assert not psutil.wait_procs(guests, timeout=20)[1]
    assert worker.poll() is None
    # The next one is killed, which can tell nobody; and of one more the scheduler is.
    process = matrix(tmp_path / "killed", endless, cluster=site.address)
    guests = guests_of(worker, process)
    process.kill()
    process.communicate()
    assert not psutil.wait_procs(guests, timeout=20)[1]
    process = matrix(tmp_path / "alone", endless, cluster=site.address)
    guests = guests_of(worker, process)
    site.processes[0].kill()
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 2
    assert "the connection to the scheduler was lost\n" in said
    assert "Traceback" not in said
    assert not psutil.wait_procs(guests, timeout=20)[1]


def test_a_result_is_brought_however_long_it_takes(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked at meanwhile does not have it begin anew."""
    from distributed import Client

    monkeypatch.setattr(client, "LOOK_SECONDS", 0.02)
    site.worker("one")
    site.wait_for(1)
    with cast(Any, Client)(site.address, timeout=SECONDS, set_as_default=False) as connection:
        able = [*connection.scheduler_info()["workers"]]
        large = connection.submit(bytes, 100 * MIB, pure=False)
        waited_for = client.Cluster(connection, Workers(connection, {}))._waited_for
        assert len(cast(bytes, waited_for(large, able))) == 100 * MIB


def test_a_case_that_no_worker_can_run_is_said_before_any_runs(site: Site, tmp_path: Path) -> None:
    site.worker("only", BOOTPROOF_QEMU_X86_64="/nonexistent/qemu")
    site.wait_for(1)
    process = matrix(tmp_path / "there", cases(tmp_path), cluster=site.address)
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 2, said
    assert "no worker can run" in said
    assert "none of 1 has a QEMU for x86_64" in said
    assert not list((tmp_path / "there").glob("out/*/console.log"))


def test_the_qemu_of_a_case_is_that_of_its_worker(site: Site, tmp_path: Path) -> None:
    """Beside that of its environment; what is at its path here does not matter."""
    site.worker("only", BOOTPROOF_QEMU_X86_64="none")
    site.wait_for(1)
    chosen, qemu = cases(tmp_path)[:2], "mine=qemu-system-x86_64"
    here = {"BOOTPROOF_QEMU_X86_64": "none", "PATH": "/nonexistent"}
    there = matrix(tmp_path / "there", chosen, here, cluster=site.address, qemu=(qemu,))
    said = there.communicate(timeout=SECONDS)[0]
    assert there.returncode == 0, said
    assert "2 of 2 cases as expected" in re.sub(r"\s+", " ", said)
    assert all(case["case"].endswith("-mine") for case in results(tmp_path / "there"))
    nowhere = ("mine=/nonexistent",)
    there = matrix(tmp_path / "there", chosen, cluster=site.address, qemu=nowhere)
    said = there.communicate(timeout=SECONDS)[0]
    assert there.returncode == 2, said
    assert "none of 1 has a QEMU for x86_64 at /nonexistent\n" in said


def test_who_is_interrupted_as_it_connects_waits_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask would close the client that it has half made, and now and then wait a minute for it."""
    import distributed

    closed: list[bool] = []

    def interrupted(made: Any, **_: object) -> None:
        made._loop_runner.start()
        assert made.loop is not None
        raise KeyboardInterrupt

    gc.collect()  # those of other tests
    monkeypatch.setattr(distributed.Client, "start", interrupted)
    monkeypatch.setattr(distributed.Client, "close", lambda _: closed.append(True))
    with contextlib.suppress(KeyboardInterrupt):  # and nobody refers to it any more
        client.connect("tcp://127.0.0.1:9", {})
    gc.collect()
    assert not closed


def test_a_scheduler_without_a_worker(site: Site, tmp_path: Path) -> None:
    process = matrix(tmp_path / "there", cases(tmp_path), cluster=site.address)
    said = process.communicate(timeout=SECONDS)[0]
    assert process.returncode == 2
    assert "the scheduler has no worker" in said


# --- TLS ---------------------------------------------------------------------------------------


def certificate(directory: Path, name: str, authority: str | None = None) -> None:
    """NAME.pem and NAME.key, as openssl makes them; signed by itself, or by an authority there."""
    words = [host_program("openssl"), "req", "-x509", "-subj", f"/CN={name}", "-days", "2"]
    words += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    words += ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    if authority is not None:
        words += ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"]
    subprocess.run(words, cwd=directory, check=True, capture_output=True)


def client_settings(directory: Path, authority: str, name: str) -> dict[str, str]:
    """As the page has them."""
    files = {"CA_FILE": authority, "CLIENT__CERT": f"{name}.pem", "CLIENT__KEY": f"{name}.key"}
    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    return {prefix + setting: str(directory / file) for setting, file in files.items()}


def test_with_tls_only_certificates_of_its_authority_get_in(tmp_path: Path) -> None:
    for name, authority in (("ca", None), ("node", "ca"), ("strangers", None), ("us", "strangers")):
        certificate(tmp_path, name, authority)
    chosen = cases(tmp_path)[:2]
    tls = {"ca_file": "ca.pem", "cert": "node.pem", "key": "node.key"}
    with running(tmp_path, "tls", **tls) as site:
        site.worker("only")
        site.wait_for(1)
        right = client_settings(tmp_path, "ca.pem", "node")
        done = matrix(tmp_path / "there", chosen, right, cluster=site.address)
        said = done.communicate(timeout=SECONDS)[0]
        assert done.returncode == 0, said
        assert "2 of 2 cases as expected" in re.sub(r"\s+", " ", said)
        for settings, told in (
            (client_settings(tmp_path, "strangers.pem", "node"), "certificate does not match"),
            (client_settings(tmp_path, "ca.pem", "us"), "must be of one authority"),
            (client_settings(tmp_path, "gone.pem", "node"), f"{tmp_path}/gone.pem: no such file"),
            ({}, "TLS needs DASK_DISTRIBUTED__COMM__TLS__CA_FILE (docs/scale.md)"),
        ):
            refused = matrix(tmp_path / "refused", chosen, settings, cluster=site.address)
            said = refused.communicate(timeout=SECONDS)[0]
            assert refused.returncode == 2
            assert re.fullmatch(rf"bootproof: --cluster: .*{re.escape(told)}.*\n", said), said
        assert not list((tmp_path / "refused").glob("out/*/console.log"))


def test_certificates_are_read_before_anybody_is_asked(tmp_path: Path) -> None:
    """What is wrong with one's own files is not said of the other side, and no password asked."""
    for name in ("ca", "us", "other"):
        certificate(tmp_path, name)
    locks = ["ec", "-aes128", "-passout", "pass:x", "-in", "us.key", "-out", "locked.key"]
    subprocess.run([host_program("openssl"), *locks], cwd=tmp_path, check=True, capture_output=True)
    for key, said in (("other.key", "key values mismatch"), ("locked.key", "has a password")):
        files = [str(tmp_path / file) for file in ("ca.pem", "us.pem", key)]
        security = SimpleNamespace(
            tls_ca_file=files[0], tls_client_cert=files[1], tls_client_key=files[2]
        )
        with pytest.raises(UserError, match=said):
            client.check_certificates(security)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:8786", "must be tcp://HOST:PORT"),
        ("http://127.0.0.1:8786", "must be tcp://HOST:PORT"),
        ("tcp://127.0.0.1", "must be tcp://HOST:PORT"),
        ("tcp://127.0.0.1:999999", "must be tcp://HOST:PORT"),
        ("tcp://127.0.0.1:8786/", "must be tcp://HOST:PORT"),
        ("tcp://127.0.0.1:8786?x", "must be tcp://HOST:PORT"),
        ("tcp://a@127.0.0.1:8786", "must be tcp://HOST:PORT"),
        ("tcp://192.0.2.1:8786", "anybody there could run code"),
        ("tcp://nobody.invalid:8786", "nobody.invalid: "),
    ],
)
def test_addresses_that_are_refused(address: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        client.checked(address)


def test_addresses_that_are_taken() -> None:
    for address in ("tcp://127.0.0.1:8786", "tcp://[::1]:8786", "tls://192.0.2.1:8786"):
        assert client.checked(address) == address
    assert client.checked("TCP://127.0.0.1:8786") == "tcp://127.0.0.1:8786"
    assert client.checked("plain+tcp://192.0.2.1:8786") == "tcp://192.0.2.1:8786"
