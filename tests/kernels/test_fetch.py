"""Whole fetches: a user's machine, a clone with its lock, and a mirror that lives its own life."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from bootproof.kernels import errors, scratch
from bootproof.kernels.cache import default_cache_dir
from bootproof.kernels.catalog import Kind, load_catalog
from bootproof.kernels.errors import CacheUnusable, FetchError
from bootproof.kernels.fetch import Fetcher, FetchErrors
from bootproof.kernels.lock import read_lock
from bootproof.kernels.records import LockMode
from tests import ROOT
from tests.kernels.conftest import Bench
from tests.kernels.debian import deb_of, sha256
from tests.kernels.server import Fault

ALL = ["6.1-amd64", "newest-amd64", "busybox-arm64"]


def only_error(caught: pytest.ExceptionInfo[FetchErrors]) -> FetchError:
    [error] = caught.value.errors.values()
    return error


def locked_at(bench: Bench, *names: str) -> None:
    """The clone has a lock with these names; this machine has nothing yet."""
    bench.fetcher(LockMode.UPDATE).fetch(names)
    forget(bench)


def forget(bench: Bench) -> None:
    shutil.rmtree(bench.cache)
    bench.mirror.requests.clear()
    bench.progress.notes.clear()
    bench.progress.warnings.clear()


# --- The plain way


def test_a_kernel_is_fetched_whole(bench: Bench) -> None:
    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    assert kernel.path.read_bytes() == b"kernel10"
    assert kernel.path.name == "vmlinuz-6.1.0-10-amd64"
    assert kernel.path.is_relative_to(bench.cache)
    assert kernel.sha256 == sha256(b"kernel10")
    assert (kernel.name, kernel.kind, kernel.arch) == ("6.1-amd64", Kind.KERNEL, "x86_64")
    assert (kernel.package, kernel.version) == ("linux-image-6.1.0-10-amd64", "6.1.10-1")
    assert kernel.release == "6.1.0-10-amd64"
    assert not kernel.locked


def test_order_is_that_of_the_names_and_each_comes_once(bench: Bench) -> None:
    names = [kernel.name for kernel in bench.fetcher().fetch([*reversed(ALL), *ALL])]
    assert names == list(reversed(ALL))


def test_a_second_fetch_asks_nobody(bench: Bench) -> None:
    first = bench.fetcher().fetch(ALL)
    bench.mirror.requests.clear()
    assert bench.fetcher(mirror="ftp://not/even/looked/at").fetch(ALL) == first
    assert bench.mirror.requests == []


def test_a_second_fetch_imports_no_network_library(bench: Bench) -> None:
    locked_at(bench, *ALL)
    bench.fetcher().fetch(ALL)
    code = "import sys\nfetch()\nprint([m for m in sys.modules if m in %r])"
    heavy = ("requests", "urllib3", "debian", "rich", "zstandard", "platformdirs")
    run = in_another_process(bench, code % (heavy,), ALL)
    assert run.stdout.splitlines()[-1] == "[]"


def test_only_files_out_of_packages_and_indexes_are_kept(bench: Bench) -> None:
    bench.fetcher().fetch(ALL)
    kept = {p.name for p in bench.cache.rglob("*") if p.is_file() and p.parent.name != "locks"}
    assert kept == {
        *("meta.json", "vmlinuz-6.1.0-10-amd64", "vmlinuz", "busybox", "resolved.json"),
        *("bookworm_main_amd64.xz", "trixie_main_amd64.xz", "trixie_main_arm64.xz"),
    }


def test_an_unknown_name_is_refused_before_anything_is_fetched(bench: Bench) -> None:
    with pytest.raises(errors.UnknownKernel, match=r"did you mean 6\.1-amd64"):
        bench.fetcher().fetch(["newest-amd64", "6.1-amd46"])
    assert bench.mirror.requests == []


def test_the_cache_is_where_the_variable_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("BOOTPROOF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache_dir() == tmp_path / "xdg" / "bootproof"


@pytest.mark.parametrize("users", ["", "relative"])
def test_where_there_is_no_place_for_a_cache_one_is_to_be_named(
    users: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("BOOTPROOF_CACHE", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", users)
    monkeypatch.setattr("os.getuid", lambda: 1 << 30)  # whom no system knows
    with pytest.raises(CacheUnusable, match="set BOOTPROOF_CACHE to a directory"):
        default_cache_dir()


# --- What the lock binds


def test_update_writes_the_lock_and_moves_it(bench: Bench) -> None:
    [kernel] = bench.fetcher(LockMode.UPDATE).fetch(["6.1-amd64"])
    assert kernel.locked
    bench.kernel_61(11)
    bench.archive.publish()
    assert [k.version for k in bench.fetcher().fetch(["6.1-amd64"])] == ["6.1.10-1"]

    bench.fetcher(LockMode.UPDATE).fetch(["6.1-amd64", "newest-amd64"])
    locked = read_lock(bench.lock)
    assert {name: r.version for name, r in locked.items()} == {
        "6.1-amd64": "6.1.11-1",
        "newest-amd64": "7.3.4-1~bpo13+1",
    }
    assert "127.0.0.1" not in bench.lock.read_text()


def test_update_of_one_name_leaves_the_others(bench: Bench) -> None:
    bench.fetcher(LockMode.UPDATE).fetch(ALL)
    before = read_lock(bench.lock)
    bench.kernel_61(11)
    bench.archive.publish()
    bench.fetcher(LockMode.UPDATE).fetch(["6.1-amd64"])
    after = read_lock(bench.lock)
    assert after.pop("6.1-amd64") != before.pop("6.1-amd64")
    assert after == before


def test_a_locked_fetch_needs_no_index(bench: Bench) -> None:
    locked_at(bench, *ALL)
    bench.kernel_61(11)
    bench.archive.publish()
    for mode in (LockMode.USE, LockMode.LOCKED):
        kernels = bench.fetcher(mode).fetch(ALL)
        assert [k.version for k in kernels] == ["6.1.10-1", "7.3.4-1~bpo13+1", "1:1.37.0-6+b9"]
        assert all(k.locked for k in kernels)
    assert [r.path.partition("/")[2][:5] for r in bench.mirror.requests] == ["pool/"] * 3


def test_what_the_lock_lacks_is_resolved_and_remembered_outside_the_clone(bench: Bench) -> None:
    locked_at(bench, "busybox-arm64")
    before = bench.lock.read_bytes()
    first = bench.fetcher().fetch(ALL)
    assert [k.locked for k in first] == [False, False, True]
    bench.kernel_61(11)
    bench.archive.publish()
    assert bench.fetcher().fetch(ALL) == first
    assert bench.lock.read_bytes() == before
    assert read_lock(bench.cache / "resolved.json").keys() == {"6.1-amd64", "newest-amd64"}


def test_locked_refuses_what_the_lock_lacks_even_when_it_is_cached(bench: Bench) -> None:
    bench.fetcher().fetch(["6.1-amd64"])
    bench.mirror.requests.clear()
    with pytest.raises(FetchErrors) as caught:
        bench.fetcher(LockMode.LOCKED).fetch(["6.1-amd64"])
    assert isinstance(only_error(caught), errors.NotLocked)
    assert str(caught.value) == (
        "6.1-amd64: kernels.lock has no entry that fits the catalogue;"
        " make one with: bootproof fetch --update 6.1-amd64"
    )
    assert bench.mirror.requests == []


def test_a_dropped_version_is_replaced_with_one_notice_and_remembered(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    before = bench.lock.read_bytes()
    bench.archive.drop(read_lock(bench.lock)["6.1-amd64"].path)
    bench.kernel_61(11)
    bench.archive.publish()

    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    assert (kernel.version, kernel.locked) == ("6.1.11-1", False)
    assert bench.progress.warnings[0] == (
        "6.1-amd64: the mirror no longer has the locked linux-image-6.1.0-10-amd64 6.1.10-1;"
        " taking its newest instead"
    )
    assert bench.lock.read_bytes() == before

    bench.mirror.requests.clear()
    bench.progress.warnings.clear()
    assert bench.fetcher().fetch(["6.1-amd64"]) == [kernel]
    assert (bench.mirror.requests, bench.progress.warnings) == ([], [])


def test_a_replacement_that_is_dropped_in_turn_is_replaced(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    bench.archive.drop(read_lock(bench.lock)["6.1-amd64"].path)
    eleven = bench.kernel_61(11)
    bench.archive.publish()
    bench.fetcher().fetch(["6.1-amd64"])
    shutil.rmtree(bench.cache / "files")
    bench.archive.drop(eleven)
    bench.kernel_61(12)
    bench.archive.publish()
    bench.progress.warnings.clear()
    assert [k.version for k in bench.fetcher().fetch(["6.1-amd64"])] == ["6.1.12-1"]
    assert "no longer has the locked linux-image-6.1.0-10" in bench.progress.warnings[0]
    assert "no longer has the recorded linux-image-6.1.0-11" in bench.progress.warnings[1]


def test_a_new_lock_puts_the_replacement_out_of_use(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    bench.archive.drop(read_lock(bench.lock)["6.1-amd64"].path)
    bench.archive.publish()
    assert [k.version for k in bench.fetcher().fetch(["6.1-amd64"])] == ["6.1.9-1"]
    bench.kernel_61(12)
    bench.archive.publish()
    here = bench.home / "here"
    bench.cache.rename(here)
    bench.fetcher(LockMode.UPDATE).fetch(["6.1-amd64"])  # somebody else's commit
    shutil.rmtree(bench.cache)
    here.rename(bench.cache)
    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    assert (kernel.version, kernel.locked) == ("6.1.12-1", True)


def test_a_new_catalogue_puts_the_replacement_out_of_use(bench: Bench) -> None:
    bench.fetcher().fetch(["6.1-amd64"])
    path = bench.home / "catalog.toml"
    path.write_text(path.read_text().replace(r"6\.1\.0-\d+-amd64", r"6\.1\.0-\d-amd64"))
    bench.catalog = load_catalog(path)
    assert [k.version for k in bench.fetcher().fetch(["6.1-amd64"])] == ["6.1.9-1"]


def test_locked_says_that_the_version_was_dropped(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    bench.archive.drop(read_lock(bench.lock)["6.1-amd64"].path)
    bench.archive.publish()
    with pytest.raises(FetchErrors) as caught:
        bench.fetcher(LockMode.LOCKED).fetch(["6.1-amd64"])
    assert isinstance(only_error(caught), errors.DroppedVersion)
    assert str(caught.value) == (
        "6.1-amd64: the mirror no longer has the locked linux-image-6.1.0-10-amd64 6.1.10-1;"
        " move on with: bootproof fetch --update 6.1-amd64"
    )


def test_locked_works_from_the_cache_after_the_drop(bench: Bench) -> None:
    [kernel] = bench.fetcher(LockMode.UPDATE).fetch(["6.1-amd64"])
    bench.archive.drop(read_lock(bench.lock)["6.1-amd64"].path)
    assert bench.fetcher(LockMode.LOCKED).fetch(["6.1-amd64"]) == [kernel]


def test_a_lock_entry_that_the_catalogue_no_longer_asks_for_is_not_used(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    document = json.loads(bench.lock.read_text())
    document["kernels"]["6.1-amd64"]["package"] = "linux-image-5.10.0-1-amd64"
    bench.lock.write_text(json.dumps(document))
    assert [k.version for k in bench.fetcher().fetch(["6.1-amd64"])] == ["6.1.10-1"]
    with pytest.raises(FetchErrors, match="has no entry that fits the catalogue"):
        bench.fetcher(LockMode.LOCKED).fetch(["6.1-amd64"])


def test_a_broken_lock_stops_everything(bench: Bench) -> None:
    bench.lock.write_text("<<<<<<< HEAD")
    for mode in LockMode:
        with pytest.raises(errors.LockError, match=r"kernels\.lock: not a lock file"):
            bench.fetcher(mode).fetch(["6.1-amd64"])


def test_a_broken_local_record_is_only_a_warning(bench: Bench) -> None:
    bench.fetcher().fetch(["6.1-amd64"])
    (bench.cache / "resolved.json").write_text("{")
    bench.fetcher().fetch(["6.1-amd64"])
    assert "resolved.json: not a lock file" in bench.progress.warnings[-2]
    assert read_lock(bench.cache / "resolved.json").keys() == {"6.1-amd64"}


def test_a_lock_that_cannot_be_written(bench: Bench) -> None:
    fetcher = Fetcher(
        bench.mirror.url,
        bench.cache,
        LockMode.UPDATE,
        lock_path=Path("/proc/kernels.lock"),  # not even root can
        catalog=bench.catalog,
        progress=bench.progress,
    )
    with pytest.raises(FetchErrors, match=r"6\.1-amd64: /proc/kernels\.lock: cannot be written"):
        fetcher.fetch(["6.1-amd64", "newest-amd64"])


# --- Several names, some of which fail


def test_one_failure_does_not_stop_the_others(bench: Bench) -> None:
    (bench.mirror.root / "dists/bookworm/InRelease").unlink()
    with pytest.raises(FetchErrors) as caught:
        bench.fetcher().fetch(ALL)
    assert isinstance(caught.value.errors["6.1-amd64"], errors.UnknownSuite)
    assert [k.name for k in caught.value.fetched] == ["newest-amd64", "busybox-arm64"]
    assert caught.value.skipped == ()
    assert len(str(caught.value).splitlines()) == 1


def test_without_a_network_only_the_first_is_tried_and_the_cached_are_there(bench: Bench) -> None:
    bench.fetcher().fetch(["busybox-arm64"])
    bench.mirror.faults = [Fault("", times=99, status=503)]
    bench.mirror.requests.clear()
    with pytest.raises(FetchErrors) as caught:
        bench.fetcher().fetch(ALL)
    assert isinstance(caught.value.errors["6.1-amd64"], errors.NoNetwork)
    assert [k.name for k in caught.value.fetched] == ["busybox-arm64"]
    assert caught.value.skipped == ("newest-amd64",)
    assert str(caught.value).splitlines()[1] == "not tried after that: newest-amd64"
    assert len(bench.mirror.requests) == 3


def test_no_mirror_is_one_clear_error(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_MIRROR", "file:/srv")
    fetcher = Fetcher(
        cache_dir=bench.cache,
        lock_path=bench.lock,
        catalog=bench.catalog,
        progress=bench.progress,
    )
    with pytest.raises(FetchErrors, match=r'6\.1-amd64: "file:/srv" is not a mirror'):
        fetcher.fetch(ALL)


# --- Things that must never be used


def test_a_package_with_another_content_is_refused(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    path = bench.mirror.root / read_lock(bench.lock)["6.1-amd64"].path
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(FetchErrors) as caught:
        bench.fetcher().fetch(["6.1-amd64"])
    assert isinstance(only_error(caught), errors.WrongHash)
    assert list((bench.cache / "parts").iterdir()) == []
    assert list((bench.cache / "files").iterdir()) == []


def test_a_package_without_the_file_is_named(bench: Bench) -> None:
    deb = deb_of({"usr/share/doc/linux": b"an empty shell"})
    bench.archive.add("linux-binary-7.4-amd64", "7.4-1", deb)
    bench.archive.publish()
    with pytest.raises(FetchErrors) as caught:
        bench.fetcher().fetch(["newest-amd64"])
    assert str(caught.value) == (
        "newest-amd64: linux-binary-7.4-amd64 7.4-1: the package holds no"
        " usr/lib/modules/7.4-amd64/vmlinuz; correct `file` in catalog.toml"
    )
    assert list((bench.cache / "files").iterdir()) == []
    assert not (bench.cache / "resolved.json").exists()


def test_a_package_that_the_index_names_and_the_mirror_lacks(bench: Bench) -> None:
    bench.mirror.faults = [Fault(".deb", times=9, status=404)]
    with pytest.raises(FetchErrors, match="though its index names the file; it may be in the mid"):
        bench.fetcher().fetch(["6.1-amd64"])


def test_half_written_leftovers_are_not_used(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    folder = kernel.path.parent
    draft = folder.with_name(f"{scratch.PREFIX}of-a-dead-process")
    folder.rename(draft)
    (draft / kernel.path.name).write_bytes(b"half")
    package = read_lock(bench.lock)["6.1-amd64"]
    part = bench.cache / "parts" / f"{package.sha256}.part"
    part.write_bytes(b"half of something else")
    [again] = bench.fetcher().fetch(["6.1-amd64"])
    assert again.path.read_bytes() == b"kernel10"
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    assert not part.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"kernel??"),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
        lambda path: path.with_name("meta.json").write_text("{"),
        lambda path: path.with_name("meta.json").write_text("[]"),
        lambda path: path.with_name("meta.json").unlink(),
    ],
)
def test_a_cached_file_that_was_changed_is_fetched_again(bench: Bench, damage: object) -> None:
    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    os.utime(kernel.path, ns=(0, 0))
    assert callable(damage)
    damage(kernel.path)
    bench.mirror.requests.clear()
    assert bench.fetcher().fetch(["6.1-amd64"]) == [kernel]
    assert kernel.path.read_bytes() == b"kernel10"
    assert len(bench.mirror.requests) == 1


def test_a_cached_file_that_was_only_touched_is_checked_once(bench: Bench) -> None:
    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    os.utime(kernel.path, ns=(0, 0))
    bench.mirror.requests.clear()
    assert bench.fetcher().fetch(["6.1-amd64"]) == [kernel]
    assert bench.mirror.requests == []
    assert json.loads(kernel.path.with_name("meta.json").read_text())["mtime_ns"] == 0


def test_a_cache_that_is_no_directory(bench: Bench) -> None:
    bench.cache.write_text("in the way")
    with pytest.raises(FetchErrors) as caught:
        bench.fetcher().fetch(ALL)
    assert isinstance(only_error(caught), errors.CacheUnusable)
    assert "set BOOTPROOF_CACHE to a directory that you can write to" in str(caught.value)


# --- Other processes and full disks

PRELUDE = """
import sys
from pathlib import Path
from bootproof.kernels.catalog import load_catalog
from bootproof.kernels.fetch import Fetcher
from bootproof.kernels.records import LockMode
from bootproof.kernels.progress import Lines
mirror, home, *names = sys.argv[1:]
home = Path(home)
def fetch():
    fetcher = Fetcher(mirror, home / "cache", LockMode.LOCKED, lock_path=home / "kernels.lock",
        catalog=load_catalog(home / "catalog.toml"), progress=Lines(sys.stdout))
    return fetcher.fetch(names)
