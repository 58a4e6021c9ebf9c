"""HTTP: a file of known size and hash, whatever the network does on the way.

Owns retries with back-off, resuming (RFC 9110 section 14: Range, Content-Range, 206 and 416),
limits and the hash check. Must not know Debian, the cache's layout or the lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from bootproof.dataclass import dataclass
from bootproof.kernels import waiting
from bootproof.kernels.cache import file_sha256
from bootproof.kernels.errors import NoNetwork, NotOnMirror, ServerRefused, WrongHash
from bootproof.kernels.progress import Advance, Progress, mebibytes
from bootproof.printable import shown_url

if TYPE_CHECKING:
    import requests

CHUNK = 256 << 10
MOST_REDIRECTS = 5
MIRROR_ADVICE = "check the network, or name another mirror with --mirror or BOOTPROOF_MIRROR"
ENOUGH_PROGRESS = 64 << 10
"""Bytes. A try that got so much further than any before shows a line that works: count anew."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to believe in a mirror. Seconds of the host's wall clock."""

    tries: int = 5  # in a row that came no further
    first_delay: float = 0.5
    connect_timeout: float = 10.0
    read_timeout: float = 30.0

    def delay(self, failures: int) -> float:
        """How long to wait after so many failures in a row (1 or more)."""
        return float(self.first_delay * 2 ** (failures - 1))


class _Transient(Exception):
    """This try failed in a way that another one may cure."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file whose content is already known from a signed index or the lock."""

    label: str
    size: int
    sha256: str


