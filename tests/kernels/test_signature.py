"""Signatures of a key of the moment, checked by the real gpgv."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.kernels import signature
from bootproof.kernels.errors import BadSignature
from bootproof.kernels.fetch import FetchErrors
from bootproof.kernels.signature import check_signature, default_keyring
from tests.kernels.conftest import Bench
from tests.kernels.openpgp import Key, make_key

TEXT = "Origin: Debian\nCodename: trixie\n- dashed\nSHA256:\n 00 1 x\n"


@pytest.fixture(scope="module", autouse=True)
def needs_gpgv() -> None:
    if shutil.which("gpgv") is None:
        pytest.skip("gpgv is not installed: no signature can be checked")


@pytest.fixture(scope="module")
def key() -> Key:
    return make_key("archive")


@pytest.fixture(scope="module")
def stranger() -> Key:
    return make_key("stranger")


@pytest.fixture
def ring(tmp_path: Path, key: Key) -> Path:
    path = tmp_path / "ring.gpg"
    path.write_bytes(key.keyring)
    return path


def test_a_good_signature_gives_the_signed_text(key: Key, ring: Path) -> None:
    checked = check_signature(key.sign(TEXT.encode()), ring)
    assert (checked.text, checked.unchecked) == (TEXT, None)


def test_text_around_the_signed_part_is_not_vouched_for(key: Key, ring: Path) -> None:
    signed = key.sign(TEXT.encode())
    checked = check_signature(b"Evil: yes\n" + signed + b"Evil: yes\n", ring)
    assert checked.text == TEXT


def test_changed_text_is_refused(key: Key, ring: Path) -> None:
    signed = key.sign(TEXT.encode()).replace(b"trixie", b"trixjf")
    with pytest.raises(BadSignature, match=r"BAD signature.*do not trust this mirror"):
        check_signature(signed, ring)


def test_a_bad_signature_beside_a_good_one_is_refused(key: Key, ring: Path, stranger: Key) -> None:
    signed = key.sign(TEXT.encode(), stranger)
    assert check_signature(signed, ring).unchecked is None  # a stranger's is not looked at
    ring.write_bytes(key.keyring + stranger.keyring)
    assert check_signature(key.sign(TEXT.encode()), ring).unchecked is None
    with pytest.raises(BadSignature, match="BAD signature"):
        check_signature(signed, ring)


def test_a_strangers_signature_is_refused(ring: Path, stranger: Key) -> None:
    with pytest.raises(BadSignature, match=r"no good signature by a key of .*ring.gpg \(.*key"):
        check_signature(stranger.sign(TEXT.encode()), ring)


def test_the_signature_of_a_key_that_has_expired_is_refused(key: Key, ring: Path) -> None:
    ring.write_bytes(replace(key, lifetime=3600).keyring)
    with pytest.raises(BadSignature, match="update its package debian-archive-keyring"):
        check_signature(key.sign(TEXT.encode()), ring)


@pytest.mark.parametrize("text", [b"", TEXT.encode(), b"-----BEGIN PGP SIGNED MESSAGE-----\n\nx"])
def test_no_signature_is_refused_where_one_can_be_checked(ring: Path, text: bytes) -> None:
    with pytest.raises(BadSignature, match="no good signature"):
        check_signature(text, ring)


def test_a_keyring_that_is_named_and_missing_is_an_error(key: Key, ring: Path) -> None:
    with pytest.raises(BadSignature, match="does not exist; correct BOOTPROOF_KEYRING"):
        check_signature(key.sign(TEXT.encode()), Path("/nonexistent/ring.gpg"))


def test_without_gpgv_the_text_comes_with_a_reason(
    key: Key, ring: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = key.sign(TEXT.encode())
    monkeypatch.setenv("PATH", str(tmp_path))
    checked = check_signature(signed, ring)
    assert checked.text.splitlines() == TEXT.splitlines()
    assert checked.unchecked is not None
    assert "gpgv is not installed" in checked.unchecked


def test_without_a_keyring_the_text_comes_with_a_reason(key: Key, ring: Path) -> None:
    checked = check_signature(key.sign(TEXT.encode()), None)
    assert checked.text.splitlines() == TEXT.splitlines()
    assert checked.unchecked is not None
    assert "debian-archive-keyring" in checked.unchecked


def test_the_keyring_is_the_variable_or_debians(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = tmp_path / "debian.gpg"
    monkeypatch.setattr(signature, "KEYRINGS", (tmp_path / "none.gpg", ring))
    monkeypatch.delenv("BOOTPROOF_KEYRING", raising=False)
    assert default_keyring() is None
    ring.touch()
    assert default_keyring() == ring
    monkeypatch.setenv("BOOTPROOF_KEYRING", "/other.gpg")
    assert default_keyring() == Path("/other.gpg")


def test_a_fetch_from_a_signed_archive_says_nothing(
    bench: Bench, key: Key, ring: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTPROOF_KEYRING", os.fspath(ring))
    bench.archive.sign = key.sign
    bench.archive.publish()
    [kernel] = bench.fetcher().fetch(["6.1-amd64"])
    assert kernel.path.read_bytes() == b"kernel10"
    assert bench.progress.warnings == []


def test_a_fetch_from_a_forged_archive_leaves_nothing(
    bench: Bench, ring: Path, stranger: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTPROOF_KEYRING", os.fspath(ring))
    bench.archive.sign = stranger.sign
    bench.archive.publish()
    with pytest.raises(FetchErrors, match=r"6\.1-amd64: http://.*/InRelease: no good signature"):
        bench.fetcher().fetch(["6.1-amd64"])
    assert [r.path for r in bench.mirror.requests] == ["/dists/bookworm/InRelease"]
    assert [p for p in bench.cache.rglob("*") if p.is_file()] == []


def test_a_fetch_without_gpgv_warns_once(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    bench.fetcher().fetch(["6.1-amd64", "newest-amd64"])
    [warning] = bench.progress.warnings
    assert "the mirror's signature is NOT checked: gpgv is not installed" in warning