"""


def argv_of(bench: Bench, code: str, names: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", PRELUDE + code, bench.mirror.url, str(bench.home), *names]


def in_another_process(
    bench: Bench, code: str, names: Sequence[str], *wrapper: str
) -> subprocess.CompletedProcess[str]:
    argv = [*wrapper, *argv_of(bench, code, names)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def big_kernel(bench: Bench, size: int) -> bytes:
    """Lock 6.1-amd64 to a package that does not compress."""
    content = os.urandom(size)
    bench.kernel_61(20, content)
    bench.archive.publish()
    locked_at(bench, "6.1-amd64")
    return content + b"20"


def eventually(what: Callable[[], bool]) -> None:
    """Look until it is so; a minute is for machines in distress."""
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_processes_share_one_download(bench: Bench) -> None:
    content = big_kernel(bench, 400_000)
    gate = threading.Event()
    bench.mirror.faults = [Fault(".deb", times=9, gate=gate)]
    argv = argv_of(bench, "print(fetch()[0].sha256)", ["6.1-amd64"])
    log = bench.home / "log"
    with log.open("ab") as out:
        both = [subprocess.Popen(argv, cwd=ROOT, stdout=out) for _ in range(2)]
    eventually(lambda: "another bootproof is fetching it; waiting" in log.read_text())
    gate.set()
    assert [process.wait(timeout=60) for process in both] == [0, 0]
    assert log.read_text().splitlines()[-2:] == [sha256(content)] * 2
    assert len(bench.mirror.requests) == 1


def test_a_killed_fetch_is_resumed_by_the_next(bench: Bench) -> None:
    content = big_kernel(bench, 1_200_000)
    gate = threading.Event()
    bench.mirror.faults = [Fault(".deb", gate=gate)]
    process = subprocess.Popen(argv_of(bench, "fetch()", ["6.1-amd64"]), cwd=ROOT)
    package = read_lock(bench.lock)["6.1-amd64"]
    part = bench.cache / "parts" / f"{package.sha256}.part"
    eventually(lambda: part.exists() and part.stat().st_size > 0)
    process.kill()
    assert process.wait() == -9
    gate.set()
    have = part.stat().st_size
    assert 0 < have < package.size
    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    assert kernel.path.read_bytes() == content
    assert bench.mirror.requests[-1].range == f"bytes={have}-"


FULL = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (%d, %d))
try:
    fetch()
except Exception as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [100_000, 401_000])
def test_no_room_while_downloading_or_unpacking(bench: Bench, limit: int) -> None:
    """A file-size limit fails as a full disk does: the package at 100 kB, the file at 401 kB."""
    content = os.urandom(1000) * 400 + b"20"
    release = "6.1.0-20-amd64"
    padding = os.urandom(300_000)
    deb = deb_of({f"boot/vmlinuz-{release}": content + bytes(300_000), "usr/padding": padding})
    bench.archive.add(f"linux-image-{release}", "6.1.20-1", deb, suite="bookworm")
    bench.archive.publish()
    locked_at(bench, "6.1-amd64")
    assert 300_000 < len(deb) < 400_000
    run = in_another_process(bench, FULL % (limit, limit), ["6.1-amd64"])
    [line] = [x for x in run.stdout.splitlines() if "fetching" not in x]
    assert line.startswith("6.1-amd64: no room for ")
    assert "File too large; nothing half-written is kept; free some space" in line
    left = [p for p in bench.cache.rglob("*") if p.is_file() and p.parent.name != "locks"]
    assert left == []
    assert len(bench.fetcher().fetch(["6.1-amd64"])) == 1


def test_a_full_disk(bench: Bench) -> None:
    """A real one: a tmpfs of 256 KiB that only the fetching process sees."""
    big_kernel(bench, 400_000)
    bench.cache.mkdir()
    mount = f"mount -t tmpfs -o size=256k none '{bench.cache}' && exec \"$@\""
    wrapper = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here: a small file system cannot be mounted")
    look = "print(error, list((home / 'cache/parts').iterdir()))"
    code = f"try: fetch()\nexcept Exception as error: {look}"
    run = in_another_process(bench, code, ["6.1-amd64"], *wrapper)
    line = run.stdout.splitlines()[-1]
    assert "6.1-amd64: no room for " in line
    assert "No space left on device" in line
    assert line.endswith("[]")


# --- Listing


def test_rows_say_what_is_recorded_and_cached_without_asking(bench: Bench) -> None:
    locked_at(bench, "busybox-arm64", "6.1-amd64")
    bench.fetcher().fetch(["6.1-amd64"])
    bench.mirror.requests.clear()
    rows = {row.entry.name: row for row in bench.fetcher().list_rows()}
    assert list(rows) == ALL
    assert bench.mirror.requests == []
    versions = {name: row.resolved and row.resolved.version for name, row in rows.items()}
    assert versions == {
        "6.1-amd64": "6.1.10-1",
        "newest-amd64": None,
        "busybox-arm64": "1:1.37.0-6+b9",
    }
    assert [row.cached for row in rows.values()] == [True, False, False]
    assert [row.locked for row in rows.values()] == [True, False, True]


def test_a_row_shows_the_replacement_of_a_dropped_version(bench: Bench) -> None:
    locked_at(bench, "6.1-amd64")
    bench.archive.drop(read_lock(bench.lock)["6.1-amd64"].path)
    bench.archive.publish()
    bench.fetcher().fetch(["6.1-amd64"])
    row = bench.fetcher().list_rows()[0]
    assert row.resolved is not None
    assert (row.resolved.version, row.cached, row.locked) == ("6.1.9-1", True, False)


def test_a_row_of_what_was_resolved_here_and_is_gone_from_the_cache(bench: Bench) -> None:
    bench.fetcher().fetch(["6.1-amd64"])
    shutil.rmtree(bench.cache / "files")
    row = bench.fetcher().list_rows()[0]
    assert row.resolved is not None
    assert (row.resolved.version, row.cached, row.locked) == ("6.1.10-1", False, False)