class Downloader:
    """One HTTP session, opened by the first request. Use close() at the end.

    `advice` is what to do when the network fails.
    """

    def __init__(
        self, progress: Progress, retry: RetryPolicy, *, advice: str = MIRROR_ADVICE
    ) -> None:
        self._advice = advice
        self._progress = progress
        self._retry = retry
        self._session: requests.Session | None = None

    def close(self) -> None:
        """End the session; the next request opens a new one."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def read(self, url: str, limit: int) -> bytes:
        """The whole of a small file. Raises `NotOnMirror`, `ServerRefused`, `NoNetwork`."""

        def attempt() -> bytes:
            with self._get(url, 0) as response:
                return b"".join(_whole(url, response, limit))

        return self._persist(url, attempt)

    def save_hashed(self, url: str, target: Path, sha256: str, limit: int) -> None:
        """Write the file at `url`, whose size nobody knows, to `target`, and sync it.

        Raises as `read`, and `WrongHash`; what is then at `target` is not to be used.
        """

        def attempt() -> str:
            digest = hashlib.sha256()
            with self._get(url, 0) as response, target.open("wb") as file:
                size = _total(response, 0) or 0
                with self._progress.download(target.name, size, 0) as advance:
                    for chunk in _whole(url, response, limit):
                        file.write(chunk)
                        digest.update(chunk)
                        advance(file.tell())
                file.flush()
                os.fsync(file.fileno())
            return digest.hexdigest()

        actual = self._persist(url, attempt)
        if actual != sha256:
            raise WrongHash(
                f"{shown_url(url)} is not the file that was asked for: its SHA-256 is {actual}, not"
                f" {sha256}"
            )

    def save(self, url: str, part: Path, wanted: Wanted) -> None:
        """Make `part` the file `wanted`, going on from what an earlier try left there.

        Returns only when size and hash are right. On `WrongHash` and `DiskFull` the part is
        removed; on `NoNetwork` it stays for the next time. The caller keeps other processes away
        from `part`.
        """
        part.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.exists()
        with self._progress.download(wanted.label, wanted.size, _size(part)) as advance:
            while (actual := self._complete(url, part, wanted, advance)) != wanted.sha256:
                part.unlink()
                if not resumed:
                    raise _wrong_hash(url, wanted, f"its SHA-256 is {actual}")
                resumed = False

    def _complete(self, url: str, part: Path, wanted: Wanted, advance: Advance) -> str:
        """Brings `part` to its size; gives its SHA-256."""

        def attempt() -> None:
            if _size(part) != wanted.size:
                self._stream(url, part, wanted, advance)

        try:
            self._persist(url, attempt, lambda: _size(part))
        except OSError:
            # A full disk is no place for the remains of a download.
            part.unlink(missing_ok=True)
            raise
        return file_sha256(part)

    def _stream(self, url: str, part: Path, wanted: Wanted, advance: Advance) -> None:
        have = _size(part)
        if have > wanted.size:
            part.unlink()
            have = 0
        with self._get(url, have) as response:
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)
                raise _Transient(f"it has nothing from byte {have} on")
            if not _goes_on_at(response, have):
                have = 0
            if (total := _total(response, have)) not in (None, wanted.size):
                part.unlink(missing_ok=True)
                raise _wrong_hash(url, wanted, f"it has {total} bytes")
            with part.open("r+b" if have else "wb") as file:
                file.seek(have)
                for chunk in _body(response):
                    have += len(chunk)
                    if have > wanted.size:
                        break
                    file.write(chunk)
                    advance(have)
        if have > wanted.size:
            part.unlink()
            raise _wrong_hash(url, wanted, "it is longer")
        if have < wanted.size:
            raise _Transient(f"it ended at byte {have} of {wanted.size}")

    @contextlib.contextmanager
    def _get(self, url: str, have: int) -> Iterator[requests.Response]:
        import requests

        if self._session is None:
            self._session = requests.Session()
            self._session.max_redirects = MOST_REDIRECTS
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        timeout = (self._retry.connect_timeout, self._retry.read_timeout)
        try:
            with self._session.get(url, headers=headers, stream=True, timeout=timeout) as response:
                _check_status(url, response, ranged=have > 0)
                yield response
        except requests.exceptions.SSLError as error:
            raise ServerRefused(f"{shown_url(url)}: TLS: {_reason(error)}") from error
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            raise _Transient(_reason(error)) from error
        except requests.RequestException as error:
            flaw = type(error).__name__
            raise ServerRefused(f"{shown_url(url)}: {flaw}; is the address right?") from error

    def _persist(
        self, url: str, attempt: Callable[[], T], size: Callable[[], int] = lambda: 0
    ) -> T:
        """What `attempt` gives, tried again while its failures are such as may pass.

        `size` says how many bytes are there so far.
        """
        failures, farthest = 0, size()
        while True:
            try:
                return attempt()
            except _Transient as reason:
                if size() >= farthest + ENOUGH_PROGRESS:
                    failures, farthest = 0, size()
                failures += 1
                if failures >= self._retry.tries:
                    raise NoNetwork(
                        f"cannot fetch {shown_url(url)}: {reason} ({failures} tries);"
                        f" {self._advice}"
                    ) from reason
                delay = self._retry.delay(failures)
                self._progress.note(
                    f"{urlsplit(shown_url(url)).netloc}: {reason}; trying again in {delay:g} s"
                    f" (try {failures + 1} of {self._retry.tries})"
                )
            waiting.pause(delay)


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _check_status(url: str, response: requests.Response, *, ranged: bool) -> None:
    status = response.status_code
    of_ranges = (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
    if status == HTTPStatus.OK or (ranged and status in of_ranges):
        return
    answer = f"{status} {response.reason}"
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise NotOnMirror(f"{shown_url(url)}: the server answers {answer}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise _Transient(f"it answers {answer}")
    raise ServerRefused(f"{shown_url(url)}: the server answers {answer}")


def _goes_on_at(response: requests.Response, have: int) -> bool:
    """True when the body is what follows byte `have`; a 200 is the whole file from its start."""
    if response.status_code != HTTPStatus.PARTIAL_CONTENT:
        return False
    content_range = response.headers.get("Content-Range", "")
    if not content_range.startswith(f"bytes {have}-"):
        raise _Transient(f"it sent {content_range or 'an unnamed range'} when asked for {have}-")
    return True


def _total(response: requests.Response, have: int) -> int | None:
    """The size of the whole file by the word of the server; None when it does not say."""
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdecimal() else None


def _body(response: requests.Response) -> Iterator[bytes]:
    from urllib3.exceptions import HTTPError

    try:
        yield from response.raw.stream(CHUNK, decode_content=False)
    except HTTPError as error:
        raise _Transient(f"the connection was lost ({_reason(error)})") from error


def _whole(url: str, response: requests.Response, limit: int) -> Iterator[bytes]:
    """A body from its start to its end, which is not behind byte `limit`."""
    have, total = 0, _total(response, 0) or 0
    for chunk in _body(response):
        have += len(chunk)
        if max(have, total) > limit:
            raise ServerRefused(f"{shown_url(url)}: larger than {mebibytes(limit)}")
        yield chunk
    if have < total:
        raise _Transient(f"it ended at byte {have} of {total}")


def _wrong_hash(url: str, wanted: Wanted, flaw: str) -> WrongHash:
    return WrongHash(
        f"{shown_url(url)} is not the file that was asked for ({wanted.size} bytes, SHA-256"
        f" {wanted.sha256}): {flaw}; the mirror or something on the way to it is broken:"
        " try another one with --mirror"
    )


def _reason(error: BaseException) -> str:
    """The operating system's word for what went wrong, out of the wrappers of two libraries."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if not isinstance(item, BaseException) or item in seen:
            continue
        seen.append(item)
        queue += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]
        if isinstance(item, OSError) and item.strerror and item.errno is not None:
            return item.strerror
        if "timed out" in str(item).lower():
            return "timed out"
    return type(seen[-1]).__name__ if len(seen) > 1 else (str(error) or type(error).__name__)
