"""What is hashed is what is unpacked, whatever becomes of the file meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.kernels.cache import file_sha256
from bootproof.kernels.errors import FetchError
from bootproof.loader import banner
from tests.builders import packings
from tests.kernels.debian import deb_of

OURS, OTHER = packings.elf(8192), packings.elf(4096)


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> Path:
    images.in_format.cache_clear()
    return own_cache


def packed(path: Path, kernel: bytes) -> Path:
    path.write_bytes(packings.bzimage(packings.gzip(kernel)))
    return path


def vmlinux(kernel: KernelFile) -> bytes:
    with images.in_format(kernel, "elf").open() as image:
        return bytes(image.data)


def renamed_over(path: Path) -> None:
    packed(path.with_name("new"), OTHER).replace(path)


def written_over(path: Path) -> None:
    packed(path, OTHER)


def cut(path: Path) -> None:
    os.truncate(path, 0)


@pytest.mark.parametrize("change", [renamed_over, written_over, cut, Path.unlink])
def test_a_kernel_that_is_replaced_while_it_is_looked_at(
    change: Callable[[Path], None], tmp_path: Path
) -> None:
    path = packed(tmp_path / "bzImage", OURS)
    looked_at = images.kernel_file(str(path))
    change(path)
    assert vmlinux(looked_at) == OURS
    # And under our hash the cache has nothing else, for anybody who names our kernel again.
    images.in_format.cache_clear()
    again = images.kernel_file(str(packed(tmp_path / "again", OURS)))
    assert (again.sha256, vmlinux(again)) == (looked_at.sha256, OURS)


def test_a_kernel_that_is_built_anew_is_another_one(tmp_path: Path) -> None:
    path = packed(tmp_path / "bzImage", OURS)
    first = images.kernel_file(str(path))
    for change in (renamed_over, lambda path: packed(path, OURS), written_over):
        change(path)
        assert images.kernel_file(str(path)).sha256 == file_sha256(path)
    assert vmlinux(images.kernel_file(str(path))) == OTHER != vmlinux(first)


def test_a_package_that_is_replaced_while_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "linux.deb"
    path.write_bytes(deb_of({"boot/vmlinuz-1": packed(tmp_path / "a", OURS).read_bytes()}))
    looked_at = images.kernel_file(str(path))
    path.write_bytes(deb_of({"boot/vmlinuz-1": packed(tmp_path / "a", OTHER).read_bytes()}))
    assert vmlinux(looked_at) == OURS
    assert vmlinux(images.kernel_file(str(path))) == OTHER


@pytest.mark.parametrize("put_back", [False, True])
def test_a_damaged_file_of_the_cache_is_made_anew(put_back: bool, tmp_path: Path) -> None:
    kernel = images.kernel_file(str(packed(tmp_path / "bzImage", OURS)))
    path = images.in_format(kernel, "elf").path
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"damaged")
    if put_back:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    images.in_format.cache_clear()
    assert vmlinux(kernel) == OURS


def test_nothing_but_whole_files_is_in_the_cache(tmp_path: Path, cache: Path) -> None:
    kernel = images.kernel_file(str(packed(tmp_path / "bzImage", OURS)))
    vmlinux(kernel)
    kept = [path.name for path in (cache / "derived").rglob("*") if path.is_file()]
    assert sorted(kept) == ["bzimage-1", "meta.json"]
    assert len(list((cache / "derived").iterdir())) == 1


def test_what_a_kernel_says_it_is_called_is_searched_for_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a vmlinux of several banners; the second time there is no search that could be done."""
    said = b"Linux version 6.1.2-own (me@here)\0Linux version 5.4\0Linux version 6.1.2-own \0"
    path = tmp_path / "vmlinux"
    path.write_bytes(packings.elf(4096) + said)
    for search in (banner.banner_releases, None):
        monkeypatch.setattr(banner, "banner_releases", search)
        images.releases.cache_clear()
        assert images.releases(images.kernel_file(str(path)), "elf") == ("6.1.2-own", "5.4")


def test_who_has_had_many_kernels_keeps_few_of_them_open(tmp_path: Path) -> None:
    """A matrix of a thousand, or a worker of months: of a packed one there are two files."""
    opened = []
    for number in range(120):
        path = tmp_path / f"{number}"
        path.write_bytes(packings.gzip(packings.elf(64 + number)))
        assert vmlinux(images.kernel_file(str(path)))
        opened.append(len(os.listdir("/proc/self/fd")))  # noqa: PTH208
    assert opened[-1] <= opened[0] + 2 * 64 + 2
    assert images.in_format.cache_info().currsize == 64


def test_a_boot_image_is_no_kernel(tmp_path: Path) -> None:
    (tmp_path / "boot.json").write_text("{}")
    with pytest.raises(UserError, match=r"is a boot image, not a kernel; start it with `.* run`"):
        images.find(str(tmp_path))
    with pytest.raises(FetchError, match="File name too long"):
        images.find("x" * 5000)
