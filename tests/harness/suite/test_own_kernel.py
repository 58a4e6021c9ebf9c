"""`bootproof matrix --kernel`: what is derived and printed, and which kernels are refused."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bootproof.harness import cli
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.inputs import images
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.results import results
from bootproof.loader.errors import LoaderError
from tests.builders import packings, processes
from tests.builders.guests import X86Program
from tests.builders.images import LINUX, bzimage, elf, image, load, notes, pvh_entry
from tests.harness.conftest import Matrix
from tests.kernels.debian import deb_of
from tests.kernels.rpms import rpm_of

START = 16 << 20


def vmlinux(text: bytes = LINUX, **changes: int) -> bytes:
    segments = load(START, text.ljust(0x1000, b"\0")), notes(pvh_entry(START))
    return elf(*segments, entry=START, **changes)


def arm64_image(text: bytes = LINUX, flags: int = 0xA) -> bytes:
    found = bytearray(image(flags=flags))
    found[0x100 : 0x100 + len(text)] = text
    return bytes(found)


def packed(kernel: bytes, **fields: int) -> bytes:
    """A bzImage around a vmlinux."""
    return packings.bzimage(gzip.compress(kernel, 1, mtime=0), release=b"6.1.0-test (x)", **fields)


pytestmark = pytest.mark.usefixtures("own_cache")


class Command:
    """The command, in a directory of its own."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.capsys = capsys

    def file(self, name: str, data: bytes) -> str:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return str(path)

    def __call__(self, *words: str, code: int = 0) -> str:
        """What it prints: stdout when all is well, else the one line of complaint."""
        out = self.directory / "out"
        assert cli.main(["matrix", "--dry-run", f"--out={out}", *words]) == code
        printed = self.capsys.readouterr()
        if code:
            assert printed.err.count("\n") == 1 and not out.exists()
            return printed.err
        return printed.out


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def test_dry_run_says_what_must_happen_and_why(command: Command) -> None:
    shown = command("--kernel", command.file("vmlinux", vmlinux()))
    assert "kernel    vmlinux: elf of x86_64, 6.1.0-test\n" in shown
    assert "\ncases     13 apply to it, of which 7 must boot\n" in shown
    assert "vmlinux, elf, pvh\n  x86_64-vmlinux-elf-pvh-none " in shown
    assert "booted, pvh present, through pvh: its note names the entry 0x1000000" in shown
    assert 'load-refused (Protocol::Refused), saying "multiple of 2 MiB": the kernel' in shown
    assert "13 cases, 0 tests" in shown


def test_every_kind_of_file_comes_to_its_kernel(command: Command) -> None:
    big, arm = packed(vmlinux()), arm64_image()
    for name, data, formats in (
        ("bzImage", big, "bzimage, elf of x86_64"),
        ("Image", arm, "image of aarch64"),
        ("Image.gz", gzip.compress(arm, mtime=0), "image of aarch64"),
        (
            "vmlinuz.efi",
            packings.zboot(packings.gzip(arm), b"gzip", size_word=False),
            "image of aarch64",
        ),
        ("linux-image-6.1_1.deb", deb_of({"boot/vmlinuz-6.1": big}), "bzimage, elf of x86_64"),
        ("kernel-core-6.1.rpm", rpm_of({"lib/modules/6/vmlinuz": arm}), "image of aarch64"),
    ):
        shown = command("--kernel", command.file(name, data))
        assert f": {formats}, 6.1.0-test" in shown, name


def test_several_kernels_have_names_of_their_own_and_each_counts_once(command: Command) -> None:
    one = command.file("a/arch/x86/boot/bzImage", packed(vmlinux()))
    two = command.file("b/bzImage", packed(vmlinux(LINUX + b" two")))
    same = command.file("c/bzImage", packed(vmlinux()))
    directory = str(Path(one).parents[3])  # a build directory
    shown = command(*(w for what in (directory, two, same) for w in ("--kernel", what)))
    second = hashlib.sha256(Path(two).read_bytes()).hexdigest()[:8]
    names = [line.split()[1] for line in shown.splitlines() if line.startswith("kernel ")]
    assert names == ["bzImage:", f"bzImage-{second}:"]
    assert f"x86_64-bzImage-{second}-elf-pvh-none" in shown


