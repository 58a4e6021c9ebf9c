"""The command line: exit codes, one line for every mistake, and whole boots of a tiny kernel.

The "kernel" is an ELF or Image of a few instructions. Nothing is fetched: the guest's busybox is a
placeholder, since no guest here gets as far as running it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from bootproof.harness import cli, exitcode, places
from bootproof.harness.case import Case
from bootproof.harness.guest.nonce import nonce_for
from bootproof.harness.host import files
from bootproof.harness.qemu.binary import find_qemu
from bootproof.kernels.cache import file_sha256
from bootproof.loader import initramfs
from bootproof.loader.address import GIB, MIB
from tests import ROOT
from tests.builders import images as builder
from tests.builders.guests import Claim, X86Program, framed, initrd_saying, machine
from tests.builders.processes import LOAD, environment, vmlinux
from tests.builders.processes import bootproof as in_process


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def bootproof(offline: None, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; anything but an exit code is a traceback, and fails."""

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(120)
        try:
            code = cli.main([str(argument) for argument in arguments])
        finally:
            signal.alarm(0)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run


def _hangs(*_: object) -> None:
    raise AssertionError("the command does not end")


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A kernel that resets at once."""
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux(X86Program(LOAD).reset()))
    return path


def refusal(said: Said) -> str:
    """The one line of a mistake on the user's side."""
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("bootproof") and said.err.endswith("\n")
    assert said.err[:-1].isprintable(), said.err
    return said.err[:-1]


# --- whole boots -------------------------------------------------------------------------------


def test_boot_twice(bootproof: Run, kernel: Path, tmp_path: Path) -> None:
    said = bootproof("boot", kernel, "--memory", "32M", "--out", tmp_path / "run", "--twice")
    assert (said.code, said.err) == (1, "")  # it resets: the same, and yet no boot
    assert said.out.count("verdict   cpu-reset: ") == 2
    assert "twice     the same transcript and number of instructions" in said.out
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["first", "second"]


def test_real_time_shows(bootproof: Run, kernel: Path, tmp_path: Path) -> None:
    """Also a quirk's: several CPUs, and a kernel that does not say its version."""
    for options, why in (
        (("--realtime",), "asked for"),
        (("--smp", "2"), "quirk smp-bringup: "),
    ):
        said = bootproof("boot", kernel, "--memory", "32M", "--out", tmp_path / "run", *options)
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        known = find_qemu("x86_64").version < (10, 0, 0) or options == ("--realtime",)
        assert (f"real time: {why}" in said.out) == known
        assert (result["machine"]["realtime"] or "").startswith(why) == known
        assert not result["machine"]["deterministic"]


