"""Taking one file out of a package, also out of a hostile one."""

from __future__ import annotations

import lzma
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from bootproof.kernels import unpacking
from bootproof.kernels.deb import extract_member
from bootproof.kernels.errors import BadPackage, MemberMissing
from tests.kernels.debian import COMPRESSORS, ar_of, deb_of, regular, special, tar_of

KERNEL = bytes(range(256)) * 5000


def extract(tmp_path: Path, package: bytes, member: str = "boot/vmlinuz", **limit: int) -> bytes:
    source, target = tmp_path / "package.deb", tmp_path / "out" / "file"
    source.write_bytes(package)
    target.parent.mkdir(exist_ok=True)
    extract_member(source, member, target, **limit)
    return target.read_bytes()


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_every_compression(tmp_path: Path, compression: str) -> None:
    members = {"boot/config": b"x", "boot/vmlinuz": KERNEL, "lib/module.ko": b"y" * 999}
    assert extract(tmp_path, deb_of(members, compression)) == KERNEL


@pytest.mark.parametrize("written", ["./boot/vmlinuz", "boot/vmlinuz", "/boot/vmlinuz"])
def test_member_is_found_however_the_tar_writes_it(tmp_path: Path, written: str) -> None:
    assert extract(tmp_path, deb_of([regular(written, KERNEL)])) == KERNEL


def test_members_of_odd_size_are_padded(tmp_path: Path) -> None:
    data = tar_of([regular("./boot/vmlinuz", KERNEL)])
    assert extract(tmp_path, ar_of({"debian-binary": b"2.0", "data.tar": data})) == KERNEL


def test_long_member_names(tmp_path: Path) -> None:
    name = "usr/lib/modules/" + "7" * 120 + "/vmlinuz"
    assert extract(tmp_path, deb_of({name: KERNEL}), name) == KERNEL


@pytest.mark.parametrize(
    "member",
    [
        special("./boot/vmlinuz", tarfile.SYMTYPE, "/etc/passwd"),
        special("./boot/vmlinuz", tarfile.LNKTYPE, "boot/other"),
        special("./boot/vmlinuz", tarfile.DIRTYPE),
        special("./boot/vmlinuz", tarfile.FIFOTYPE),
        special("./boot/vmlinuz", tarfile.CHRTYPE),
    ],
)
def test_only_a_regular_file_is_taken(
    tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]
) -> None:
    with pytest.raises(MemberMissing, match="boot/vmlinuz of the package is not a regular file"):
        extract(tmp_path, deb_of([regular("./boot/other", b"x"), member]))
    assert list((tmp_path / "out").iterdir()) == []


def test_hostile_names_are_never_written(tmp_path: Path) -> None:
    hostile = [
        regular("../../escaped", b"!"),
        regular("./../escaped", b"!"),
        regular(f"{tmp_path}/escaped", b"!"),
        special("./boot", tarfile.SYMTYPE, str(tmp_path)),
        regular("./boot/vmlinuz", KERNEL),
    ]
    assert extract(tmp_path, deb_of(hostile)) == KERNEL
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "out", "package.deb"]
    assert not (tmp_path.parent / "escaped").exists()


def test_missing_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(MemberMissing, match=r"holds no boot/vmlinuz; correct `file`"):
        extract(tmp_path, deb_of({"boot/vmlinuz-unsigned": KERNEL}))


def test_a_file_over_the_limit_is_refused_before_it_is_written(tmp_path: Path) -> None:
    package = deb_of({"boot/vmlinuz": KERNEL})
    assert extract(tmp_path, package, limit=len(KERNEL)) == KERNEL
    (tmp_path / "out" / "file").unlink()
    with pytest.raises(BadPackage, match=r"boot/vmlinuz has 1\.2 MiB, more than 1\.2 MiB"):
        extract(tmp_path, package, limit=len(KERNEL) - 1)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_bomb_before_the_member_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = deb_of({"boot/zeros": bytes(8 << 20), "boot/vmlinuz": KERNEL})
    assert len(package) < 100_000
    monkeypatch.setattr(unpacking, "MAX_UNPACKED", 4 << 20)
    with pytest.raises(BadPackage, match=r"unpacks to more than 4\.0 MiB"):
        extract(tmp_path, package)


DATA = COMPRESSORS[".xz"](tar_of([regular("./boot/vmlinuz", KERNEL)]))


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (b"", "no ar archive"),
        (b"<html>Not Found</html>", "no ar archive"),
        (b"!<arch>\n", "holds no data.tar"),
        (ar_of({"debian-binary": b"2.0\n"}), "holds no data.tar"),
        (ar_of({"debian-binary": b"2.0\n"})[:-2] + b"\n" * 61, "holds no data.tar"),
        (ar_of({"debian-binary": b"2.0\n"}).replace(b"4         `", b"-4        `"), "holds no"),
        (ar_of({"data.tar.lz4": b"x"}), "data.tar.lz4: its compression is not known here"),
        (ar_of({"data.tar.xz": b"not xz"}), "data.tar.xz of the package cannot be unpacked"),
        (ar_of({"data.tar.gz": b"not gz"}), "data.tar.gz of the package cannot be unpacked"),
        (ar_of({"data.tar.zst": b"not zs"}), "data.tar.zst of the package cannot be unpacked"),
        (ar_of({"data.tar": b"not a tar" * 99}), "data.tar of the package cannot be unpacked"),
        (ar_of({"data.tar.xz": DATA})[:-200], "data.tar.xz of the package cannot be unpacked"),
    ],
)
def test_broken_packages_are_refused(tmp_path: Path, package: bytes, message: str) -> None:
    with pytest.raises(BadPackage) as caught:
        extract(tmp_path, package)
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_that_is_a_bomb_is_never_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    """256 MiB of name: nothing is written anywhere, but it would all be in memory at once."""
    entry = tarfile.TarInfo("boot/vmlinuz")
    entry.type, entry.size = kind, 256 << 20
    bomb = entry.tobuf(tarfile.GNU_FORMAT) + bytes(entry.size)
    package = ar_of({"data.tar.zst": COMPRESSORS[".zst"](bomb)})
    tracemalloc.start()
    try:
        with pytest.raises(BadPackage, match=r"has 256.* MiB of name or attributes"):
            extract(tmp_path, package)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_an_xz_stream_that_asks_for_gigabytes_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    tar = tar_of([regular("./boot/vmlinuz", KERNEL)])
    package = ar_of({"data.tar.xz": lzma.compress(tar, filters=filters)})
    with pytest.raises(BadPackage, match=r"data.tar.xz of the package cannot be unpacked: Memory"):
        extract(tmp_path, package)