def test_a_kernel_has_the_name_that_it_is_given(command: Command) -> None:
    """A file that has such a name comes first, as everywhere; and a name is for one kernel."""
    path = command.file("bzImage", packed(vmlinux()))
    shown = command("--kernel", f"mine={path}", "--kernel", path)
    assert "kernel    mine: bzimage, elf of x86_64, " in shown
    assert "x86_64-mine-elf-pvh-none" in shown and "bzImage:" not in shown
    twice = command("--kernel", f"mine={path}", "--kernel", f"mine={path}", code=2)
    assert twice == "bootproof: --kernel: two kernels are called 'mine'\n"
    catalogue = command("--kernel", "mine=6.1-amd64", code=2)
    assert "mine=6.1-amd64: a kernel of the catalogue has its own name" in catalogue
    assert "none: no such file" in command("--kernel", "mine=none", code=2)
    own = command.file("a=b", packed(vmlinux()))
    assert "kernel    a=b: bzimage" in command("--kernel", own)


def test_filters_narrow_what_was_derived(command: Command) -> None:
    path = command.file("vmlinux", vmlinux())
    assert "\n1 case, " in command("--kernel", path, "-k", "pvh and none")
    assert "\n9 cases" in command("--kernel", path, "--protocol", "linux64")
    assert "\n2 cases" in command("--kernel", path, "--offset", "16M")
    assert "\n4 cases" in command("--kernel", path, "--offset", "0", "--offset", "2M")
    arm = command.file("Image", arm64_image())
    assert "\n9 cases" in command("--kernel", path, "--kernel", arm, "--arch", "aarch64")


def test_what_is_left_out_is_said(command: Command) -> None:
    shown = command("--kernel", command.file("bzImage", packed(vmlinux(), relocatable_kernel=0)))
    why = "relocatable_kernel is 0 in the setup header: no other place is promised"
    assert f"left out  bzimage at another load address: {why}\n" in shown
    assert f"left out  elf at an offset: {why}\n" in shown


def test_what_every_guest_is_given(command: Command) -> None:
    words = ["--kernel", command.file("vmlinux", vmlinux()), "--memory", "256M", "--smp", "2"]
    boards = ", ".join(ARCHES["x86_64"].boards)
    assert command(*words, "--machine", "virt", code=2) == (
        f"bootproof: vmlinux: machine: virt is not of x86_64; known there: {boards}\n"
    )
    assert command("--no-probe", "--smp", "2", code=2) == (
        "bootproof: --probe and --smp: for your own kernel: give --kernel\n"
    )
    qemus = Path(find_qemu("x86_64").path).parent
    shown = command(*words, "--machine", "pc", f"--qemu=old={qemus}", f"--qemu=new={qemus}")
    for name in ("old", "new"):
        assert f"  x86_64-vmlinux-elf-linux64-+16M-pc-smp2-{name} " in shown
    why = "it would need more than 256 MiB of RAM"
    assert f"left out  elf, linux64, offset 256M: {why}\n" in shown