@pytest.mark.parametrize("init", [False, True])
def test_boot_that_proves_itself(
    init: bool, bootproof: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command line to a right proof, which the kernel finds in its initrd. Of that nothing
    else is to run without an /init. What it leaves shares its kernel with others of its kind.
    """
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux(X86Program(LOAD).say_initrd().reset(), memsz=MIB))
    monkeypatch.setattr(places, "CLONE", tmp_path)
    nonce = nonce_for(Case("x86_64", str(path), "elf", "linux64").id, file_sha256(path))
    following = " bootproof.next=/init" if init else ""
    cmdline = f"quiet rdinit=/bootproof/init bootproof.nonce={nonce}{following}"
    claim = Claim(machine("x86_64", memory=32 * MIB), LOAD, nonce, cmdline)
    own = initramfs.archive([initramfs.file("init", b"", 0o755)]) if init else b""
    (tmp_path / "initrd").write_bytes(initrd_saying(claim.text()) + own)
    said = bootproof(
        *("boot", path, "--protocol", "linux64", "--memory", "32M", "--cmdline", "quiet"),
        *("--initrd", tmp_path / "initrd"),
    )
    assert (said.code, said.err) == (0, ""), said.out
    lines = said.out.splitlines()
    assert ("left out  whatever the initrd runs: it has no /init" in said.out) is not init
    assert ("initrd    /init is empty" in lines) is init
    assert f"kernel    {path} (elf)" in lines
    assert "protocol  linux64, entered at 0x1000000" in lines
    assert f"| {framed(4, 'cpus', '1').rstrip()}" in lines
    assert "verdict   booted: 6.1.0-test proved its boot; kernel code at 0x1000000" in lines
    assert (
        "entry     registers and RAM at the first instruction are as the boot image says" in lines
    )
    run = Path(lines[-1].removeprefix("run       "))
    assert run.parent == tmp_path / "build" / "boot"
    assert (run / "kernel.img").stat().st_nlink == 2


def test_boot_that_fails(bootproof: Run, kernel: Path, tmp_path: Path) -> None:
    said = bootproof("boot", kernel, "--memory", "32M", "--out", tmp_path / "run")
    assert (said.code, said.err) == (1, "")
    assert "verdict   cpu-reset: the CPU was reset at 0x100000" in said.out


def test_boot_again_into_the_same_directory(bootproof: Run, kernel: Path, tmp_path: Path) -> None:
    for _ in range(2):
        said = bootproof("boot", kernel, "--memory", "32M", "--out", tmp_path / "run")
        assert (said.code, said.err) == (exitcode.NOT_AS_EXPECTED, ""), said.out


def test_two_boots_in_one_directory(bootproof: Run, kernel: Path, tmp_path: Path) -> None:
    """The second says so, and leaves what the first has there as it is."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "console.log").write_bytes(b"of the first\n")
    with files.locked(tmp_path / "run"):
        said = bootproof("boot", kernel, "--memory", "32M", "--out", tmp_path / "run")
    assert f"{tmp_path}/run: another run is under way there" in refusal(said)
    assert (tmp_path / "run" / "console.log").read_bytes() == b"of the first\n"


def test_guest_output_is_shown_not_obeyed(bootproof: Run, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    program = X86Program(LOAD).say_initrd().reset()
    path.write_bytes(vmlinux(program))
    (tmp_path / "initrd").write_bytes(initrd_saying(b"\x1b[2J\x07one\r\n\xfftwo"))
    said = bootproof(
        *("boot", path, "--protocol", "linux64", "--memory", "32M"),
        *("--initrd", tmp_path / "initrd", "--out", tmp_path / "run"),
    )
    assert said.code == 1
    assert said.out.replace("\n", "").isprintable()
    assert "| \\x1b[2J\\x07one\n| \\xfftwo\n" in said.out


@pytest.mark.parametrize(
    "where",
    [
        *("vmlinux", "./vmlinux", "../kernels/vmlinux", "a b/vm,linux", "..vmlinux", "ünï/ß"),
        "../" * 9 + "../kernels/vmlinux",
        "a b/" + "../a b/" * 60 + "vmlinux",
    ],
)
def test_default_run_directory_is_below_build(
    where: str, bootproof: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the kernel's path looks like."""
    deep = tmp_path / "kernels" / Path(*"123456789")
    for directory in (deep / "a b", deep / "ünï", deep / "../kernels", tmp_path / "kernels"):
        directory.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(deep)
    Path(where).write_bytes(vmlinux(X86Program(LOAD).reset()))
    monkeypatch.setattr(places, "CLONE", tmp_path / "root")
    said = bootproof("boot", where, "--memory", "32M")
    assert (said.code, said.err) == (1, "")
    run = Path(said.out.splitlines()[-1].removeprefix("run       "))
    assert (run / "result.json").exists()
    assert run.resolve().is_relative_to(tmp_path / "root" / "build" / "boot")
    assert {path.name for path in tmp_path.iterdir()} <= {"kernels", "root", "cache"}


# --- the kernel file ---------------------------------------------------------------------------


def test_missing_file(bootproof: Run, tmp_path: Path) -> None:
    text = refusal(bootproof("boot", tmp_path / "vmlinux"))
    assert text.startswith(f"bootproof: {tmp_path / 'vmlinux'}: ")
    assert "no such file" in text.lower()


def test_unknown_name_with_the_ones_that_are_near(bootproof: Run) -> None:
    text = refusal(bootproof("boot", "6.1-cloud-amd46"))
    assert text.startswith("bootproof: 6.1-cloud-amd46: no such file")
    assert "6.1-cloud-amd64" in text


NO_KERNELS = [
    ("directory", "directory"),
    ("empty", "empty"),
    ("fifo", "not a regular file"),
    ("device", "not a regular file"),
    ("name too long", "name too long"),
    ("below a file", "no such file"),
    ("loop", "symbolic links"),
]


@pytest.mark.parametrize(
    ("command", "kind", "words"),
    [
        *((command, *row) for command in ("boot", "inspect") for row in NO_KERNELS),
        ("boot", "text", "neither a kernel nor "),  # inspect says what it is instead
    ],
)
def test_what_is_no_kernel(
    command: str, kind: str, words: str, bootproof: Run, tmp_path: Path
) -> None:
    path = tmp_path / "kernel"
    if kind == "directory":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "text":
        path.write_text("this is no kernel\n" * 100)
    elif kind == "name too long":
        path = tmp_path / ("k" * 300)
    elif kind == "below a file":
        path.write_text("")
        path = path / "vmlinux"
    else:
        path.symlink_to(path)
    text = refusal(bootproof(command, path))
    assert str(path) in text
    assert words in text.lower()


def without_rights(*words: str | Path) -> list[str | bytes | Path]:
    """A command line that may read no more than its user's files."""
    if os.geteuid() != 0:
        return in_process(*words)
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *in_process(*words)]


@pytest.mark.parametrize(
    "words",
    [
        *(["replay"], ["pack"], ["check"], ["run"], ["report"], ["history"]),
        *(["profile", "--out", "out"], ["bisect", "--list"], ["boot", "--overlay"]),
        *(["compare"], ["inspect"], ["matrix", "--kernel"], ["matrix", "--list", "--scenarios"]),
        ["matrix", "--list", "--baseline"],
    ],
)
def test_unreadable_directory(words: list[str], kernel: Path, tmp_path: Path) -> None:
    """Whatever is looked for in it first."""
    closed = tmp_path / "closed"
    closed.mkdir(0)
    more = [kernel] if words[0] == "boot" else []
    done = subprocess.run(
        without_rights(words[0], *more, *words[1:], closed),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    closed.chmod(0o755)
    text = refusal(Said(done.returncode, done.stdout, done.stderr))
    assert text.startswith(f"bootproof: {closed}") and "ermission denied" in text


@pytest.mark.parametrize("closed", ["file", "directory"])
def test_unreadable_file(closed: str, kernel: Path, tmp_path: Path) -> None:
    """Not even root may read it without these rights; another user might not reach our modules."""
    target = tmp_path / "below" / "vmlinux"
    target.parent.mkdir()
    kernel.rename(target)
    words = without_rights("boot", target)
    (target if closed == "file" else target.parent).chmod(0)
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False)
    (target if closed == "file" else target.parent).chmod(0o755)
    text = refusal(Said(done.returncode, done.stdout, done.stderr))
    assert text.startswith(f"bootproof: {target}: ") and "permission denied" in text.lower()


AARCH64_ELF = builder.elf(
    builder.load(GIB + 2 * MIB, builder.LINUX), machine=183, entry=GIB + 2 * MIB
)
ARM64_IMAGE = builder.image() + builder.LINUX


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (AARCH64_ELF, (), "no boot protocol"),
        (AARCH64_ELF, ("--unsafe", "--protocol", "linux64"), "linux64"),
        (AARCH64_ELF, ("--unsafe", "--protocol", "arm64"), "arm64"),
        (ARM64_IMAGE, ("--protocol", "linux64"), "linux64"),
        (ARM64_IMAGE, ("--protocol", "pvh"), "no PVH entry"),
        (vmlinux(X86Program(0)), ("--protocol", "arm64"), "it offers: linux64"),
        (builder.image(builder.RISCV64) + builder.LINUX, ("--protocol", "arm64"), "riscv64"),
        (builder.elf(builder.load(LOAD, b"\xf4"), machine=8), (), "bootproof boots x86_64, aarch"),
        (vmlinux(X86Program(0)), ("--format", "image"), "(elf); nothing is packed inside"),
        (vmlinux(X86Program(0)), ("--machine", "virt"), "machine 'virt' is not known for x86_64"),
        (vmlinux(X86Program(0))[:0x100], (), "vmlinux: "),
        (builder.bzimage()[:0x300], (), "vmlinux: "),
    ],
)
def test_wrong_architecture_format_or_machine(
    content: bytes, arguments: tuple[str, ...], words: str, bootproof: Run, tmp_path: Path
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(content)
    text = refusal(
        bootproof("boot", path, "--memory", "32M", "--out", tmp_path / "run", *arguments)
    )
    assert words in text


# --- the request -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--offset", "16Q"), "argument --offset: '16Q' is neither a size nor an address"),
        (("--offset", "0x"), "argument --offset: '0x' is neither"),
        (("--offset", ""), "argument --offset: '' is neither"),
        (("--offset", "1" * 30), "does not fit into 64 bits"),
        (("--memory", "lots"), "argument --memory: 'lots' is neither"),
        (("--memory", "1000"), "memory: 1000 bytes is not a whole number of MiB"),
        (("--memory", "0"), "memory: 0 bytes is not a whole number of MiB"),
        (("--memory", "1P"), "argument --memory: '1P' is neither"),
        (("--memory", "65G"), "from 1 MiB to 64 GiB"),
        (("--memory", "1M"), "give the guest at least 17 MiB (--memory)"),
        (("--protocol", "multiboot"), "argument --protocol: invalid choice: 'multiboot'"),
        (("--offset", "1M"), "a vmlinux runs only at a multiple of 2 MiB"),
        (("--offset", "1T"), "RAM ends at 0x1ffffff; the image is damaged or the kernel off"),
        (("--offset", "0xfffffffffff00000"), "vmlinux: "),
        (("--protocol", "pvh"), "no PVH entry: the kernel has no PVH note"),
        (("--cmdline", "x" * 3000), "bytes but the kernel takes at most 2047"),
        (("--cmdline", "x\0y"), "argument --cmdline: 'x\\x00y' has characters that cannot be"),
        (("--cmdline", "caf\udce9"), "--cmdline"),
        (("--cpu", "no-such-cpu"), "no-such-cpu"),
        (("--console",), "--console needs a terminal"),
        (("--smp", "0"), "argument --smp: must be at least 1, not 0"),
        (("--smp", "256"), "CPUs: 256; q35 has 1 to 255 (--smp)"),
        (("--profile", "fast", "--cmdline", "x"), "leave out one of them (--profile, --cmdline)"),
        (("--realtime", "--twice"), "no two boots are the same in real time: leave --realtime out"),
        (
            ("--no-such-option",),
            "boot: unrecognized arguments: --no-such-option (see bootproof boot",
        ),
        (("--budgets=2G",), "--budgets=2G; did you mean --budget? (see"),
        (("--test", " "), "argument --test: is empty"),
        (("--cpu=",), "argument --cpu: is empty"),
    ],
)
def test_request_that_cannot_be(
    arguments: tuple[str, ...], words: str, bootproof: Run, kernel: Path, tmp_path: Path
) -> None:
    said = bootproof("boot", kernel, "--memory", "32M", "--out", tmp_path / "run", *arguments)
    if arguments[0] == "--cpu":  # only QEMU can tell: a verdict
        assert (said.code, said.err) == (exitcode.CANNOT_TELL, "")
        assert "verdict   qemu-failed: " in said.out and words in said.out
        return
    assert words in refusal(said)


