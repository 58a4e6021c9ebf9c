"""What can go wrong between a catalogue name and a kernel file on disk.

Owns the exceptions of this room. str() of each is one line that says what failed, where, and what
to do next; the name of the kernel is added where a set is fetched. Must not know how anything is
fetched.
"""

from __future__ import annotations


class FetchError(Exception):
    """A kernel could not be had. `fatal`: every other kernel of the set would fail the same way."""

    fatal = False

    @property
    def lines(self) -> tuple[str, ...]:
        """What there is to say, a line each."""
        return (str(self),)


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
