"""Builders of small Debian archives: packages, indexes and InRelease files, as bytes on disk.

Reads like the layout it makes (deb(5), the Debian repository format). Nothing here knows the
fetcher.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".xz": lambda data: lzma.compress(data, preset=0),
    ".gz": lambda data: gzip.compress(data, 1, mtime=0),
    ".zst": lambda data: zstandard.ZstdCompressor(level=1).compress(data),
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def regular(name: str, data: bytes) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    """A link, directory or device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def tar_of(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def ar_of(members: Mapping[str, bytes]) -> bytes:
    archive = b"!<arch>\n"
    for name, data in members.items():
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode()
        archive += header + data + b"\n" * (len(data) % 2)
    return archive


def deb_of(
    members: Iterable[tuple[tarfile.TarInfo, bytes]] | Mapping[str, bytes],
    compression: str = ".xz",
) -> bytes:
    """A package that holds `members`; a mapping gives regular files, named as dpkg names them."""
    if isinstance(members, Mapping):
        members = [regular(f"./{name}", data) for name, data in members.items()]
    return ar_of(
        {
            "debian-binary": b"2.0\n",
            "control.tar.xz": COMPRESSORS[".xz"](tar_of([regular("./control", b"odd")])),
            f"data.tar{compression}": COMPRESSORS[compression](tar_of(members)),
        }
    )


@dataclass
class Suite:
    """What InRelease says besides the hashes; `stanzas` by (component, architecture)."""

    fields: dict[str, str]
    stanzas: dict[tuple[str, str], list[dict[str, str]]] = field(default_factory=dict)


class DebianArchive:
    """An archive below `root`. Call publish() after every change, as dak would."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.suites: dict[str, Suite] = {}
        self.sign: Callable[[bytes], bytes] = lambda text: text

    def add(
        self,
        package: str,
        version: str,
        deb: bytes,
        *,
        suite: str = "trixie",
        arch: str = "amd64",
        component: str = "main",
    ) -> str:
        """Put a package into the pool and the index; the path below the root."""
        path = f"pool/{component}/{package}_{version.replace(':', '%3a')}_{arch}.deb"
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(deb)
        stanza = {
            "Package": package,
            "Version": version,
            "Architecture": arch,
            "Description": f"{package}\n Package: not-a-field",
            "Filename": path,
            "Size": str(len(deb)),
            "SHA256": sha256(deb),
        }
        self.suite(suite).stanzas.setdefault((component, arch), []).append(stanza)
        return path

    def drop(self, path: str) -> None:
        """Take a package out of the pool and every index, as Debian does with old versions."""
        (self.root / path).unlink()
        for suite in self.suites.values():
            for stanzas in suite.stanzas.values():
                stanzas[:] = [s for s in stanzas if s["Filename"] != path]

    def suite(self, name: str) -> Suite:
        fields = {"Origin": "Debian", "Codename": name, "Acquire-By-Hash": "yes"}
        return self.suites.setdefault(name, Suite(fields))

    def publish(self) -> None:
        for name, suite in self.suites.items():
            lines = [f"{key}: {value}" for key, value in suite.fields.items()] + ["SHA256:"]
            for (component, arch), stanzas in suite.stanzas.items():
                path = f"{component}/binary-{arch}/Packages.xz"
                index = COMPRESSORS[".xz"](index_of(stanzas))
                lines.append(f" {sha256(index)} {len(index)} {path}")
                for copy in (path, f"{component}/binary-{arch}/by-hash/SHA256/{sha256(index)}"):
                    target = self.root / "dists" / name / copy
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(index)
            release = self.root / "dists" / name / "InRelease"
            release.parent.mkdir(parents=True, exist_ok=True)
            release.write_bytes(self.sign(("\n".join(lines) + "\n").encode()))


def index_of(stanzas: Iterable[Mapping[str, str]]) -> bytes:
    return "\n".join(
        "".join(f"{key}: {value}\n" for key, value in stanza.items()) for stanza in stanzas
    ).encode()