def test_initrd(bootproof: Run, kernel: Path, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        command = ("boot", kernel, "--memory", "32M", "--out", tmp_path / "run")
        return refusal(bootproof(*command, "--initrd", path))

    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "large").write_bytes(bytes(40 * MIB))
    os.mkfifo(tmp_path / "fifo")
    missing = f"bootproof: {tmp_path / 'none'}: No such file or directory (--initrd)"
    assert refused(tmp_path / "none") == missing
    assert refused(tmp_path / "empty") == f"bootproof: {tmp_path / 'empty'}: is empty (--initrd)"
    assert refused(tmp_path) == f"bootproof: {tmp_path}: Is a directory (--initrd)"
    assert "is not a regular file" in refused(tmp_path / "fifo")
    archive = initrd_saying(b"hello")
    for name, content, words in (
        ("notes.txt", b"hello, world\n", "no cpio archive begins at 0x0 (there is 68 65 6c 6c 6f"),
        ("cut", archive[:100], "the cpio archive breaks off at 0x64, before its trailer; the file"),
        ("junk", archive + b"junk", f"no cpio archive begins at {len(archive):#x}"),
        ("own", initramfs.archive([initramfs.file("bootproof/init", b"")]), "could replace"),
    ):
        (tmp_path / name).write_bytes(content)
        text = refused(tmp_path / name)
        assert text.startswith(f"bootproof: {tmp_path / name}: ") and words in text
        assert text.endswith(" (--initrd)")
    text = refused(tmp_path / "large")
    assert text.startswith(f"bootproof: {kernel}: no room for initrd: 40")
    assert text.endswith("; give the guest at least 57 MiB (--memory)")


