"""What a name meant before: the committed lock, and the local record that stands in for it.

Owns which of the two files counts and which is written. Must not know the network.

    - USE (default): the locked package counts. When the mirror has dropped it (Debian's mirrors do
      that all the time), or the lock lacks the name, what was resolved instead is recorded in
      resolved.json **in the cache**: running the tool never changes a user's clone, and a fresh
      clone goes on working years later. Such a record stands in only for exactly the lock entry
      that it was made for; a new lock (git pull, --update) puts it out of use.
    - LOCKED: the locked package or an error.
    - UPDATE: nothing counts, everything is resolved anew, and the lock file is rewritten. The only
      mode that writes to the clone.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from pathlib import Path

from bootproof.kernels.cache import Cache
from bootproof.kernels.catalog import CatalogEntry
from bootproof.kernels.errors import LockError
from bootproof.kernels.lock import Resolved, read_lock, write_lock
from bootproof.kernels.progress import Progress


class LockMode(enum.Enum):
    """How much the lock file binds; see the module's text."""

    USE = "use"
    LOCKED = "locked"
    UPDATE = "update"


class Records:
    """Both files, read when made. Raises `LockError` for a lock file that cannot be read."""

    def __init__(self, lock_path: Path, cache: Cache, mode: LockMode, progress: Progress) -> None:
        self._lock_path = lock_path
        self._cache = cache
        self._mode = mode
        self._locked = read_lock(lock_path)
        self._local: dict[str, Resolved] = {}
        if mode is LockMode.USE:
            try:
                self._local = read_lock(cache.record_path)
            except LockError as error:  # only a memory of what can be resolved again
                progress.warn(f"{error}")

    def candidates(self, entry: CatalogEntry) -> Iterator[Resolved]:
        """The packages that `entry` may mean by what is recorded, best first."""
        if self._mode is LockMode.UPDATE:
            return
        if (locked := self.locked(entry)) is not None:
            yield locked
        local = self._local.get(entry.name)
        if local is not None and local.fits(entry) and local.instead_of == self._lock_hash(entry):
            yield local

    def locked(self, entry: CatalogEntry) -> Resolved | None:
        """The lock's package for `entry`, unless the catalogue has since asked for another kind."""
        locked = self._locked.get(entry.name)
        return locked if locked is not None and locked.fits(entry) else None

    def record(self, entry: CatalogEntry, resolved: Resolved) -> None:
        """Remember what `entry` was resolved to, where the mode says. Raises `LockError`,
        `DiskFull`."""
        if self._mode is LockMode.UPDATE:
            self._locked[entry.name] = resolved
            self._merge(self._lock_path, entry.name, resolved)
        else:
            resolved = dataclasses.replace(resolved, instead_of=self._lock_hash(entry))
            self._local[entry.name] = resolved
            self._merge(self._cache.record_path, entry.name, resolved)

    def _lock_hash(self, entry: CatalogEntry) -> str:
        locked = self._locked.get(entry.name)
        return locked.sha256 if locked is not None else ""

    def _merge(self, path: Path, name: str, resolved: Resolved) -> None:
        """Change one entry of a file; what another process wrote to it meanwhile stays."""
        with self._cache.locked(f"file-{path.name}"):
            try:
                others = read_lock(path)
            except LockError:
                if path == self._lock_path:
                    raise
                others = {}
            try:
                write_lock(path, others | {name: resolved})
            except OSError as error:
                raise LockError(f"{path}: cannot be written: {error.strerror}") from error
