"""What can go wrong between a catalogue name and a kernel file on disk.

Owns the exceptions of this room. str() of each is one line that says what failed, where, and what
to do next; the name of the kernel is added by `FetchErrors`, which collects the failures of a set.
Must not know how anything is fetched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bootproof.kernels.fetch import FetchedKernel


class FetchError(Exception):
    """A kernel could not be had. `fatal`: every other kernel of the set would fail the same way."""

    fatal = False


class UnknownKernel(FetchError):
    """The catalogue has no such name; the message suggests the nearest one."""


class CatalogError(FetchError):
    """The catalogue file itself is wrong; raised when it is read, never later."""


class LockError(FetchError):
    """The lock file cannot be read, understood or written."""

    fatal = True


class NotLocked(FetchError):
    """The lock was to be obeyed and has no entry that fits; `--update` makes one."""


class DroppedVersion(FetchError):
    """The locked version has left the mirror and the lock was to be obeyed; `--update` moves on."""


class MirrorUnknown(FetchError):
    """No Debian mirror was named and none was found on this machine."""

    fatal = True


class NoNetwork(FetchError):
    """The mirror could not be reached, or went away again and again."""

    fatal = True


class ServerRefused(FetchError):
    """The mirror answered, but with an error that trying again does not cure."""


class NotOnMirror(FetchError):
    """The mirror says that the file does not exist (404 or 410)."""


class UnknownSuite(FetchError):
    """The mirror does not carry the suite: mistyped, archived elsewhere, or never mirrored."""


class BadSignature(FetchError):
    """The suite's InRelease is not signed by a key of the keyring, or is another suite's."""


class WrongHash(FetchError):
    """A file is complete and is not the one that the signed index names."""


class BadIndex(FetchError):
    """The suite's metadata lacks what is needed or cannot be parsed."""


class NoMatch(FetchError):
    """The index was read and no package in it fits the pattern of the catalogue."""


class BadPackage(FetchError):
    """The package's hash is right, but it cannot be unpacked within our limits."""


class MemberMissing(FetchError):
    """The package does not hold the file that the catalogue names, or not as a regular file."""


class BadSource(FetchError):
    """What should name a kernel does not: no such file, no hash, nothing usable in a package."""


class DiskFull(FetchError):
    """No room, or no quota, for the download or the unpacked file; nothing half-written stays."""

    fatal = True


class CacheUnusable(FetchError):
    """The cache directory cannot be created, read or written."""

    fatal = True


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
        lines = [f"{name}: {error}" for name, error in self.errors.items()]
        if skipped:
            lines.append(f"not tried after that: {', '.join(skipped)}")
        super().__init__("\n".join(lines))
