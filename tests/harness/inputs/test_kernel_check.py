"""One diagnosis of a kernel file: the same sentence from every command that takes one."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness import cli, places
from bootproof.harness.inputs import images, kernel_check
from bootproof.loader import kconfig
from bootproof.loader.kconfig import Built
from bootproof.loader.provable import PREFIX
from tests.builders import packings
from tests.builders.images import LINUX, elf, image, load

START = 16 << 20
THING = "THING"
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command on a file with this content; gives exit code and all that it said."""
    monkeypatch.chdir(tmp_path)

    def run(content: bytes, *words: str) -> tuple[int, str]:
        # A name for each: what is known of a file by name is kept.
        path = tmp_path / f"thing-{hashlib.sha256(content).hexdigest()[:8]}"
        path.write_bytes(content)
        code = cli.main([str(path) if word == THING else word for word in words])
        out, err = capsys.readouterr()
        return code, " ".join((out + err).replace(str(path), THING).split())

    return run


def vmlinux(text: bytes = LINUX, **changes: int) -> bytes:
    return elf(load(START, text.ljust(0x1000, b"\0")), **changes)


def packed(text: bytes, **fields: Any) -> bytes:
    return packings.bzimage(gzip.compress(vmlinux(text), 1, mtime=0), **fields)


NO_INITRAMFS = LINUX.replace(b"no cpio magic", b"")
NO_SERIAL_PORT = LINUX.replace(b"serial8250", b"")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (Path("/bin/sh").read_bytes(), "it is a program (ELF, with the interpreter "),
        (vmlinux(b"Xen version 4.20"), "it is Xen: there is no 'Linux version' in it"),
        (vmlinux(NO_INITRAMFS), "it lacks an initramfs, which holds the proof's init: nothing of"),
        (packed(NO_INITRAMFS), "it lacks an initramfs, which holds the proof's init: nothing of"),
        (packed(NO_SERIAL_PORT), "it lacks the driver of the serial port (8250)"),
        (packed(LINUX, xloadflags=0), "it is a 32-bit kernel; bootproof boots x86_64, aarch64"),
        (packed(LINUX, payload_length=0), "no vmlinux can be had out of it: the setup header"),
        (vmlinux(machine=183), "a vmlinux of aarch64 has no boot protocol; give its Image"),
        (image() + LINUX.replace(b"uart-pl011", b""), "it lacks the driver of the serial port (pl"),
    ],
)
def test_every_command_has_the_same_reason(content: bytes, why: str, run: Run) -> None:
    said = f"{THING}: {PREFIX}{why}"
    for words in (
        ("boot", THING),
        ("image", THING, "--out", "image"),
        ("compare", THING),
        ("matrix", "--kernel", THING, "--dry-run"),
    ):
        code, text = run(content, *words)
        assert (code, said in text) == (2, True), text
    code, text = run(content, "inspect", THING)
    assert (code, f"{PREFIX}{why}" in text) == (0, True), text
    assert not Path("image").exists()


@pytest.mark.parametrize("content", [NO_INITRAMFS, NO_SERIAL_PORT])
def test_a_kernel_is_searched_once_whoever_asks(
    content: bytes, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is another process's as well: it lies in the cache, with the kernel's hash."""
    first = run(packed(content), "boot", THING)
    kernel_check.check.cache_clear()
    monkeypatch.setattr(kernel_check, "look", None)
    assert run(packed(content), "boot", THING) == first
    assert "it lacks " in first[1]
    assert run(packed(content + b"other"), "boot", THING)[0] == 125  # there it is called


def test_what_other_code_found_in_a_kernel_is_not_believed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a mended search would still give the answer of the broken one."""
    broken = Path("kconfig.py")
    broken.touch()
    with monkeypatch.context() as patch:
        patch.setattr(kconfig, "__file__", str(broken))
        patch.setattr(kernel_check, "look", lambda *_: Built(True, {}, frozenset()))
        assert "it lacks " in run(packed(LINUX), "matrix", "--kernel", THING, "--dry-run")[1]
    kernel_check.check.cache_clear()
    assert run(packed(LINUX), "matrix", "--kernel", THING, "--dry-run")[0] == 0


def test_a_cache_that_cannot_be_used_keeps_no_kernel_from_being_searched(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").touch()
    for variable, content, why in (
        ("cache", vmlinux(NO_INITRAMFS), "it lacks an initramfs"),
        ("file/cache", vmlinux(NO_SERIAL_PORT), "it lacks the driver of the serial port"),
    ):
        monkeypatch.setenv("BOOTPROOF_CACHE", str(Path(variable).absolute()))
        code, text = run(content, "boot", THING)
        assert (code, why in text) == (2, True), text


def test_a_bzimage_of_before_its_header_said_what_it_is_for(run: Run) -> None:
    """Boot protocol 2.11, Linux 3.7: the vmlinux inside says it."""
    code, text = run(packed(LINUX, version=0x20B), "matrix", "--kernel", THING, "--dry-run")
    assert code == 0
    assert "bzimage, elf of x86_64" in text
    code, text = run(packed(NO_INITRAMFS, version=0x20B), "boot", THING)
    assert (code, "it lacks an initramfs" in text) == (2, True)


def test_an_image_without_a_proof_is_written_of_what_is_no_linux(run: Run) -> None:
    words = ("image", THING, "--no-proof", "--cmdline", "a b", "--out", "image")
    code, text = run(vmlinux(b"Xen version 4.20"), *words)
    assert code == 0
    assert "cmdline a b image" in text
    assert text.endswith(f"run it {places.COMMAND} run image --until TEXT")
    assert sorted(path.name for path in Path("image").iterdir()) == ["boot.json", "ram.img"]
    assert "initrd" not in Path("image/boot.json").read_text()


def test_an_image_that_is_refused_leaves_nothing_behind(run: Run) -> None:
    words = ("--protocol", "linux64", "--offset", "1M", "--out", "image")
    assert run(vmlinux(), "image", THING, *words)[0] == 2
    assert not Path("image").exists()
    Path("image").mkdir()
    assert run(vmlinux(), "image", THING, *words)[0] == 2
    assert [*Path("image").iterdir()] == []


def test_what_a_unified_kernel_image_holds_besides_is_said_to_be_left_out(run: Run) -> None:
    sections = [(".linux", packed(LINUX)), (".initrd", b"070701"), (".cmdline", b"quiet")]
    words = ("image", THING, "--no-proof", "--out", "image")
    _, text = run(packings.uki(sections), *words)
    assert "left out the image's own .initrd: guests get bootproof's" in text
    assert "left out the image's own .cmdline: guests get bootproof's" in text
    _, text = run(packings.uki(sections), *words, "--cmdline", "quiet")
    assert "own .initrd" in text and "own .cmdline" not in text


def test_what_a_kernel_lacks_is_searched_for_once(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every boot without a proof asks."""
    (tmp_path / "vmlinux").write_bytes(vmlinux(NO_INITRAMFS))
    kernel = images.kernel_file(str(tmp_path / "vmlinux"))
    (lacks,) = kernel_check.lacking(kernel, "x86_64", None)
    assert lacks.startswith("an initramfs, which holds the proof's init: nothing of ")
    monkeypatch.setattr(kernel_check, "look", None)
    assert kernel_check.lacking(kernel, "x86_64", None) == (lacks,)
