"""The lock: which package of which version each catalogue name meant.

Owns the format of kernels.lock (JSON, no host name in it) and of the local record beside the cache,
which has the same form. Must not know the network; records.py decides which file counts when.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bootproof.dataclass import dataclass
from bootproof.kernels.catalog import CatalogEntry
from bootproof.kernels.errors import LockError

FORMAT = 1
MAX_PACKAGE_SIZE = 2 << 30
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Resolved:
    """One package, named so exactly that any mirror can only give the same bytes."""

    suite: str
    package: str
    version: str
    arch: str  # Debian's name of it
    path: str  # relative to the mirror's root
    size: int  # bytes
    sha256: str
    # In the local record only: the SHA-256 of the committed lock's package that this one stands in
    # for, empty when the lock had none.
    instead_of: str = ""

    def fits(self, entry: CatalogEntry) -> bool:
        """True while the catalogue still asks for this suite, architecture and package."""
        place = (entry.suite, entry.debian_arch) == (self.suite, self.arch)
        return place and entry.package.fullmatch(self.package) is not None


def read_lock(path: Path) -> dict[str, Resolved]:
    """What a lock file records; empty when there is none. Raises `LockError` naming the flaw."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else error
        raise LockError(f"{path}: cannot be read: {told}") from error
    try:
        document = json.loads(text)
        if document["version"] != FORMAT:
            raise ValueError(f"its version is {document['version']}, this program knows {FORMAT}")
        return {name: _resolved(name, table) for name, table in document["kernels"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LockError(
            f"{path}: not a lock file: {error};"
            " restore it, or remove it and run: bootproof fetch --update"
        ) from error


def write_lock(path: Path, locked: Mapping[str, Resolved]) -> None:
    """Replace a lock file in one step. Raises `OSError` and leaves the old file on failure."""
    tables = {name: _table(locked[name]) for name in sorted(locked)}
    text = json.dumps({"version": FORMAT, "kernels": tables}, indent=2) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _table(resolved: Resolved) -> dict[str, Any]:
    return {key: value for key, value in asdict(resolved).items() if value != ""}


def _resolved(name: str, table: Mapping[str, Any]) -> Resolved:
    kinds = {field.name: field.type for field in fields(Resolved)}
    for key, value in table.items():
        if key not in kinds or type(value).__name__ != kinds[key]:
            raise ValueError(f"{name}: unexpected {key} = {value!r}")
    try:
        resolved = Resolved(**table)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error
    check_resolved(resolved)
    return resolved


def check_resolved(resolved: Resolved) -> None:
    """Raise `ValueError` for a record that must not be acted on, whoever wrote it.

    The path becomes a part of a URL, the size a promise of disk space.
    """
    check_sha256(resolved.sha256)
    parts = resolved.path.split("/")
    if ".." in parts or "" in parts or not re.fullmatch(r"[\w./+~:%=-]+", resolved.path):
        raise ValueError(
            f"{resolved.package}: {resolved.path!r} is not a path below the mirror's root"
        )
    if not 0 < resolved.size <= MAX_PACKAGE_SIZE:
        raise ValueError(f"{resolved.package}: a size of {resolved.size} bytes is out of bounds")


def check_sha256(text: str) -> None:
    """Raise `ValueError` for what is no hash: it becomes a file name in the cache."""
    if not _SHA256.fullmatch(text):
        raise ValueError(f"{text!r} is not a SHA-256 in hexadecimal")