def test_what_a_unified_kernel_image_holds_beside_its_kernel_is_left_out(command: Command) -> None:
    sections = [(".linux", packed(vmlinux())), (".initrd", b"070701"), (".cmdline", b"quiet")]
    words = ("--kernel", command.file("linux.efi", packings.uki(sections)))
    initrd = "left out  the image's own .initrd: guests get bootproof's; give one by --initrd\n"
    cmdline = "left out  the image's own .cmdline: guests get bootproof's; give it by --cmdline\n"
    shown = command(*words)
    assert initrd in shown and cmdline in shown
    shown = command(*words, "--cmdline", "quiet")
    assert initrd in shown and cmdline not in shown
    plain = command.file("plain.efi", packings.uki([(".linux", packed(vmlinux()))]))
    assert "the image's own" not in command("--kernel", plain)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (packed(vmlinux(), xloadflags=0), "it is a 32-bit kernel; bootproof boots x86_64, aarch64"),
        (vmlinux(machine=3), "it is a 32-bit kernel"),
        (gzip.compress(vmlinux(machine=3, phentsize=32), mtime=0), "it is a 32-bit kernel"),
        (vmlinux(phentsize=32), "proved: e_phentsize is 0x20, not 0x38"),
        (vmlinux(machine=40), "it is a 32-bit kernel"),
        (vmlinux(machine=21), "it is a kernel for ppc64"),
        (vmlinux(machine=183), "a vmlinux of aarch64 has no boot protocol; give its Image"),
        (image(b"RSC\x05"), "there is no 'Linux version' in it"),
        (arm64_image(flags=0xB), "it is big-endian"),
        (vmlinux(b"Xen version 4.20"), "there is no 'Linux version' in it"),
        (arm64_image(b"u-boot"), "there is no 'Linux version' in it"),
        (bzimage(), "no vmlinux can be had out of it: the setup header names no payload"),
        (packed(vmlinux(b"memtest")), "there is no 'Linux version' in it"),
        (
            vmlinux(LINUX.replace(b"serial8250", b"").replace(b"loadavg", b"")),
            "(8250): nothing of CONFIG_SERIAL_8250_CONSOLE is in it; and procfs, where the guest",
        ),
        (
            arm64_image(LINUX.replace(b"uart-pl011", b"")),
            "it lacks the driver of the serial port (pl011)",
        ),
        (vmlinux(LINUX.replace(b"no cpio magic", b"")), "it lacks an initramfs"),
    ],
)
def test_what_cannot_be_proved_is_refused_in_one_sentence(
    command: Command, data: bytes, why: str
) -> None:
    path = command.file("thing", data)
    good = command.file("vmlinux", vmlinux())
    shown = command("--kernel", good, "--kernel", path, code=2)
    assert shown.startswith(f"bootproof: {path}: is no Linux kernel that can be proved: ")
    assert "derived" not in shown
    assert why in shown


@pytest.mark.parametrize("data", [b"#!/bin/sh\n" * 99, b"\3\1\4" * 99, bytes(0x8001) + b"CD001"])
def test_a_file_with_no_kernel_in_it_is_told_as_by_boot(command: Command, data: bytes) -> None:
    """What it is, and the way out."""
    path = command.file("thing", data)
    with pytest.raises(LoaderError) as caught:
        images.contained(images.kernel_file(str(path)))
    assert command("--kernel", path, code=2) == f"bootproof: {caught.value}\n"


def test_an_empty_name_is_no_directory(command: Command) -> None:
    """An unset variable of a shell is not the current directory."""
    assert command("--kernel", "", code=2) == "bootproof: a kernel's name is empty\n"


def test_options_that_mean_nothing_are_refused(command: Command, tmp_path: Path) -> None:
    path = command.file("vmlinux", vmlinux())
    assert "give --kernel" in command("--cmdline", "quiet", code=2)
    assert "leave out --scenarios" in command("--kernel", path, "--scenarios", "x.toml", code=2)
    missing = str(tmp_path / "initrd")
    shown = command("--kernel", path, "--initrd", missing, code=2)
    assert shown == f"bootproof: {missing}: No such file or directory (--initrd)\n"
    assert "no such file" in command("--kernel", str(tmp_path / "gone"), code=2)
    assert "needs its file's hash" in command("--kernel", "http://127.0.0.1:9/x", code=2)


def test_names_that_are_no_text_are_in_every_report(
    matrix_here: Matrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the kernel, which stands in ids, and of where the runs go."""
    name = os.fsdecode(b"a\x1b[2Jb\nc<script>\xff]]>")
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(processes.vmlinux(X86Program(processes.LOAD).reset()))
    out = tmp_path / os.fsdecode(b"out\xff")
    run = matrix_here("--kernel", name, "-k", "elf-linux64-none", "--out", str(out))
    assert (run.returncode, run.stderr) == (1, ""), run.stdout
    shown = r"a\x1b[2Jb\nc<script>\udcff]]>"
    assert run.stdout.startswith(f"kernel    {shown}: elf of x86_64")
    (case,) = results.read(out / "results.json").cases
    assert (case.verdict, case.kernel.name) == ("cpu-reset", shown)
    assert case.directory.startswith(str(tmp_path / r"out\udcff"))
    ElementTree.parse(out / "junit.xml")
    page = (out / "report.html").read_text()
    assert "<script>\\" not in page and r"a\x1b[2Jb\nc&lt;script&gt;\udcff]]&gt;" in page
