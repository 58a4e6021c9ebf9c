"""From a suite's name to one package, on archives that are right, old, foreign or hostile."""

from __future__ import annotations

import contextlib
import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootproof.kernels.archive import Archive, scan_index
from bootproof.kernels.cache import Cache
from bootproof.kernels.download import Downloader
from bootproof.kernels.errors import BadIndex, BadSignature, NoMatch, UnknownSuite, WrongHash
from tests.kernels.conftest import FAST, Bench
from tests.kernels.debian import deb_of, index_of, sha256
from tests.kernels.server import Fault


@pytest.fixture
def archive(bench: Bench) -> Iterator[Archive]:
    with contextlib.closing(Downloader(bench.progress, FAST)) as downloader:
        yield open_archive(bench, downloader)


def open_archive(bench: Bench, downloader: Downloader) -> Archive:
    return Archive(
        bench.mirror.url,
        catalog=bench.catalog,
        cache=Cache(bench.cache),
        downloader=downloader,
        progress=bench.progress,
        keyring=None,
    )


@pytest.mark.parametrize(
    ("versions", "newest"),
    [
        (("6.1.9-1", "6.1.10-1", "6.1.8-1"), "6.1.10-1"),
        (("6.1.9-1", "6.1.9-1+b1"), "6.1.9-1+b1"),
        (("6.1.9~rc1-1", "6.1.9-1"), "6.1.9-1"),
        (("1:5.0-1", "6.1.9-1"), "1:5.0-1"),
    ],
)
def test_newest_is_by_debian_version(
    bench: Bench, archive: Archive, versions: tuple[str, ...], newest: str
) -> None:
    bench.archive.suite("bookworm").stanzas.clear()
    for version in versions:
        bench.archive.add("linux-image-6.1.0-1-amd64", version, b"deb", suite="bookworm")
    bench.archive.publish()
    assert archive.resolve(bench.catalog["6.1-amd64"]).version == newest


def test_the_answer_is_complete(bench: Bench, archive: Archive) -> None:
    resolved = archive.resolve(bench.catalog["busybox-arm64"])
    deb = (bench.mirror.root / resolved.path).read_bytes()
    assert (resolved.size, resolved.sha256) == (len(deb), sha256(deb))
    assert (resolved.package, resolved.version) == ("busybox-static", "1:1.37.0-6+b9")
    assert (resolved.suite, resolved.arch) == ("trixie", "arm64")


def test_signed_packages_only_and_only_of_the_right_index(bench: Bench, archive: Archive) -> None:
    for name in ("linux-image-6.1.0-99-amd64-unsigned", "linux-image-6.1.0-99-amd64-dbg"):
        bench.archive.add(name, "6.1.99-1", b"deb", suite="bookworm")
    bench.archive.add("linux-image-6.1.0-98-amd64", "6.1.98-1", b"deb", suite="trixie")
    bench.archive.publish()
    assert archive.resolve(bench.catalog["6.1-amd64"]).version == "6.1.10-1"


def test_each_index_is_asked_for_once_and_kept(bench: Bench, archive: Archive) -> None:
    for name in ("newest-amd64", "newest-amd64", "busybox-arm64", "6.1-amd64"):
        archive.resolve(bench.catalog[name])
    assert len(bench.mirror.asked("InRelease")) == 2
    assert len(bench.mirror.requests) == 5
    assert len(bench.progress.downloads) == 3

    with contextlib.closing(Downloader(bench.progress, FAST)) as downloader:
        open_archive(bench, downloader).resolve(bench.catalog["newest-amd64"])
    assert len(bench.mirror.asked("InRelease")) == 3
    assert len(bench.mirror.requests) == 6


def test_index_by_hash_survives_an_update_in_between(bench: Bench, archive: Archive) -> None:
    plain = bench.mirror.root / "dists/trixie/main/binary-amd64/Packages.xz"
    plain.write_bytes(b"already the next one")
    assert archive.resolve(bench.catalog["newest-amd64"]).version == "7.3.4-1~bpo13+1"


