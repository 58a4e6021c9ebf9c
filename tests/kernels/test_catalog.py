"""The catalogue that is shipped, and what happens to a broken one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.kernels.catalog import Kind, load_catalog
from bootproof.kernels.errors import CatalogError, UnknownKernel
from bootproof.kernels.fetch import LOCK_PATH
from bootproof.kernels.lock import read_lock

SHIPPED = load_catalog()


def test_default_set_is_the_kernels_of_each_architecture_and_its_busybox() -> None:
    of_arch = {arch: SHIPPED.default(arch) for arch in ("x86_64", "aarch64", "riscv64")}
    for arch, entries in of_arch.items():
        assert {entry.arch for entry in entries} == {arch}
        assert [entry.kind for entry in entries].count(Kind.KERNEL) >= 2
        assert [e for e in entries if e.kind is Kind.BUSYBOX] == [SHIPPED.busybox(arch)]
    assert {*SHIPPED.default()} == {entry for entries in of_arch.values() for entry in entries}


def test_kernels_are_all_that_boots() -> None:
    assert {e.kind for e in SHIPPED.kernels()} == {Kind.KERNEL}
    assert "5.10-arm64" in [e.name for e in SHIPPED.kernels("aarch64")]
    assert "5.10-arm64" not in [e.name for e in SHIPPED.kernels("x86_64")]
    assert SHIPPED.busybox("aarch64").name == "busybox-arm64"
    others = {e.name for e in SHIPPED if e.kind is Kind.OTHER}
    assert others == {"memtest86+", "xen-arm64"}
    assert not others & {e.name for e in (*SHIPPED.kernels(), *SHIPPED.default())}


@pytest.mark.parametrize(
    ("name", "package", "release", "member"),
    [
        (
            "6.1-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "6.1.0-50-cloud-amd64",
            "boot/vmlinuz-6.1.0-50-cloud-amd64",
        ),
        (
            "6.12-16k-arm64",
            "linux-image-6.12.107+deb13-arm64-16k",
            "6.12.107+deb13-arm64-16k",
            "boot/vmlinuz-6.12.107+deb13-arm64-16k",
        ),
        (
            "newest-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
            "7.3.4+deb13-cloud-amd64",
            "usr/lib/modules/7.3.4+deb13-cloud-amd64/vmlinuz",
        ),
        (
            "newest-cloud-arm64",
            "linux-binary-8.0.1+deb13.1-cloud-arm64",
            "8.0.1+deb13.1-cloud-arm64",
            "usr/lib/modules/8.0.1+deb13.1-cloud-arm64/vmlinuz",
        ),
        (
            "6.12-riscv64",
            "linux-image-6.12.117+deb13-riscv64",
            "6.12.117+deb13-riscv64",
            "boot/vmlinux-6.12.117+deb13-riscv64",
        ),
        (
            "newest-riscv64",
            "linux-binary-7.2.13+deb14-riscv64",
            "7.2.13+deb14-riscv64",
            "usr/lib/modules/7.2.13+deb14-riscv64/vmlinuz",
        ),
        ("busybox-amd64", "busybox-static", None, "usr/bin/busybox"),
    ],
)
def test_pattern_takes_the_package_and_names_the_file(
    name: str, package: str, release: str | None, member: str
) -> None:
    entry = SHIPPED[name]
    assert entry.package.fullmatch(package)
    assert (entry.release_of(package), entry.member_of(package)) == (release, member)


@pytest.mark.parametrize(
    "package",
    [
        "linux-image-6.1.0-50-cloud-amd64-unsigned",
        "linux-image-6.1.0-50-cloud-amd64-dbg",
        "linux-image-6.12.107+deb13-arm64-16k-unsigned",
        "linux-image-cloud-amd64",
        "linux-image-amd64",
        "linux-image-rt-amd64",
        "linux-image-6.1.0-50-rt-amd64-unsigned",
        "linux-image-7.2.13+deb14-riscv64",
        "linux-image-6.12.117+deb13-riscv64-dbg",
        "linux-binary-unsigned-7.3.4+deb13-cloud-amd64",
        "linux-image-7.3.4+deb13-cloud-amd64",
        "linux-binary-7.3.4+deb13-rt-arm64",
        "busybox-static-udeb",
        "busybox",
    ],
)
def test_no_pattern_takes_unsigned_debug_shell_or_meta_packages(package: str) -> None:
    assert [e.name for e in SHIPPED if e.package.fullmatch(package)] == []


def test_a_package_matches_one_name_of_its_architecture_only() -> None:
    for package in ("linux-image-6.1.0-50-amd64", "linux-binary-7.3.4+deb13-arm64-16k"):
        assert len([e for e in SHIPPED if e.package.fullmatch(package)]) == 1


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("7.3-cloud-amd64", "did you mean newest-cloud-amd64"),
        ("6.1-cloud-amd46", "did you mean 6.1-cloud-amd64"),
        ("Busybox-ARM64", "did you mean busybox-arm64"),
        ("plan9", 'no kernel named "plan9" in the catalogue (all names: bootproof fetch --list)'),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(UnknownKernel) as caught:
        SHIPPED[wrong]
    assert right in str(caught.value)
    assert f'"{wrong}"' in str(caught.value)


def test_no_busybox_for_an_architecture_that_is_not_there() -> None:
    with pytest.raises(UnknownKernel, match='no busybox for "vax"'):
        SHIPPED.busybox("vax")


GOOD = """
[architectures]
x86_64 = "amd64"
[kernels.a]
arch = "x86_64"
suite = "s"
package = 'linux-(?P<release>\\d+)'
file = "boot/{release}"
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('suite = "s"', "", "broken.toml: a: missing field: suite"),
        ('suite = "s"', 'suite = "s"\nsweet = 1', "broken.toml: a: unknown field: sweet"),
        ('arch = "x86_64"', 'arch = "vax"', "arch 'vax' is not in [architectures]"),
        ("(?P<release>", "(?P<rel", "broken.toml: a: missing >"),
        ("(?P<release>", "(", "file names {release}, package has no such group"),
        ('suite = "s"', 'suite = "s"\nkind = "toaster"', "'toaster' is not a valid Kind"),
        ("[kernels.a]", "[kernels.a", "broken.toml: cannot be read: "),
    ],
)
def test_a_broken_catalogue_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(GOOD)
    load_catalog(path)
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    assert message in str(caught.value)


def test_a_missing_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"none\.toml: cannot be read"):
        load_catalog(tmp_path / "none.toml")


def test_the_committed_lock_fits_the_catalogue_and_names_no_host() -> None:
    locked = read_lock(LOCK_PATH)
    assert locked.keys() == SHIPPED.entries.keys()
    assert [name for name, resolved in locked.items() if not resolved.fits(SHIPPED[name])] == []
    assert "//" not in LOCK_PATH.read_text()
