"""Fixtures of the kernels tests: a local mirror, an archive in it, and fetchers that use them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bootproof.kernels import signature
from bootproof.kernels.catalog import Catalog, load_catalog
from bootproof.kernels.download import RetryPolicy
from bootproof.kernels.fetch import Fetcher
from bootproof.kernels.progress import Advance
from bootproof.kernels.records import LockMode
from tests.kernels.debian import DebianArchive, deb_of
from tests.kernels.server import Mirror

CATALOG = r"""
[architectures]
x86_64 = "amd64"
aarch64 = "arm64"

[kernels."6.1-amd64"]
arch = "x86_64"
suite = "bookworm"
package = 'linux-image-(?P<release>6\.1\.0-\d+-amd64)'
file = "boot/vmlinuz-{release}"
default = true

[kernels."newest-amd64"]
arch = "x86_64"
suite = "trixie"
package = 'linux-binary-(?P<release>\d[\d.]*-amd64)'
file = "usr/lib/modules/{release}/vmlinuz"

[kernels."busybox-arm64"]
kind = "busybox"
arch = "aarch64"
suite = "trixie"
package = 'busybox-static'
file = "usr/bin/busybox"
default = true
"""

FAST = RetryPolicy(tries=3, first_delay=0.0, connect_timeout=20.0, read_timeout=20.0)


@dataclass
class Recorder:
    """A Progress that remembers."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    downloads: list[tuple[str, int, int]] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextlib.contextmanager
    def download(self, label: str, size: int, have: int) -> Iterator[Advance]:
        self.downloads.append((label, size, have))
        yield lambda done: None


@dataclass
class Bench:
    """One user's machine, one clone of the repository, and one mirror."""

    home: Path
    mirror: Mirror
    archive: DebianArchive
    catalog: Catalog
    progress: Recorder = field(default_factory=Recorder)

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    @property
    def lock(self) -> Path:
        return self.home / "kernels.lock"

    def fetcher(self, mode: LockMode = LockMode.USE, *, mirror: str | None = None) -> Fetcher:
        return Fetcher(
            mirror or self.mirror.url,
            self.cache,
            mode,
            lock_path=self.lock,
            catalog=self.catalog,
            progress=self.progress,
            retry=FAST,
        )

    def kernel_61(self, abi: int, content: bytes = b"kernel") -> str:
        release = f"6.1.0-{abi}-amd64"
        deb = deb_of({"boot/config": b"y", f"boot/vmlinuz-{release}": content + str(abi).encode()})
        name = f"linux-image-{release}"
        return self.archive.add(name, f"6.1.{abi}-1", deb, suite="bookworm")


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    root = tmp_path / "mirror"
    root.mkdir()
    server = Mirror(root)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bench(tmp_path: Path, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """An archive with three kernels of 6.1, one newest, one busybox; unsigned, with no keyring."""
    monkeypatch.setattr(signature, "KEYRINGS", ())
    for variable in [name for name in os.environ if name.startswith("BOOTPROOF_")]:
        monkeypatch.delenv(variable)
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG)
    bench = Bench(tmp_path, mirror, DebianArchive(mirror.root), load_catalog(catalog))
    for abi in (9, 10, 8):
        bench.kernel_61(abi)
    newest = deb_of({"usr/lib/modules/7.3.4-amd64/vmlinuz": b"newest"}, ".zst")
    bench.archive.add("linux-binary-7.3.4-amd64", "7.3.4-1~bpo13+1", newest)
    busybox = deb_of({"usr/bin/busybox": b"#!busybox"})
    bench.archive.add("busybox-static", "1:1.37.0-6+b9", busybox, arch="arm64")
    bench.archive.publish()
    return bench
