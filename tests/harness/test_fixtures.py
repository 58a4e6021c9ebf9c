"""The fixtures for other suites, up to where a guest would start; guests: tests/installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness.fixtures import Boot, BootTheImage, MakeProofInitramfs
from tests.builders import images


def test_file_that_is_no_kernel(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    result = boot(tmp_path / "notes.txt", offset="16M")
    assert result.verdict == "load-refused"
    assert "neither a kernel nor a packed kernel" in repr(result)


def test_directory_that_is_no_boot_image(boot_image: BootTheImage, tmp_path: Path) -> None:
    (tmp_path / "boot.json").write_text("{}\n")
    result = boot_image(tmp_path)
    assert result.verdict == "load-refused"
    assert "boot.json" in result.reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"ofset": "16M"}, "unknown option 'ofset'; did you mean 'offset'?"),
        ({"memory": "much"}, "memory: 'much' is neither a size nor an address"),
        ({"memory": 1.5}, "memory: must be a size like 512M, not the number 1.5"),
        ({"protocol": "phv"}, "protocol: unknown value 'phv'; did you mean 'pvh'?"),
        ({"smp": "two"}, "smp: must be a whole number, not the text 'two'"),
        ({"qemu": "/opt/qemu"}, "'/opt/qemu' is no NAME=PATH: the ids of cases name the QEMU that"),
    ],
)
def test_wrong_words_are_one_line(
    words: dict[str, object], said: str, boot: Boot, tmp_path: Path
) -> None:
    (tmp_path / "vmlinux").write_bytes(images.elf(images.load(16 << 20, images.LINUX)))
    with pytest.raises(pytest.fail.Exception) as caught:
        boot(tmp_path / "vmlinux", **words)
    assert str(caught.value).startswith(f"bootproof: {said}")


def test_wrong_words_about_a_boot_image_are_one_line(
    boot_image: BootTheImage, tmp_path: Path
) -> None:
    with pytest.raises(pytest.fail.Exception, match="unknown option 'ofset'; known: "):
        boot_image(tmp_path, ofset="16M")
    with pytest.raises(pytest.fail.Exception, match="memory: 'much' is neither"):
        boot_image(tmp_path, memory="much")


def test_words_as_python_has_them(boot: Boot, tmp_path: Path) -> None:
    """A number of bytes, a Path, and None for what is as if nothing were said."""
    (tmp_path / "vmlinux").write_bytes(images.elf(images.load(16 << 20, images.LINUX)))
    missing = f"bootproof: {tmp_path}/none: No such file or directory"
    with pytest.raises(pytest.fail.Exception, match=missing):
        boot(tmp_path / "vmlinux", memory=64 << 20, initrd=tmp_path / "none", cpu=None, offset=None)


def test_initramfs_for_an_image_of_ones_own(
    proof_initramfs: MakeProofInitramfs, tmp_path: Path
) -> None:
    first, second = proof_initramfs(), proof_initramfs("aarch64")
    assert first.path != second.path and first.cmdline != second.cmdline
    assert first.cmdline.startswith("rdinit=/bootproof/init bootproof.nonce=")
    (tmp_path / "own.cpio").write_bytes(b"own")
    both = proof_initramfs(initrd=tmp_path / "own.cpio")
    assert both.path.read_bytes() == first.path.read_bytes() + b"own"
    other = proof_initramfs("aarch64", machine="xlnx-zcu102").path.read_bytes()
    assert b"/tty/ttyPS0/" in other and b"/tty/ttyPS0/" not in second.path.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"arch": "arm64"}, "'arm64' is not one of x86_64, aarch64"),
        ({"initrd": "/nosuch"}, "/nosuch: No such file or directory"),
        ({"machine": "virt"}, "machine 'virt' is not known for x86_64"),
    ],
)
def test_wrong_words_about_an_initramfs_are_one_line(
    words: dict[str, str], said: str, proof_initramfs: MakeProofInitramfs
) -> None:
    with pytest.raises(pytest.fail.Exception, match=said):
        proof_initramfs(**words)
