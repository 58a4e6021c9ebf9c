"""Modules by name in directories and packages, and out of each packing."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest
import zstandard

from bootproof.kernels import deb, modules, rpm, sources, unpacking
from bootproof.kernels.errors import BadPackage, BadSource, DroppedVersion
from bootproof.kernels.modules import Modules
from tests.kernels.conftest import Bench
from tests.kernels.debian import deb_of
from tests.kernels.rpms import rpm_of

RELEASE = "6.1.0-test"
BELOW = f"lib/modules/{RELEASE}"
FILES = {
    f"{BELOW}/modules.builtin": b"kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n",
    f"{BELOW}/kernel/drivers/char/hw_random/virtio-rng.ko": b"rng",
    f"{BELOW}/kernel/drivers/block/loop.ko.xz": lzma.compress(b"loop"),
    f"{BELOW}/modules.order": b"kernel/drivers/block/loop.ko\n",
}
KERNEL = {f"boot/vmlinuz-{RELEASE}": b"a kernel"}


pytestmark = pytest.mark.usefixtures("own_cache")


def unfold(root: Path) -> Path:
    for name, data in (FILES | KERNEL).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def check(found: Modules) -> None:
    assert set(found.paths) == {"virtio_rng", "loop"}
    assert found.built_in == {"ext4", "crc_t10dif"}
    files = found.files(found.paths.values())
    assert {name: modules.read(files[path]) for name, path in found.paths.items()} == {
        "virtio_rng": b"rng",
        "loop": b"loop",
    }


def test_below_a_directory(tmp_path: Path) -> None:
    root = unfold(tmp_path / "root")
    check(modules.at(root / "lib"))
    assert modules.in_directory(root / "lib", deep=False).paths == {}
    check(modules.of_kernel(sources.find(str(root / f"boot/vmlinuz-{RELEASE}")), (RELEASE,)))
    (root / BELOW / "vmlinuz").write_bytes(b"a kernel")
    check(modules.of_kernel(sources.find(str(root / BELOW / "vmlinuz")), (RELEASE,)))


@pytest.mark.parametrize(
    ("name", "data"),
    [("k_1_amd64.deb", deb_of(KERNEL | FILES)), ("k-1.rpm", rpm_of(KERNEL | FILES))],
)
def test_in_a_package(
    name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / name
    package.write_bytes(data)
    with monkeypatch.context() as once:
        passes: list[Path] = []
        for module in (deb, rpm):
            once.setattr(module, "members", counting(module.members, passes))
        source = sources.find(str(package))  # which looks for its kernel
        passes.clear()
        check(modules.of_kernel(source, ("another",)))
    assert len(passes) == 1  # for the list and all modules
    monkeypatch.setattr(unpacking, "copy", None)  # the second time all of it is in the cache
    check(modules.at(package))


def counting(members: Any, passes: list[Path]) -> Any:
    def counted(path: Path) -> Any:
        passes.append(path)
        return members(path)

    return counted


def test_a_file_of_a_package_that_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who wants it is refused."""
    monkeypatch.setattr(modules, "MOST", 64)
    package = tmp_path / "k_1_amd64.deb"
    package.write_bytes(deb_of(KERNEL | FILES | {f"{BELOW}/huge.ko": b"\1" * 65}))
    found = modules.at(package)
    assert set(found.paths) == {"virtio_rng", "loop", "huge"}
    (rng,) = found.files([found.paths["virtio_rng"]]).values()
    assert rng.read_bytes() == b"rng"
    with pytest.raises(BadPackage, match=rf"{BELOW}/huge.ko has .* more than"):
        found.files([found.paths["huge"]])


@pytest.mark.parametrize("name", ["..ko", "...ko", "a\nb.ko", "caf\udce9.ko", "-rf.ko"])
def test_names_of_a_package_lead_nowhere(name: str, tmp_path: Path) -> None:
    package = tmp_path / "k_1_amd64.deb"
    package.write_bytes(
        deb_of(KERNEL | {f"{BELOW}/{name}": b"module", f"{BELOW}/loop.ko": b"loop"})
    )
    found = modules.at(package)
    files = found.files(found.paths.values())
    listed = {"loop": b"loop"} | (
        {} if not name.isprintable() else {modules.name_of(name): b"module"}
    )
    assert {key: modules.read(files[path]) for key, path in found.paths.items()} == listed
    assert sorted(each.name for each in tmp_path.iterdir()) == ["cache", "k_1_amd64.deb"]


def test_in_a_build_directory(tmp_path: Path) -> None:
    root = unfold(tmp_path / "root")
    (root / "arch/x86/boot").mkdir(parents=True)
    (root / "arch/x86/boot/bzImage").write_bytes(b"a kernel")
    check(modules.of_kernel(sources.find(str(root)), ()))


def test_in_the_package_of_a_kernel_of_the_catalogue(bench: Bench) -> None:
    release = "6.1.0-11-amd64"
    deb = deb_of({f"boot/vmlinuz-{release}": b"kernel", f"lib/modules/{release}/loop.ko": b"loop"})
    path = bench.archive.add(f"linux-image-{release}", "6.1.11-1", deb, suite="bookworm")
    bench.archive.publish()
    first = bench.fetcher().package("6.1-amd64")
    assert first.path.read_bytes() == deb
    bench.archive.drop(path)
    assert bench.fetcher().package("6.1-amd64") == first  # it is kept
    first.path.unlink()
    with pytest.raises(DroppedVersion, match=r"no longer has linux-image-6.1.0-11-amd64 6.1.11-1"):
        bench.fetcher().package("6.1-amd64")


@pytest.mark.parametrize(
    "pack", [bytes, lzma.compress, gzip.compress, zstandard.ZstdCompressor().compress]
)
def test_packings(pack: object, tmp_path: Path) -> None:
    """By what is in it: the name may say anything."""
    (tmp_path / "x.ko").write_bytes(pack(b"module" * 9))  # type: ignore[operator]
    assert modules.read(tmp_path / "x.ko") == b"module" * 9


def test_what_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cut.ko.xz").write_bytes(lzma.compress(b"module" * 99)[:-20])
    with pytest.raises(BadSource, match=r"cut.ko.xz: cannot be unpacked: it ends too early"):
        modules.read(tmp_path / "cut.ko.xz")
    monkeypatch.setattr(modules, "MOST", 64)
    (tmp_path / "bomb.ko.gz").write_bytes(gzip.compress(bytes(9999)))
    with pytest.raises(BadSource, match=r"bomb.ko.gz: unpacks to more than"):
        modules.read(tmp_path / "bomb.ko.gz")
    with pytest.raises(BadSource, match=r"none.ko: No such file"):
        modules.read(tmp_path / "none.ko")
    with pytest.raises(BadSource, match="is neither a directory nor a package"):
        modules.at(tmp_path / "cut.ko.xz")


def test_a_kernel_alone(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(b"a kernel")
    with pytest.raises(BadSource, match=r"nothing is known of its modules \(no .*lib/modules/9.9"):
        modules.of_kernel(sources.find(str(tmp_path / "bzImage")), ("9.9-none",))
