"""The user's cache: files out of packages, downloads under way, indexes, the local record.

Owns the layout below one directory, what is atomic in it, and what keeps two bootproofs apart:

    files/KEY/           one file out of one package, with meta.json;
                         KEY is the hash of the package's SHA-256 and the file's name in it
    derived/KEY/         likewise, one file that was made of a kernel; KEY is the hash of the
                         kernel's SHA-256 and of what was made of it
    received/KEY/        likewise, one file that a matrix has sent to this worker of its cluster;
                         KEY is made of the file's own SHA-256
    parts/SHA256.part    a download under way, or broken off; not used before its hash is right
    indexes/             the newest package index of each suite and architecture
    locks/               empty files for flock; never removed: a new one would not keep out
                         those who wait on the old
    resolved.json        what was resolved beyond the committed lock (see records.py)

A directory below files/, derived/ or received/ appears whole or not at all; its time of change is
when it was last used (see pruning.py). Must not know the network or the catalogue.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bootproof.dataclass import dataclass
from bootproof.kernels import pruning, scratch, waiting
from bootproof.kernels.errors import CacheUnusable, DiskFull, FetchError

ENVIRONMENT = "BOOTPROOF_CACHE"
FILES, DERIVED, RECEIVED = "files", "derived", "received"
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def default_cache_dir() -> Path:
    """$BOOTPROOF_CACHE, else the platform's cache directory for "bootproof".

    Raises `CacheUnusable` where that is none: for a user without a home, or a relative path.
    """
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen).absolute()
    import platformdirs

    with contextlib.suppress(RuntimeError):  # without a home; older ones say "~"
        users = Path(platformdirs.user_cache_dir("bootproof"))
        if users.is_absolute():
            return users
    advice = f"set {ENVIRONMENT} to a directory that you can write to"
    raise CacheUnusable(f"this user has no place for a cache; {advice}")


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file out of a package, complete and checked. `sha256` is the file's own, not the
    package's."""

    path: Path
    sha256: str


def disk_error(error: OSError, path: Path) -> FetchError:
    """The one line for a failed read or write below the cache."""
    subject = scratch.subject(error, path)
    if error.errno in _NO_ROOM:
        return DiskFull(
            f"no room for {subject}: {error.strerror}; nothing half-written is kept;"
            f" free some space or set {ENVIRONMENT} to a directory on another disk"
        )
    return CacheUnusable(
        f"cannot use the cache {path}: {error.strerror} ({subject});"
        f" set {ENVIRONMENT} to a directory that you can write to"
    )


class Cache:
    """One cache directory. Nothing is created before the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def record_path(self) -> Path:
        return self.root / "resolved.json"

    def part_path(self, sha256: str) -> Path:
        return self.root / "parts" / f"{sha256}.part"

    def index_path(self, suite: str, component: str, arch: str) -> Path:
        return self.root / "indexes" / f"{suite}_{component.replace('/', '_')}_{arch}.xz"

    @contextlib.contextmanager
    def locked(self, name: str, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold the lock `name` against every other process; `on_wait` is called once if another has
        it.

        Raises `CacheUnusable` or `DiskFull`, also for `OSError`s of the body: all work on the cache
        is done under a lock; and KeyboardInterrupt when waiting is given up.
        """
        path = self.root / "locks" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    on_wait()
                    waiting.for_lock(file.fileno())
                try:
                    yield
                finally:  # closing is not enough: what has been forked has it, too, until it execs
                    fcntl.flock(file, fcntl.LOCK_UN)
        except OSError as error:
            raise disk_error(error, self.root) from error

    def find(self, source_sha256: str, member: str, room: str = FILES) -> CachedFile | None:
        """The file `member` of a package, or what was made of a kernel, if it is here and unchanged
        since it was checked.

        Size and times of change stand for the content, as in git's index; when they differ, the
        content is hashed again.
        """
        folder = self._folder(source_sha256, member, room)
        path = folder / Path(member).name
        try:
            meta = dict(json.loads((folder / "meta.json").read_text("utf-8")))
            stat = path.stat()
            if _times(stat) != {name: meta.get(name) for name in _times(stat)}:
                if file_sha256(path) != meta["sha256"]:
                    return None
                with contextlib.suppress(OSError):  # a read-only cache is only slower
                    _write_meta(folder, path, meta["sha256"])
            pruning.used(folder)
            return CachedFile(path, str(meta["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def file(
        self,
        source_sha256: str,
        member: str,
        write: Callable[[Path], object],
        on_wait: Callable[[], None] = lambda: None,
        room: str = FILES,
    ) -> CachedFile:
        """The file `member` of a package, or what is made of a kernel. Unless it is here, `write`
        makes it at the path that it is given, and it appears in the cache in one step.

        `on_wait` is called once if another process works on the package. Raises as `locked`, and
        what `write` raises; nothing is left then.
        """
        if found := self.find(source_sha256, member, room):
            return found
        folder = self._folder(source_sha256, member, room)
        with self.locked(source_sha256 if room == FILES else folder.name, on_wait):
            return self.find(source_sha256, member, room) or _made(folder, member, write)

    def _folder(self, source_sha256: str, member: str, room: str) -> Path:
        key = hashlib.sha256(f"{source_sha256}\0{member}".encode()).hexdigest()
        return self.root / room / key[:32]


def _made(folder: Path, member: str, write: Callable[[Path], object]) -> CachedFile:
    name = Path(member).name
    with scratch.directory(folder.parent) as draft:
        made = draft / "made"
        made.mkdir()
        write(made / name)
        sha256 = file_sha256(made / name)
        _write_meta(made, made / name, sha256)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    return CachedFile(folder / name, sha256)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a whole file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_meta(folder: Path, path: Path, sha256: str) -> None:
    meta = {"sha256": sha256, **_times(path.stat())}
    draft = folder / f".meta-{os.getpid()}"
    draft.write_text(json.dumps(meta), "utf-8")
    draft.replace(folder / "meta.json")


def _times(status: os.stat_result) -> dict[str, int]:
    """What changes with the content; the last also where somebody puts the others back."""
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }
