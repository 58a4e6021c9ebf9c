"""A kernel by whatever names it; nothing of a refused one stays behind."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
from pathlib import Path

import pytest

from bootproof.kernels import sources
from bootproof.kernels.errors import (
    BadSource,
    FetchError,
    NoNetwork,
    NotOnMirror,
    ServerRefused,
    WrongHash,
)
from bootproof.kernels.progress import Lines
from bootproof.kernels.sources import Source
from tests.kernels.conftest import FAST
from tests.kernels.debian import deb_of
from tests.kernels.rpms import rpm_of
from tests.kernels.server import Fault, Mirror

KERNEL = bytes(range(256)) * 999
OTHER = KERNEL[::-1]


pytestmark = pytest.mark.usefixtures("own_cache")


def find(what: object) -> Source:
    return sources.find(str(what), Lines(sys.stderr), FAST)


def kept(cache: Path) -> list[str]:
    """What is in the cache, locks and their directories aside."""
    return sorted(p.name for p in (cache / "files").rglob("*") if p.is_file())


def content(source: Source) -> bytes:
    assert source.path is not None
    return source.path.read_bytes()


# --- files and directories -----------------------------------------------------------------------


def test_a_file_is_taken_where_it_is(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(KERNEL)
    assert find(path) == Source("bzImage", str(path), path)
    assert not own_cache.exists()


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (("arch/x86/boot/bzImage", "vmlinux"), "arch/x86/boot/bzImage"),
        (("arch/arm64/boot/Image", "arch/arm64/boot/Image.gz", "vmlinux"), "arch/arm64/boot/Image"),
        (("arch/arm64/boot/Image.gz",), "arch/arm64/boot/Image.gz"),
        (("vmlinux",), "vmlinux"),
    ],
)
def test_a_build_directory(tmp_path: Path, there: tuple[str, ...], taken: str) -> None:
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(KERNEL)
    assert find(tmp_path).path == tmp_path / taken


def test_the_newest_of_what_was_built_before(tmp_path: Path) -> None:
    """A tree that was used for another architecture, or of which only a part was made again."""
    names = ("arch/x86/boot/bzImage", "arch/arm64/boot/Image", "vmlinux")
    for age, name in ((2000, names[0]), (1000, names[1]), (990, names[2])):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(KERNEL)
        os.utime(tmp_path / name, times=(1e9 - age, 1e9 - age))
    assert find(tmp_path).path == tmp_path / names[1]
    os.utime(tmp_path / names[2], times=(1e9, 1e9))
    assert find(tmp_path).path == tmp_path / names[2]


def test_a_directory_without_a_kernel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSource, match=r"is a directory without arch/x86/boot/bzImage, .*kernel$"):
        find(tmp_path)


def test_a_directory_with_kernels_of_other_names_says_how_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "vmlinux-headers").mkdir()
    (tmp_path / "boot" / "vmlinuz-6.1.0-amd64").write_bytes(KERNEL)
    with pytest.raises(BadSource, match=f"name the kernel, like {tmp_path}/boot/vmlinuz-6.1.0-a"):
        find(tmp_path)


def test_an_archive_of_objects_is_no_package(tmp_path: Path) -> None:
    (tmp_path / "vmlinux.a").write_bytes(b"!<arch>\nmain.o/         0           0     0     644 ")
    assert find(tmp_path / "vmlinux.a").path == tmp_path / "vmlinux.a"


def test_names_of_the_catalogue_are_left_to_it() -> None:
    assert find("6.1-amd64") == Source("6.1-amd64", "6.1-amd64", None)
    with pytest.raises(BadSource, match=r"6\.2-amd64: no such file, and no kernel named"):
        find("6.2-amd64")
    with pytest.raises(BadSource, match="busybox-amd64: no such file, and in the catalogue it is"):
        find("busybox-amd64")


def test_a_file_is_taken_before_a_kernel_of_that_name_in_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own name is then none of the catalogue's, so that nobody mistakes it for that."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "6.1-amd64").write_bytes(KERNEL)
    remark = "6.1-amd64: the file is taken, not the kernel of that name in the catalogue"
    found = find("6.1-amd64")
    assert found == Source("6.1-amd64", "./6.1-amd64", Path("6.1-amd64"), remark)
    assert found.is_file
    assert sources.in_catalogue("6.1-amd64") == Source("6.1-amd64", "6.1-amd64", None)


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    for name in ("fifo", "socket"):
        with pytest.raises(BadSource, match="is not a regular file; copy its content into a file"):
            find(tmp_path / name)


@pytest.mark.parametrize("what", ["/nowhere/bzImage", "bz\0Image", "/etc/passwd/x"])
def test_what_is_not_there_is_one_line(what: str) -> None:
    with pytest.raises(BadSource) as caught:
        find(what)
    assert "\n" not in str(caught.value)


# --- packages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [deb_of, rpm_of], ids=["deb", "rpm"])
@pytest.mark.parametrize(
    "place",
    [
        "boot/vmlinuz-6.1.0-1-amd64",
        "boot/vmlinux-6.1.0",
        "boot/Image-6.1",
        "usr/lib/modules/7.3.4/vmlinuz",
        "lib/modules/6.1.0-1.fc39.x86_64/vmlinuz",
    ],
)
def test_the_kernel_out_of_a_package(tmp_path: Path, own_cache: Path, make, place: str) -> None:  # type: ignore[no-untyped-def]
    files = {
        "boot/config-6.1": b"x",
        "lib/modules/6.1.0/kernel/vmlinuz": b"no",
        "lib/modules/6.1.0/.vmlinuz.hmac": b"no",
        "boot/vmlinuz-6.1.hmac": b"no",
        place: KERNEL,
        "usr/share/doc/boot/vmlinuz": b"no",
    }
    path = tmp_path / "linux-image-6.1.0_6.1.4-1_amd64.deb"
    path.write_bytes(make(files))
    source = find(path)
    assert (source.name, source.shown) == ("linux-image-6.1.0", str(path))
    assert content(source) == KERNEL
    assert kept(own_cache) == ["kernel", "meta.json"]
    path_before, time_before = source.path, source.path.stat().st_mtime_ns if source.path else 0
    again = find(path)
    assert again.path == path_before and again.path is not None
    assert again.path.stat().st_mtime_ns == time_before


@pytest.mark.parametrize("make", [deb_of, rpm_of], ids=["deb", "rpm"])
def test_a_package_with_one_kernel_twice_has_one(tmp_path: Path, make) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "package"
    path.write_bytes(make({"boot/vmlinuz-1": KERNEL, "lib/modules/1/vmlinuz": KERNEL}))
    assert content(find(path)) == KERNEL


@pytest.mark.parametrize("make", [deb_of, rpm_of], ids=["deb", "rpm"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"boot/config": b"x"}, "the package holds no kernel"),
        ({"boot/vmlinuz-1": b""}, "the package holds no kernel"),
        (
            {"boot/vmlinuz-1": KERNEL, "boot/vmlinuz-2": OTHER},
            r"several kernels \(boot/vmlinuz-1, boot/vmlinuz-2\); unpack it and name one",
        ),
    ],
)
def test_packages_that_are_refused(  # type: ignore[no-untyped-def]
    tmp_path: Path, own_cache: Path, make, files: dict[str, bytes], message: str
) -> None:
    path = tmp_path / "package"
    path.write_bytes(make(files))
    with pytest.raises(BadSource, match=f"^{path}: .*{message}"):
        find(path)
    assert kept(own_cache) == []
    assert not list((own_cache / "files").iterdir())


# --- URLs ----------------------------------------------------------------------------------------


def published(mirror: Mirror, data: bytes, name: str = "bzImage") -> str:
    (mirror.root / name).write_bytes(data)
    return f"{mirror.url}/{name}#sha256={hashlib.sha256(data).hexdigest()}"


def test_a_kernel_by_url_is_fetched_once(mirror: Mirror, own_cache: Path) -> None:
    url = published(mirror, KERNEL)
    first, second = find(url), find(url)
    assert first == second
    assert (first.name, first.shown) == ("bzImage", url.partition("#")[0])
    assert content(first) == KERNEL
    assert len(mirror.asked("/bzImage")) == 1
    assert kept(own_cache) == ["download", "meta.json"]


@pytest.mark.parametrize("make", [deb_of, rpm_of], ids=["deb", "rpm"])
def test_a_package_by_url(mirror: Mirror, make) -> None:  # type: ignore[no-untyped-def]
    url = published(mirror, make({"boot/vmlinuz-6.1": KERNEL}), "linux-image-6.1_1_amd64.deb")
    source = find(url)
    assert (source.name, content(source)) == ("linux-image-6.1", KERNEL)


@pytest.mark.parametrize(
    "fragment", ["", "#", "#sha256=", "#sha256=12", "#md5=1", "#sha256=" + "g" * 64]
)
def test_a_url_without_a_hash_is_refused_before_anything_is_asked(
    mirror: Mirror, fragment: str
) -> None:
    published(mirror, KERNEL)
    with pytest.raises(BadSource, match=r"a URL needs its file's hash, as .*/bzImage#sha256="):
        find(f"{mirror.url}/bzImage{fragment}")
    assert mirror.requests == []


def test_a_password_in_a_url_is_not_shown(mirror: Mirror) -> None:
    url = f"{mirror.url}/bzImage".replace("//", "//user:secret@")
    with pytest.raises(BadSource) as caught:
        find(url)
    assert "secret" not in str(caught.value)


def test_another_file_than_the_hash_names_is_not_kept(mirror: Mirror, own_cache: Path) -> None:
    url = published(mirror, KERNEL)
    (mirror.root / "bzImage").write_bytes(OTHER)
    with pytest.raises(WrongHash, match="is not the file that was asked for: its SHA-256 is "):
        find(url)
    assert kept(own_cache) == []


def test_a_download_larger_than_the_limit_is_not_kept(
    mirror: Mirror, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MOST_DOWNLOADED", 1 << 20)
    mirror.faults.append(Fault("endless", endless=True))
    with pytest.raises(ServerRefused, match=r"larger than 1\.0 MiB"):
        find(f"{mirror.url}/endless#sha256={'0' * 64}")
    assert mirror.poured < 64 << 20
    url = published(mirror, bytes((1 << 20) + 1))
    with pytest.raises(ServerRefused, match=r"larger than 1\.0 MiB"):
        find(url)
    assert kept(own_cache) == []


@pytest.mark.parametrize("fault", [{"cut_after": 1000}, {"status": 503}])
def test_a_line_that_breaks_is_tried_again(mirror: Mirror, fault: dict[str, int]) -> None:
    url = published(mirror, KERNEL)
    mirror.faults.append(Fault("bzImage", **fault))  # type: ignore[arg-type]
    assert content(find(url)) == KERNEL
    mirror.faults.append(Fault("other", times=99, **fault))  # type: ignore[arg-type]
    with pytest.raises(NoNetwork, match="check the address and the network"):
        find(published(mirror, OTHER, "other"))


def test_redirects_are_followed_but_not_for_ever(mirror: Mirror, own_cache: Path) -> None:
    url = published(mirror, KERNEL)
    mirror.faults.append(Fault("moved", location="/bzImage"))
    assert content(find(url.replace("bzImage", "moved"))) == KERNEL
    mirror.faults.append(Fault("loop", times=99, location="/loop"))
    with pytest.raises(ServerRefused, match="TooManyRedirects"):
        find(f"{mirror.url}/loop#sha256={'0' * 64}")
    assert mirror.faults[-1].times == 99 - 6
    mirror.faults.append(Fault("file", location="file:///etc/passwd"))
    with pytest.raises(FetchError):
        find(f"{mirror.url}/file#sha256={'1' * 64}")
    assert kept(own_cache) == ["download", "meta.json"]


def test_a_url_that_is_not_there(mirror: Mirror) -> None:
    with pytest.raises(NotOnMirror, match="/gone: the server answers 404"):
        find(f"{mirror.url}/gone#sha256={'0' * 64}")


@pytest.mark.parametrize(
    ("path", "name"),
    [("%2e%2e", "kernel"), ("a%2f..%2f..%2fetc", "etc"), ("b%00z", "b_z"), ("", "kernel")],
)
def test_the_name_in_a_url_leads_nowhere(
    mirror: Mirror, own_cache: Path, monkeypatch: pytest.MonkeyPatch, path: str, name: str
) -> None:
    def save(self: object, url: str, target: Path, sha256: str, limit: int) -> None:
        target.write_bytes(KERNEL)

    monkeypatch.setattr("bootproof.kernels.download.Downloader.save_hashed", save)
    source = find(f"{mirror.url}/{path}#sha256={'0' * 64}")
    assert source.name == name
    assert kept(own_cache) == ["download", "meta.json"]
