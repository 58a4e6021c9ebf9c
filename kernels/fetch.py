"""From names of the catalogue to files on this machine.

Owns the order of things: first what is recorded and cached, then what is recorded and still on the
mirror, then what the mirror has now. records.py says what the lock binds. Must not know QEMU or
what a kernel is: a file of the catalogue is bytes with a version and a hash.

A fetch that finds everything in the cache opens no connection and needs no mirror. What is
downloaded is vouched for by the lock's SHA-256, or by the chain signature -> InRelease -> Packages
-> package. Packages are not kept, only the files out of them.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bootproof.dataclass import dataclass
from bootproof.kernels.cache import Cache, CachedFile, default_cache_dir
from bootproof.kernels.catalog import Catalog, CatalogEntry, Kind, load_catalog
from bootproof.kernels.errors import (
    BadPackage,
    DroppedVersion,
    FetchError,
    MemberMissing,
    NotLocked,
    NotOnMirror,
)
from bootproof.kernels.lock import Resolved
from bootproof.kernels.progress import Progress, console_progress
from bootproof.kernels.records import LockMode, Records

if TYPE_CHECKING:  # these import requests and debian, which cost more than a whole cached fetch
    from bootproof.kernels.archive import Archive
    from bootproof.kernels.download import RetryPolicy

_PACKAGE = "package.deb"  # what it is called in the cache
LOCK_PATH = Path(__file__).with_name("kernels.lock")


@dataclass(frozen=True, slots=True)
class FetchedKernel:
    """A file of the catalogue, on disk and checked."""

    name: str
    kind: Kind
    arch: str
    path: Path
    package: str
    version: str  # of the package
    sha256: str  # of the file at `path`, not of the package
    release: str | None  # what `uname -r` will say; None for busybox
    locked: bool  # whether it is the version that kernels.lock names


class FetchErrors(FetchError):
    """Some kernels of a set failed; the others are in `fetched`, ready for use.

    `errors` has one `FetchError` for each kernel that was tried and failed, `skipped` the names
    that were not tried after a fatal one. str() is one line for each failure.
    """

    def __init__(
        self,
        errors: Mapping[str, FetchError],
        fetched: tuple[FetchedKernel, ...],
        skipped: tuple[str, ...] = (),
    ) -> None:
        self.errors = dict(errors)
        self.fetched = fetched
        self.skipped = skipped
        super().__init__("\n".join(self.lines))

    @property
    def lines(self) -> tuple[str, ...]:
        lines = [f"{name}: {error}" for name, error in self.errors.items()]
        if self.skipped:
            lines.append(f"not tried after that: {', '.join(self.skipped)}")
        return tuple(lines)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a listing."""

    entry: CatalogEntry
    resolved: Resolved | None  # None: no lock and no fetch has named a package yet
    locked: bool
    path: Path | None  # None: it is not in the cache

    @property
    def cached(self) -> bool:
        return self.path is not None


