"""A Debian archive: from the name of a suite to one package with its path, size and hash.

Owns InRelease and the Packages index (the Debian repository format: "Release" files, by-hash,
"Packages" indices; versions compare as in deb-version(7)). The chain is signature -> hash of the
index -> hash of the package. Must not know the lock, nor what is inside a package.
"""

from __future__ import annotations

import datetime
import email.utils
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from bootproof.dataclass import dataclass
from bootproof.kernels.cache import Cache, file_sha256
from bootproof.kernels.catalog import Catalog, CatalogEntry
from bootproof.kernels.download import Downloader, Wanted
from bootproof.kernels.errors import (
    BadIndex,
    BadSignature,
    FetchError,
    NoMatch,
    NotOnMirror,
    UnknownSuite,
)
from bootproof.kernels.lock import Resolved, check_resolved, check_sha256
from bootproof.kernels.progress import Progress
from bootproof.kernels.signature import check_signature
from bootproof.printable import shown_url

MAX_INRELEASE = 8 << 20
MAX_STANZA = 4 << 20
_READ = 1 << 20

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Release:
    """What a suite's InRelease vouches for: SHA-256 and size of each file below the suite."""

    suite: str
    files: Mapping[str, tuple[str, int]]
    by_hash: bool


class Archive:
    """One mirror, asked for as little as possible: each suite and each index at most once.

    Failures are remembered too, so that the second kernel of a broken suite does not wait again.
    """

    def __init__(
        self,
        mirror: str,
        *,
        catalog: Catalog,
        cache: Cache,
        downloader: Downloader,
        progress: Progress,
        keyring: Path | None,
    ) -> None:
        self.mirror = mirror
        self._catalog = catalog
        self._cache = cache
        self._downloader = downloader
        self._progress = progress
        self._keyring = keyring
        self._releases: dict[str, Release | FetchError] = {}
        self._packages: dict[tuple[str, str, str], list[Resolved] | FetchError] = {}
        self._warned: set[str] = set()

    def resolve(self, entry: CatalogEntry) -> Resolved:
        """The newest package that the catalogue's pattern matches.

        Raises `UnknownSuite`, `BadSignature`, `BadIndex`, `NoMatch`, `WrongHash`, or a network
        error.
        """
        from debian.debian_support import Version

        key = (entry.suite, entry.component, entry.debian_arch)
        packages = _once(self._packages, key, lambda: self._read_index(*key))
        matching = [p for p in packages if entry.package.fullmatch(p.package)]
        if not matching:
            raise NoMatch(
                f"no package of {'/'.join(key)} matches {entry.package.pattern!r};"
                " Debian may have renamed it: correct catalog.toml"
            )
        return max(matching, key=lambda p: Version(p.version))

    def download(self, resolved: Resolved, part: Path, label: str) -> None:
        """Makes `part` the package, as `Downloader.save` does."""
        wanted = Wanted(label, resolved.size, resolved.sha256)
        self._downloader.save(f"{self.mirror}/{quote(resolved.path)}", part, wanted)

    def _read_index(self, suite: str, component: str, arch: str) -> list[Resolved]:
        release = _once(self._releases, suite, lambda: self._read_release(suite))
        path = f"{component}/binary-{arch}/Packages.xz"
        if path not in release.files:
            raise BadIndex(f"{suite} of {shown_url(self.mirror)} has no {path}")
        sha256, size = release.files[path]
        index = self._cache.index_path(suite, component, arch)
        wanted = Wanted(f"index {suite}/{component}/{arch}", size, sha256)
        with self._cache.locked(f"index-{index.stem}"):
            if not (index.exists() and file_sha256(index) == sha256):
                part = self._cache.part_path(sha256)
                self._download(release, path, part, wanted)
                index.parent.mkdir(parents=True, exist_ok=True)
                part.replace(index)
            patterns = [
                e.package.pattern
                for e in self._catalog
                if (e.suite, e.component, e.debian_arch) == (suite, component, arch)
            ]
            return [_resolved(stanza, suite, arch) for stanza in scan_index(index, patterns)]

    def _download(self, release: Release, path: str, part: Path, wanted: Wanted) -> None:
        """By hash where the archive offers it: the plain name may be newer than our InRelease."""
        suite = f"{self.mirror}/dists/{release.suite}"
        if release.by_hash:
            folder = path.rpartition("/")[0]
            try:
                self._downloader.save(
                    f"{suite}/{folder}/by-hash/SHA256/{wanted.sha256}", part, wanted
                )
                return
            except NotOnMirror:
                pass
        self._downloader.save(f"{suite}/{path}", part, wanted)

    def _read_release(self, suite: str) -> Release:
        url = f"{self.mirror}/dists/{suite}/InRelease"
        try:
            signed = self._downloader.read(url, MAX_INRELEASE)
        except NotOnMirror as error:
            raise UnknownSuite(
                f'the mirror has no suite "{suite}" ({error}); Debian moves old suites away:'
                " name a mirror that carries it with --mirror"
            ) from error
        try:
            checked = check_signature(signed, self._keyring)
        except BadSignature as error:
            raise BadSignature(f"{shown_url(url)}: {error}") from error
        if checked.unchecked:
            self._warn(f"the mirror's signature is NOT checked: {checked.unchecked}")
        return self._parse_release(checked.text, suite, url)

    def _parse_release(self, text: str, suite: str, url: str) -> Release:
        from debian.deb822 import Release as ReleaseFields

        fields = ReleaseFields(text.splitlines())
        codename = fields.get("Codename", "")
        if suite not in (codename, fields.get("Suite")):
            raise BadSignature(
                f'{shown_url(url)} is about "{codename}", not about "{suite}"; do not trust this'
                " mirror"
            )
        if expired := _expired(fields.get("Valid-Until")):
            self._warn(
                f"{suite} of {shown_url(self.mirror)} was valid until {expired} only:"
                " the mirror is not kept up to date"
            )
        try:
            files = {f["name"]: (f["sha256"], int(f["size"])) for f in fields.get("SHA256", [])}
            for sha256, _ in files.values():
                check_sha256(sha256)
        except (KeyError, ValueError, TypeError) as error:
            raise BadIndex(f"{shown_url(url)}: its SHA256 list cannot be read: {error}") from error
        return Release(suite, files, fields.get("Acquire-By-Hash") == "yes")

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._progress.warn(text)


