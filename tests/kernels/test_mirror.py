"""Which mirror is taken from apt's source lists. Every address here is a made-up one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.kernels.errors import MirrorUnknown
from bootproof.kernels.mirror import find_mirror

DEBIAN = 'PRETTY_NAME="Debian 14 (forky)"\nID=debian\nVERSION_CODENAME=forky\n'
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04"\nID=ubuntu\nVERSION_CODENAME=noble\n'


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOOTPROOF_MIRROR", raising=False)


def find(tmp_path: Path, files: dict[str, str], system: str = DEBIAN) -> str:
    for name, text in files.items():
        path = tmp_path / "apt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "os-release").write_text(system)
    return find_mirror(apt=tmp_path / "apt", os_release=tmp_path / "os-release")


def test_option_before_variable_before_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_MIRROR", "http://b.example/debian/")
    assert find_mirror("https://a.example/debian//") == "https://a.example/debian"
    assert find_mirror() == "http://b.example/debian"


@pytest.mark.parametrize(
    "option", ["a.example/debian", "ftp://a.example", "/srv/debian", "file:/x"]
)
def test_an_option_that_is_no_http_address_is_refused(option: str) -> None:
    with pytest.raises(MirrorUnknown, match=r"is not a mirror: give the http://"):
        find_mirror(option)


@pytest.mark.parametrize(
    "line",
    [
        "deb http://a.example/debian bookworm main",
        "deb  http://a.example/debian/  trixie  contrib main # comment",
        "deb [arch=amd64 signed-by=/x.gpg] http://a.example/debian stable main",
        "# deb http://z.example/debian sid main\n  deb http://a.example/debian sid main",
        "deb-src http://z.example/debian sid main\ndeb http://a.example/debian sid main",
        """\
deb http://z.example/debian-security bookworm-security main
deb http://z.example/debian bookworm-updates main
deb http://z.example/linux/debian bookworm stable
deb http://z.example/apt nodistro main
deb http://a.example/debian bookworm main""",
        "deb cdrom:[Debian]/ bookworm main\ndeb http://a.example/debian bookworm main",
    ],
)
def test_one_line_sources(tmp_path: Path, line: str) -> None:
    assert find(tmp_path, {"sources.list": line}) == "http://a.example/debian"


def test_deb822_sources(tmp_path: Path) -> None:
    text = """\
Types: deb
URIs: http://z.example/debian
Suites: bookworm
Components: main
Enabled: no

# the archive
Types: deb-src deb
# a comment within
URIs: http://a.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://z.example/debian-security
Suites: bookworm-security
Components: main
"""
    assert find(tmp_path, {"sources.list.d/debian.sources": text}) == "http://a.example/debian"


def test_the_running_release_is_an_archive_too(tmp_path: Path) -> None:
    files = {"sources.list": "deb http://a.example/debian zurg main"}
    system = DEBIAN.replace("forky", "zurg")
    assert find(tmp_path, files, system) == "http://a.example/debian"


def test_files_are_read_in_apt_order(tmp_path: Path) -> None:
    files = {
        "sources.list.d/b.list": "deb http://b.example/debian sid main",
        "sources.list.d/a.list": "deb http://a.example/debian sid main",
        "sources.list.d/0.list.save": "deb http://z.example/debian sid main",
    }
    assert find(tmp_path, files) == "http://a.example/debian"


def test_mirror_file_is_followed_to_its_first_address(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(
        "# ours\nhttps://a.example/debian\tpriority:1\nhttp://z.example\n"
    )
    files = {"sources.list": f"deb mirror+file:{tmp_path}/list sid main"}
    assert find(tmp_path, files) == "https://a.example/debian"


@pytest.mark.parametrize("scheme", ["mirror+file:/nowhere/list", "cdrom:[x]/", "tor+http://x/d"])
def test_schemes_that_are_not_understood_name_the_option(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(MirrorUnknown) as caught:
        find(tmp_path, {"sources.list": f"deb {scheme} sid main"})
    assert f"only as {scheme.partition(':')[0]}:…" in str(caught.value)
    assert "--mirror URL or BOOTPROOF_MIRROR" in str(caught.value)


def test_ubuntu_is_no_debian_mirror(tmp_path: Path) -> None:
    files = {"sources.list": "deb http://z.example/ubuntu noble main universe"}
    with pytest.raises(MirrorUnknown) as caught:
        find(tmp_path, files, UBUNTU)
    assert "(Ubuntu 24.04) name no Debian archive; name a mirror" in str(caught.value)


def test_a_machine_without_apt(tmp_path: Path) -> None:
    with pytest.raises(MirrorUnknown, match="name no Debian archive"):
        find_mirror(apt=tmp_path / "none", os_release=tmp_path / "none")