def test_index_by_name_where_there_is_none_by_hash(bench: Bench, archive: Archive) -> None:
    bench.mirror.faults = [Fault(sha256_of_index(bench), status=404, times=9)]
    assert archive.resolve(bench.catalog["newest-amd64"]).version == "7.3.4-1~bpo13+1"
    assert len(bench.mirror.asked("Packages.xz")) == 1


def test_index_by_name_where_the_archive_says_so(bench: Bench, archive: Archive) -> None:
    del bench.archive.suite("trixie").fields["Acquire-By-Hash"]
    bench.archive.publish()
    archive.resolve(bench.catalog["newest-amd64"])
    assert len(bench.mirror.asked("Packages.xz")) == 1
    assert len(bench.mirror.requests) == 2


def sha256_of_index(bench: Bench) -> str:
    return sha256((bench.mirror.root / "dists/trixie/main/binary-amd64/Packages.xz").read_bytes())


def test_an_index_with_another_hash_is_refused(bench: Bench, archive: Archive) -> None:
    folder = bench.mirror.root / "dists/trixie/main/binary-amd64"
    for path in [folder / "Packages.xz", *(folder / "by-hash/SHA256").iterdir()]:
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(WrongHash, match="is not the file that was asked for"):
        archive.resolve(bench.catalog["newest-amd64"])


def test_a_suite_that_is_gone_is_named_and_not_asked_for_twice(
    bench: Bench, archive: Archive
) -> None:
    (bench.mirror.root / "dists/trixie/InRelease").unlink()
    for name in ("newest-amd64", "busybox-arm64"):
        with pytest.raises(UnknownSuite, match=r'no suite "trixie" .*404.*with --mirror'):
            archive.resolve(bench.catalog[name])
    assert len(bench.mirror.requests) == 1
    assert archive.resolve(bench.catalog["6.1-amd64"]).version == "6.1.10-1"


def test_an_architecture_that_is_not_there(bench: Bench, archive: Archive) -> None:
    del bench.archive.suite("trixie").stanzas[("main", "arm64")]
    bench.archive.publish()
    with pytest.raises(BadIndex, match=r"trixie of http.* has no main/binary-arm64/Packages.xz"):
        archive.resolve(bench.catalog["busybox-arm64"])


def test_a_pattern_without_a_match_points_at_the_catalogue(bench: Bench, archive: Archive) -> None:
    bench.archive.suite("bookworm").stanzas[("main", "amd64")] = []
    bench.archive.add("linux-image-7.0-amd64", "7.0-1", b"deb", suite="bookworm")
    bench.archive.publish()
    with pytest.raises(NoMatch, match=r"bookworm/main/amd64 matches .*: correct catalog.toml"):
        archive.resolve(bench.catalog["6.1-amd64"])


def test_a_release_of_another_suite_is_refused(bench: Bench, archive: Archive) -> None:
    dists = bench.mirror.root / "dists"
    (dists / "trixie/InRelease").write_bytes((dists / "bookworm/InRelease").read_bytes())
    with pytest.raises(BadSignature, match='is about "bookworm", not about "trixie"'):
        archive.resolve(bench.catalog["newest-amd64"])


def test_a_suite_may_go_by_its_role(bench: Bench, archive: Archive) -> None:
    bench.archive.suite("trixie").fields |= {"Suite": "trixie", "Codename": "other"}
    bench.archive.publish()
    archive.resolve(bench.catalog["newest-amd64"])


def test_an_expired_release_is_used_with_one_warning(bench: Bench, archive: Archive) -> None:
    bench.archive.suite("trixie").fields["Valid-Until"] = "Sat, 28 Nov 2015 02:10:46 UTC"
    bench.archive.suite("bookworm").fields["Valid-Until"] = "Sat, 28 Nov 2915 02:10:46 UTC"
    bench.archive.publish()
    for name in ("newest-amd64", "busybox-arm64", "6.1-amd64"):
        archive.resolve(bench.catalog[name])
    expired = [w for w in bench.progress.warnings if "valid until" in w]
    assert len(expired) == 1
    assert "was valid until Sat, 28 Nov 2015 02:10:46 UTC only" in expired[0]