@pytest.mark.parametrize("what", ["file", "foreign", "below a file"])
def test_run_directory_that_cannot_be(
    what: str, bootproof: Run, kernel: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    if what == "foreign":
        out.mkdir()
        (out / "thesis.tex").write_text("years of work")
    else:
        out.write_text("")
        out = out / "below" if what == "below a file" else out
    text = refusal(bootproof("boot", kernel, "--memory", "32M", "--out", out))
    why = "holds thesis.tex, which" if what == "foreign" else "is no directory; name another place"
    assert text.startswith(f"bootproof: {tmp_path / 'run'}: {why}")
    assert what != "foreign" or (out / "thesis.tex").exists()


@pytest.mark.parametrize("arguments", [(), ("boot",), ("no-such-command",), ("boot", "a", "b")])
def test_command_that_cannot_be(arguments: tuple[str, ...], bootproof: Run) -> None:
    text = refusal(bootproof(*arguments))
    assert "--help)" in text


@pytest.mark.parametrize("command", ["", "matrix", "boot", "inspect", "fetch", "run", "image"])
def test_help_tells_of_itself(command: str, bootproof: Run) -> None:
    said = bootproof(*[command] * bool(command), "--help")
    assert (said.code, said.err) == (0, ""), said.out
    assert said.out.startswith("usage: ")


# --- QEMU --------------------------------------------------------------------------------------


def fake(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\necho '{line}'\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("QEMU emulator version 7.1.0", "QEMU 7.1.0 is too old; bootproof needs 7.2.0 or newer"),
        ("hello", "does not look like QEMU; `--version` said: hello"),
        (None, "cannot be run as QEMU"),
    ],
)
def test_qemu_that_will_not_do(
    line: str | None,
    words: str,
    bootproof: Run,
    kernel: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "qemu"
    if line is not None:
        fake(path, line)
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", str(path))
    text = refusal(bootproof("boot", kernel, "--out", tmp_path / "run"))
    assert text.startswith(f"bootproof: {path}: ") and words in text


def test_qemu_that_is_absent(
    bootproof: Run, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    text = refusal(bootproof("boot", kernel, "--out", tmp_path / "run"))
    assert text.startswith(
        "bootproof: qemu-system-x86_64 is not installed; run `./bootproof setup`"
    )


# --- interrupted -------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 20])
@pytest.mark.parametrize(
    ("number", "whole_group", "code", "words"),
    [
        (signal.SIGINT, False, 130, "bootproof: interrupted\n"),
        (signal.SIGINT, True, 130, "bootproof: interrupted\n"),
        (signal.SIGTERM, False, 143, ""),
        (signal.SIGHUP, True, 129, ""),
    ],
    ids=["SIGINT", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_interrupted_boot_ends_qemu(
    number: signal.Signals, whole_group: bool, code: int, words: str, times: int, tmp_path: Path
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux(X86Program(LOAD).say_initrd().count()))
    (tmp_path / "initrd").write_bytes(initrd_saying(b"running\n"))
    command: list[str | Path] = ["boot", path, "--protocol", "linux64", "--memory", "32M"]
    command += ["--initrd", tmp_path / "initrd", "--out", tmp_path / "run"]
    process = subprocess.Popen(
        in_process(*command),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    family: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        while "| running" not in process.stdout.readline():
            assert process.poll() is None
        family = psutil.Process(process.pid).children(recursive=True)
        assert [child.name() for child in family] == ["qemu-system-x86_64"]
        for _ in range(times):
            (os.killpg if whole_group else os.kill)(process.pid, number)
            time.sleep(0.01)  # two signals at once may be one
        _, said = process.communicate(timeout=30)
        assert (process.returncode, said) == (code, words)
        assert psutil.wait_procs(family, timeout=5)[1] == []
        assert not (tmp_path / "run" / "devices").exists()
        result = json.loads((tmp_path / "run" / "result.json").read_text())
        assert (result["verdict"], result["code"]) == ("interrupted", None)
        assert result["reason"] == f"ended by {number.name} after 'running'"
        assert {path.lstat().st_uid for path in (tmp_path / "run").iterdir()} == {os.geteuid()}
    finally:
        for child in family:
            if child.is_running():
                child.kill()
        process.kill()
        process.communicate()


def test_reader_that_goes_away_is_no_traceback(kernel: Path, tmp_path: Path) -> None:
    """As `bootproof boot … | head -1`."""
    command: list[str | Path] = ["boot", kernel, "--memory", "32M", "--out", tmp_path / "run"]
    with subprocess.Popen(
        in_process(*command),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("kernel    ")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1  # what becomes of the boot, and not 0
    assert psutil.Process().children(recursive=True) == []


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A path may have any bytes in it; they are shown escaped."""
    path = os.fsencode(tmp_path) + b"/caf\xe9-\x1b[31m"
    Path(os.fsdecode(path)).write_bytes(vmlinux(X86Program(LOAD).reset()))
    run = subprocess.run(
        in_process("boot", path, "--memory", "32M", "--out", path + b"-run"),
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (1, b"")
    assert run.stdout.decode().replace("\n", "").isprintable()
    words = in_process("boot", path + b"-missing")
    missing = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    text = refusal(Said(missing.returncode, missing.stdout.decode(), missing.stderr.decode()))
    assert "no such file" in text


def test_a_device_tree_where_there_is_none(bootproof: Run, kernel: Path, tmp_path: Path) -> None:
    (tmp_path / "a.dtb").write_bytes(b"")
    text = refusal(
        bootproof("boot", kernel, "--dtb", tmp_path / "a.dtb", "--out", tmp_path / "run")
    )
    assert text == "bootproof: --dtb: kernels of x86_64 are given no device tree"


def test_a_python_without_assertions_tests_nothing(tmp_path: Path) -> None:
    words = ["-O", "-m", "bootproof.harness.cli", "matrix", "--out", str(tmp_path / "out")]
    ended = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "bootproof: Python leaves out the assertions that tests are made of (PYTHONOPTIMIZE, -O);"
        " run it without\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["boot"], ["matrix", "--kernel"]])
def test_a_command_that_may_have_no_thread(words: list[str], kernel: Path, tmp_path: Path) -> None:
    """Its stack is larger than there are addresses for."""
    run = (
        "import sys, threading; from bootproof.harness import cli; threading.stack_size(1 << 46);"
        " sys.exit(cli.main(sys.argv[1:]))"
    )
    given = [*words, str(kernel), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", run, *given]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    said = "bootproof: there may be no more threads here (ulimit -u, pids.max)"
    assert (ended.returncode, ended.stderr.splitlines()[-1:]) == (2, [said])
    assert "Traceback" not in ended.stderr and "INTERNALERROR" not in ended.stdout


@pytest.mark.parametrize("words", [["replay"], ["profile"], ["image", "KERNEL", "--out"]])
def test_too_long_a_name(
    words: list[str], kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it is looked for first."""
    given = [str(kernel) if word == "KERNEL" else word for word in words]
    assert cli.main([*given, "n" * 5000]) == 2
    said = capsys.readouterr().err
    assert said == f"bootproof: {'n' * 80}…: File name too long\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fuzz", "--seconds", "nan"], "'nan' is no number of seconds"),
        (["fuzz", "--seconds", "inf"], "'inf' is no number of seconds"),
        (["fuzz", "--seconds", "-1"], "'-1' is no number of seconds"),
        (["import", "--out", "x", "--break-seconds", "nan"], "'nan' is no number of seconds"),
        (["replay", "run", "--gdb", "--at", "-5"], "'-5' is no number of instructions"),
        (["replay", "run", "--gdb", "--at", "9" * 5000], "run: No such file or directory"),
        (["matrix", "--run-id", ""], "argument --run-id: is empty"),
        (["report", "run", "--kcidb", "-", "--origin", " "], "argument --origin: is empty"),
        (["fuzz", "--target", "elf", "--replay", "fifo"], "fifo: is not a regular file"),
        (["fuzz", "--target", "elf", "--replay", "."], ".: Is a directory (--replay)"),
    ],
)
def test_numbers_and_inputs_that_are_none(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert (told in said.err, said.out) == (True, ""), said


@pytest.mark.parametrize(
    "words",
    [
        ["boot", "k", "--initrd", ""],
        ["boot", "k", "--overlay", ""],
        ["boot", "k", "--out", ""],
        ["check", ""],
        ["history", ""],
        ["matrix", "--scenarios", ""],
        ["unpack", ""],
    ],
)
def test_an_empty_name_is_not_the_current_directory(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is what a script's unset variable becomes."""
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert ("an empty name is that of no file" in said.err, said.out) == (True, ""), said


def test_a_current_directory_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli.main(["boot", str(kernel), "--out", "here"]) == 2
    said = capsys.readouterr().err
    assert said == "bootproof: the current directory was removed; go to one that is there\n"