def scan_index(path: Path, patterns: Iterable[str]) -> Iterator[Mapping[str, str]]:
    """The stanzas of an xz-compressed Packages index whose package name matches one of `patterns`.

    An index has 60,000 stanzas, and we want ten: only the lines "Package: …" are looked at, a
    megabyte at a time, and only what matches is parsed. Raises `BadIndex`.
    """
    from debian.deb822 import Deb822

    either = "|".join(p.replace("(?P<release>", "(?:") for p in patterns)
    # A literal start is searched for twice as fast as the start of any line.
    wanted = re.compile(rf"\nPackage: (?:{either})$".encode(), re.MULTILINE)
    try:
        with lzma.open(path) as stream:
            for block in _whole_stanzas(stream):
                for match in wanted.finditer(block):
                    start = block.rfind(b"\n\n", 0, match.start() + 1) + 1
                    end = block.find(b"\n\n", match.end())
                    stanza = block[start : end if end >= 0 else None]
                    yield Deb822(stanza.decode("utf-8", "replace").strip().splitlines())
    except (lzma.LZMAError, EOFError) as error:
        raise BadIndex(f"{path}: not an xz file: {error}") from error


def _whole_stanzas(stream: lzma.LZMAFile) -> Iterator[bytes]:
    """Blocks of stanzas, each after a newline of its own."""
    rest = b""
    while chunk := stream.read(_READ):
        block, cut, begun = (rest + chunk).rpartition(b"\n\n")
        if cut:
            yield b"\n" + block
        rest = begun
        if len(rest) > MAX_STANZA:
            raise BadIndex(f"a stanza of the index is larger than {MAX_STANZA >> 20} MiB")
    yield b"\n" + rest


def _once(memory: dict[K, V | FetchError], key: K, make: Callable[[], V]) -> V:
    """`memory[key]`, made when it is not there. A failure is remembered and raised again."""
    if key not in memory:
        try:
            memory[key] = make()
        except FetchError as error:
            memory[key] = error
    value = memory[key]
    if isinstance(value, FetchError):
        raise value
    return value


def _resolved(stanza: Mapping[str, str], suite: str, arch: str) -> Resolved:
    try:
        resolved = Resolved(
            suite=suite,
            package=stanza["Package"],
            version=stanza["Version"],
            arch=arch,
            path=stanza["Filename"],
            size=int(stanza["Size"]),
            sha256=stanza["SHA256"].lower(),
        )
        check_resolved(resolved)
    except (KeyError, ValueError) as error:
        package = stanza.get("Package")
        raise BadIndex(f"the index of {suite} describes {package} badly: {error}") from error
    return resolved


def _expired(valid_until: str | None) -> str | None:
    """The date, when it has passed."""
    try:
        until = email.utils.parsedate_to_datetime(valid_until) if valid_until else None
    except ValueError:
        return None
    now = datetime.datetime.now(datetime.UTC)
    if until is not None and until.tzinfo is None:  # "UTC" parses as "no zone known"
        until = until.replace(tzinfo=datetime.UTC)
    return valid_until if until is not None and until < now else None