@pytest.mark.parametrize("date", ["soon", "", "Sat, 99 Nov 2015"])
def test_an_unreadable_date_is_no_date(bench: Bench, archive: Archive, date: str) -> None:
    bench.archive.suite("trixie").fields["Valid-Until"] = date
    bench.archive.publish()
    archive.resolve(bench.catalog["newest-amd64"])


@pytest.mark.parametrize(
    "text", ["<html>Log in</html>", "", "Codename: trixie\nSHA256:\n nonsense\n"]
)
def test_a_release_that_is_none(bench: Bench, archive: Archive, text: str) -> None:
    (bench.mirror.root / "dists/trixie/InRelease").write_text(text)
    with pytest.raises((BadIndex, BadSignature)):
        archive.resolve(bench.catalog["newest-amd64"])


def test_a_hash_that_is_a_path_is_refused(bench: Bench, archive: Archive) -> None:
    release = bench.mirror.root / "dists/trixie/InRelease"
    release.write_text(release.read_text().replace(sha256_of_index(bench), "../../../escaped"))
    with pytest.raises(BadIndex, match=r"'\.\./\.\./\.\./escaped' is not a SHA-256"):
        archive.resolve(bench.catalog["newest-amd64"])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Filename", "../../etc/passwd"),
        ("Filename", "pool/../../x"),
        ("Filename", "/etc/passwd"),
        ("Filename", "pool/a b"),
        ("Filename", "pool//x?y"),
        ("Size", "many"),
        ("Size", "-1"),
        ("Size", str(1 << 40)),
        ("SHA256", "../x"),
        ("SHA256", "0" * 63),
    ],
)
def test_a_stanza_that_cannot_be_acted_on_is_refused(
    bench: Bench, archive: Archive, field: str, value: str
) -> None:
    bench.archive.suite("trixie").stanzas[("main", "amd64")][0][field] = value
    bench.archive.publish()
    with pytest.raises(BadIndex, match=r"the index of trixie describes linux-binary-7.3.4-amd64"):
        archive.resolve(bench.catalog["newest-amd64"])


def test_a_stanza_without_a_hash_is_refused(bench: Bench, archive: Archive) -> None:
    del bench.archive.suite("trixie").stanzas[("main", "amd64")][0]["SHA256"]
    bench.archive.publish()
    with pytest.raises(BadIndex, match=r"badly: 'SHA256'"):
        archive.resolve(bench.catalog["newest-amd64"])


def test_scan_finds_stanzas_wherever_the_blocks_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stanzas = [{"Package": f"p{i}", "Filler": "x" * (i % 90), "Version": f"{i}"} for i in range(99)]
    index = tmp_path / "Packages.xz"
    index.write_bytes(lzma.compress(index_of(stanzas)))
    for size in (1, 2, 7, 64, 1000, 1 << 20):
        monkeypatch.setattr("bootproof.kernels.archive._READ", size)
        found = [dict(s) for s in scan_index(index, [r"p(?P<release>\d)", "p98"])]
        assert found == [*stanzas[:10], stanzas[98]]


def test_scan_refuses_what_is_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = tmp_path / "Packages.xz"
    index.write_bytes(b"not xz")
    with pytest.raises(BadIndex, match="not an xz file"):
        list(scan_index(index, ["p"]))
    whole = lzma.compress(b"Package: p\n" + bytes(99_000))
    index.write_bytes(whole[:-40])
    with pytest.raises(BadIndex, match="not an xz file"):
        list(scan_index(index, ["p"]))
    monkeypatch.setattr("bootproof.kernels.archive.MAX_STANZA", 90_000)
    index.write_bytes(whole)
    with pytest.raises(BadIndex, match="a stanza of the index is larger than"):
        list(scan_index(index, ["p"]))


def test_deb_builder_makes_what_dpkg_reads(tmp_path: Path) -> None:
    """The archive of these tests is worth as much as its packages: python-debian can read them."""
    from debian.debfile import DebFile

    path = tmp_path / "x.deb"
    path.write_bytes(deb_of({"boot/vmlinuz": b"kernel"}))
    with DebFile(str(path)) as package:
        assert package.data.get_content("boot/vmlinuz") == b"kernel"