class Fetcher:
    """Fetches by name. One call of fetch() asks the mirror for each index at most once.

    mirror: address of the archive; by default $BOOTPROOF_MIRROR, else apt's (looked up when first
    needed). cache_dir: by default $BOOTPROOF_CACHE, else the user's cache. keyring: by default
    $BOOTPROOF_KEYRING, else Debian's, where the system has it. progress: by default bars or lines
    on stderr.
    """

    def __init__(
        self,
        mirror: str | None = None,
        cache_dir: Path | None = None,
        lock: LockMode = LockMode.USE,
        *,
        lock_path: Path = LOCK_PATH,
        catalog: Catalog | None = None,
        progress: Progress | None = None,
        retry: RetryPolicy | None = None,
        keyring: Path | None = None,
    ) -> None:
        self._mirror = mirror
        self._cache = Cache(cache_dir or default_cache_dir())
        self._mode = lock
        self._lock_path = lock_path
        self._catalog = catalog or load_catalog()
        self._progress = progress or console_progress()
        self._retry = retry
        self._keyring = keyring

    def fetch(self, names: Iterable[str]) -> list[FetchedKernel]:
        """The named files, in the order of the names, each once.

        Raises `UnknownKernel` or `LockError` before anything is fetched; after everything was
        tried, `FetchErrors` with one line for each name that failed, and the others ready in its
        `fetched`.
        """
        entries = [self._catalog[name] for name in dict.fromkeys(names)]
        records = self._records()
        done = {
            entry.name: _result(records, entry, *cached)
            for entry in entries
            if (cached := self._cached(records, entry)) is not None
        }
        errors: dict[str, FetchError] = {}
        with contextlib.ExitStack() as stack:
            archive = functools.cache(lambda: self._archive(stack))
            for entry in (e for e in entries if e.name not in done):
                try:
                    done[entry.name] = self._fetch_one(records, archive, entry)
                except FetchError as error:
                    errors[entry.name] = error
                    if error.fatal:
                        break
        fetched = tuple(done[e.name] for e in entries if e.name in done)
        if errors:
            tried = done.keys() | errors.keys()
            raise FetchErrors(
                errors, fetched, tuple(e.name for e in entries if e.name not in tried)
            )
        return list(fetched)

    def package(self, name: str) -> CachedFile:
        """The whole package that a file of the catalogue is from, kept from now on.

        Raises as `fetch`, and `DroppedVersion` when the mirror no longer has that very package.
        """
        self.fetch([name])
        entry, records = self._catalog[name], self._records()
        found = self._cached(records, entry)
        assert found is not None  # it was just fetched
        resolved, label = found[0], f"{name} {found[0].version}"

        def write(target: Path) -> None:
            part = self._cache.part_path(resolved.sha256)
            with contextlib.ExitStack() as stack:
                self._archive(stack).download(resolved, part, label)
            shutil.move(part, target)

        try:
            return self._cache.file(resolved.sha256, _PACKAGE, write)
        except NotOnMirror as error:
            raise DroppedVersion(
                f"{name}: the mirror no longer has {resolved.package} {resolved.version}, which its"
                f" kernel is from; move on with: bootproof fetch --update {name}"
            ) from error

    def list_rows(self) -> list[Row]:
        """What the catalogue offers, and what of it is recorded and cached. Opens no connection."""
        records = self._records()
        return [self._row(records, entry) for entry in self._catalog]

    def _archive(self, stack: contextlib.ExitStack) -> Archive:
        """The mirror, and the connection to it, which `stack` closes."""
        from bootproof.kernels.archive import Archive
        from bootproof.kernels.download import Downloader, RetryPolicy
        from bootproof.kernels.mirror import find_mirror
        from bootproof.kernels.signature import default_keyring

        mirror = find_mirror(self._mirror)
        downloader = Downloader(self._progress, self._retry or RetryPolicy())
        return Archive(
            mirror,
            catalog=self._catalog,
            cache=self._cache,
            downloader=stack.enter_context(contextlib.closing(downloader)),
            progress=self._progress,
            keyring=self._keyring or default_keyring(),
        )

    def _fetch_one(
        self, records: Records, archive: Callable[[], Archive], entry: CatalogEntry
    ) -> FetchedKernel:
        for resolved in records.candidates(entry):
            try:
                return _result(records, entry, resolved, self._file(archive, entry, resolved))
            except NotOnMirror:
                self._notice_drop(records, entry, resolved)
        if self._mode is LockMode.LOCKED:
            raise NotLocked(
                f"{self._lock_path.name} has no entry that fits the catalogue;"
                f" make one with: bootproof fetch --update {entry.name}"
            )
        resolved = archive().resolve(entry)
        try:
            file = self._file(archive, entry, resolved)
        except NotOnMirror as error:
            raise NotOnMirror(
                f"{error}, though its index names the file;"
                " it may be in the middle of an update: try again in a while"
            ) from error
        records.record(entry, resolved)
        return _result(records, entry, resolved, file)

    def _notice_drop(self, records: Records, entry: CatalogEntry, resolved: Resolved) -> None:
        """Raises `DroppedVersion` where the lock must be obeyed."""
        what = f"{resolved.package} {resolved.version}"
        if self._mode is LockMode.LOCKED:
            raise DroppedVersion(
                f"the mirror no longer has the locked {what};"
                f" move on with: bootproof fetch --update {entry.name}"
            )
        origin = "locked" if resolved == records.locked(entry) else "recorded"
        self._progress.warn(
            f"{entry.name}: the mirror no longer has the {origin} {what}; taking its newest instead"
        )

    def _file(
        self, archive: Callable[[], Archive], entry: CatalogEntry, resolved: Resolved
    ) -> CachedFile:
        """The file out of one package, downloaded and unpacked unless it is there by now.

        Raises `NotOnMirror` when the package is gone.
        """
        member = entry.member_of(resolved.package)
        label = f"{entry.name} {resolved.version}"

        def on_wait() -> None:
            self._progress.note(f"{label}: another bootproof is fetching it; waiting")

        def write(target: Path) -> None:
            from bootproof.kernels.deb import extract_member

            part = self._cache.part_path(resolved.sha256)
            archive().download(resolved, part, label)
            try:
                extract_member(part, member, target)
            except (BadPackage, MemberMissing) as error:
                raise type(error)(f"{resolved.package} {resolved.version}: {error}") from error
            finally:
                part.unlink(missing_ok=True)

        return self._cache.file(resolved.sha256, member, write, on_wait)

    def _cached(self, records: Records, entry: CatalogEntry) -> tuple[Resolved, CachedFile] | None:
        for resolved in records.candidates(entry):
            file = self._cache.find(resolved.sha256, entry.member_of(resolved.package))
            if file is not None:
                return resolved, file
        return None

    def _row(self, records: Records, entry: CatalogEntry) -> Row:
        resolved, file = self._cached(records, entry) or (None, None)
        resolved = resolved or next(records.candidates(entry), None)
        locked = resolved is not None and resolved == records.locked(entry)
        return Row(entry, resolved, locked, file.path if file else None)

    def _records(self) -> Records:
        return Records(self._lock_path, self._cache, self._mode, self._progress)


def _result(
    records: Records, entry: CatalogEntry, resolved: Resolved, file: CachedFile
) -> FetchedKernel:
    return FetchedKernel(
        name=entry.name,
        kind=entry.kind,
        arch=entry.arch,
        path=file.path,
        package=resolved.package,
        version=resolved.version,
        sha256=file.sha256,
        release=entry.release_of(resolved.package),
        locked=resolved == records.locked(entry),
    )
