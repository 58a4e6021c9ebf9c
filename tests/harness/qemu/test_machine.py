"""Machine descriptions and command lines, held against what real QEMU says of itself."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.arch import Banks
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.qemu import machine as qemu
from bootproof.harness.qemu.machine import (
    Blob,
    Channels,
    DirectKernel,
    Launch,
    LogMode,
    RamFile,
    RunLog,
    argv,
    device_tree,
    find_qemu,
    qemu_version,
    reference_argv,
)
from bootproof.loader.address import GIB, MIB

SYSTEM_QEMU = "qemu-system-x86_64"


@pytest.fixture(autouse=True)
def _fresh_caches() -> Iterator[None]:
    """The environment decides which QEMU is found, and tests change it."""
    find_qemu.cache_clear()
    yield
    find_qemu.cache_clear()


# --- where RAM is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "board", "sizes"),
    [
        ("x86_64", "q35", (1, 512, 2815, 2816, 4096, 6000)),
        ("x86_64", "pc", (512, 3071, 3072, 3583, 3584, 6000)),
        ("x86_64", "microvm", (512, 3071, 3072, 3073, 6000)),
        ("aarch64", "virt", (1, 512, 4096, 6000)),
    ],
)
def test_banks_are_where_qemu_has_its_ram(arch: str, board: str, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        machine = qemu.machine(arch, memory=size * MIB, board=board)
        assert (machine.banks, size) == (real_banks(machine), size)
        assert machine.banks_with(machine.memory) == machine.banks


def real_banks(machine: qemu.Machine) -> Banks:
    """From `info mtree`: the aliases of the RAM backend, whose offsets follow one another."""
    command = [machine.qemu.path, "-machine", machine.board, "-cpu", machine.cpu, "-S"]
    command += ["-nodefaults", "-display", "none", "-m", f"{machine.memory // MIB}M"]
    command += ["-monitor", "stdio"]
    asked = "info mtree\nquit\n"
    run = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)
    alias = r"^ +(\w+)-(\w+) \(prio 0, ram\): alias ram-(?:below|above)-4g @[\w.]+ (\w+)-"
    plain = r"^ +(\w+)-(\w+) \(prio 0, ram\): mach-virt.ram()"
    found = {
        tuple(int(digits or "0", 16) for digits in match)
        for pattern in (alias, plain)
        for match in re.findall(pattern, run.stdout, re.MULTILINE)
    }
    banks, offset = [], 0
    for start, last, at in sorted(found):
        assert at == offset
        banks.append((start, last + 1 - start))
        offset += last + 1 - start
    return tuple(banks)


def test_every_board_of_the_table_has_been_compared() -> None:
    assert {name: sorted(arch.boards) for name, arch in ARCHES.items()} == {
        "x86_64": ["microvm", "pc", "q35"],
        "aarch64": ["virt"],
    }


# --- machines ----------------------------------------------------------------------------------


def test_defaults_and_quirks() -> None:
    for name, arch in ARCHES.items():
        machine = qemu.machine(name, memory=512 * MIB)
        cures = [quirk.cpu for quirk in arch.quirks if quirk.applies(machine.qemu.version)]
        assert (machine.board, machine.cpu) == (arch.board, (cures or [arch.cpu])[0])
        no_entropy = ",-rdrand,-rdseed" if name == "x86_64" else ""
        assert qemu.machine(name, memory=MIB, cpu="max").cpu == f"max{no_entropy}"


@pytest.mark.parametrize(
    ("arch", "cpu", "wanted"),
    [
        ("x86_64", "Haswell", "Haswell,-rdrand,-rdseed"),
        ("x86_64", "max,+rdrand", "max,+rdrand,-rdseed"),
        ("x86_64", "max,rdseed=on,-rdrand", "max,rdseed=on,-rdrand"),
        ("aarch64", "max,pauth-impdef=on", "max,pauth-impdef=on"),
    ],
)
def test_no_entropy_from_the_cpu(arch: str, cpu: str, wanted: str) -> None:
    assert qemu.machine(arch, memory=MIB, cpu=cpu).cpu == wanted


@pytest.mark.parametrize(
    ("arch", "cpus", "most"), [("x86_64", 0, 255), ("x86_64", 256, 255), ("aarch64", 9, 8)]
)
def test_cpus_that_no_machine_has(arch: str, cpus: int, most: int) -> None:
    with pytest.raises(UserError, match=f"CPUs: {cpus}; machines of {arch} have 1 to {most}"):
        qemu.machine(arch, memory=MIB, cpus=cpus)


@pytest.mark.parametrize(
    ("arch", "cpus", "realtime", "wanted"),
    [
        ("x86_64", 1, "", (True, "deterministic")),
        ("x86_64", 2, "", (False, "nearly deterministic: several CPUs")),
        ("aarch64", 4, "", (True, "deterministic")),
        ("aarch64", 1, "asked for", (False, "real time: asked for")),
    ],
)
def test_what_is_promised(arch: str, cpus: int, realtime: str, wanted: tuple[bool, str]) -> None:
    machine = qemu.machine(arch, memory=MIB, cpus=cpus, realtime=realtime)
    assert (machine.deterministic, machine.mode) == wanted


@pytest.mark.parametrize("memory", [0, 1, MIB - 1, MIB + 1, 64 * GIB + MIB, 1 << 63])
def test_memory_that_no_machine_has(memory: int) -> None:
    with pytest.raises(UserError, match="is not a whole number of MiB from 1 MiB to 64 GiB"):
        qemu.machine("x86_64", memory=memory)


def test_board_that_is_not_known() -> None:
    with pytest.raises(UserError, match="machine 'virt' is not known for x86_64; known: q35, pc"):
        qemu.machine("x86_64", memory=MIB, board="virt")


# --- finding QEMU ------------------------------------------------------------------------------


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = script(tmp_path / SYSTEM_QEMU, "echo QEMU emulator version 9.1.2 '(Debian)'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = find_qemu("x86_64")
    assert (found.path, found.version) == (str(fake), (9, 1, 2))
    assert str(found) == "qemu-system-x86_64 9.1.2"


def test_the_one_named_wins_and_may_be_named_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """QEMU is started in its run directory: there a relative path would lead somewhere else."""
    script(tmp_path / "mine", "echo QEMU emulator version 7.2.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "./mine")
    assert find_qemu("x86_64").path == str(tmp_path / "mine")


def test_a_bare_name_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "other-qemu", "echo QEMU emulator version 7.2.0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "other-qemu")
    assert find_qemu("x86_64").path == str(tmp_path / "other-qemu")


def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as refused:
        find_qemu("aarch64")
    assert str(refused.value) == (
        "qemu-system-aarch64 is not installed; run `./bootproof setup`, or name one in"
        " BOOTPROOF_QEMU_AARCH64"
    )


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "none")
    with pytest.raises(UserError) as refused:
        find_qemu("x86_64")
    assert str(refused.value) == "QEMU for x86_64 is switched off by BOOTPROOF_QEMU_X86_64=none"


@pytest.mark.parametrize("version", ["7.1.0", "7.1.94", "2.12.1"])
def test_too_old(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = script(tmp_path / "old", f"echo QEMU emulator version {version}")
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", str(old))
    with pytest.raises(UserError) as refused:
        find_qemu("x86_64")
    sentence = f"{old}: QEMU {version} is too old; bootproof needs 7.2.0 or newer"
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo hello", "hello"),
        ("echo complaint >&2; exit 3", "complaint"),
        ("exit 0", "nothing"),
        ("echo 'GNU bash, version 5.2.15(1)-release'", "GNU bash, version 5.2.15(1)-release"),
        ("echo 'git version 9.39.2'", "git version 9.39.2"),
        (r"printf '\377\376\n'", r"\xff\xfe"),
        (r"printf 'red \033[31m\nmore\n'", r"red \x1b[31m"),
    ],
)
def test_not_qemu(text: str, said: str, tmp_path: Path) -> None:
    path = script(tmp_path / "other", text)
    with pytest.raises(UserError) as refused:
        qemu_version(str(path))
    assert str(refused.value) == f"{path}: does not look like QEMU; `--version` said: {said}"


@pytest.mark.parametrize("kind", ["missing", "directory", "not executable", "no program"])
def test_cannot_be_run(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    if kind == "directory":
        path.mkdir()
    elif kind == "not executable":
        path.write_text("#!/bin/sh\n")
    elif kind == "no program":
        path.write_bytes(b"\x7fELF garbage")
        path.chmod(0o755)
    with pytest.raises(UserError) as refused:
        qemu_version(str(path))
    assert str(refused.value).startswith(f"{path}: cannot be run as QEMU: ")
    assert "\n" not in str(refused.value)


def test_real_version() -> None:
    asked = [SYSTEM_QEMU, "--version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    version = ".".join(map(str, find_qemu("x86_64").version))
    assert f"QEMU emulator version {version} " in said.replace("\n", " ")


# --- device trees ------------------------------------------------------------------------------


def test_device_tree_is_the_machines_own() -> None:
    small, large = (device_tree(qemu.machine("aarch64", memory=size * MIB)) for size in (512, 1024))
    assert small is not None and large is not None
    assert small[:4] == b"\xd0\x0d\xfe\xed"
    assert small != large
    assert device_tree(qemu.machine("x86_64", memory=512 * MIB)) is None


def test_device_tree_is_made_once() -> None:
    machine = qemu.machine("aarch64", memory=768 * MIB)
    first = device_tree(machine)
    began = time.monotonic()
    assert device_tree(replace(machine)) is first
    assert time.monotonic() - began < 0.02


def test_device_tree_of_a_machine_that_qemu_refuses() -> None:
    machine = qemu.machine("aarch64", memory=512 * MIB, cpu="no-such-cpu")
    with pytest.raises(UserError) as refused:
        device_tree(machine)
    text = str(refused.value)
    assert text.startswith("qemu-system-aarch64 ") and "no device tree for virt: " in text
    assert "no-such-cpu" in text and "\n" not in text


# --- command lines -----------------------------------------------------------------------------


def pairs(words: list[str]) -> dict[str, list[str]]:
    """Each option's values; an option without one has an empty list."""
    found: dict[str, list[str]] = {}
    for index, word in enumerate(words):
        if word.startswith("-"):
            value = words[index + 1 : index + 2]
            found.setdefault(word, []).extend([] if value and value[0].startswith("-") else value)
    return found


def test_command_line_of_pieces() -> None:
    machine = replace(qemu.machine("x86_64", memory=512 * MIB), cpus=2)
    launch = Launch((Blob("stub,0.bin", 0x1000), Blob("p/k.bin", 1 << 32)), (0x11000, 0x12000))
    words = argv(machine, launch, Channels("console,log", qmp_fd=7, gdb_fd=9))
    options = pairs(words[1:])
    assert options["-device"] == [
        "loader,file=stub,,0.bin,addr=0x1000,force-raw=on",
        "loader,file=p/k.bin,addr=0x100000000,force-raw=on",
        "loader,addr=0x11000,cpu-num=0",
        "loader,addr=0x12000,cpu-num=1",
    ]
    assert options["-chardev"] == [
        "file,id=console,path=console,,log",
        "socket,id=qmp,fd=7",
        "socket,id=gdb,fd=9",
    ]
    assert options["-machine"] == ["q35,accel=tcg"]
    assert (options["-smp"], options["-m"]) == (["2"], ["512M"])
    assert (options["-icount"], options["-seed"]) == (["shift=3,sleep=off"], ["1"])
    assert options["-action"] == ["reboot=shutdown,shutdown=pause,panic=none"]
    assert {"-S", "-nodefaults", "-no-user-config", "-sandbox"} <= set(options)


def test_nothing_loads_a_kernel_but_the_generic_loader() -> None:
    machine = qemu.machine("x86_64", memory=512 * MIB)
    words = argv(machine, Launch((), (0,)), Channels("c"))
    assert not {"-kernel", "-initrd", "-append", "-bios", "-pflash", "-dtb"} & set(words)
    assert "-S" not in words  # nobody could ever start it
    reference = reference_argv(machine, DirectKernel("k", "i", "a b"), Channels("c"))
    assert reference[-6:] == ["-kernel", "k", "-initrd", "i", "-append", "a b"]


@pytest.mark.parametrize(("shared", "share"), [(True, "on"), (False, "off")])
def test_command_line_with_a_file_as_ram(shared: bool, share: str) -> None:
    machine = qemu.machine("aarch64", memory=512 * MIB)
    channels = Channels("c", ram=RamFile("a,b.img", shared=shared))
    options = pairs(argv(machine, Launch((), (0,), mapped=True), channels))
    assert options["-machine"] == ["virt,accel=tcg,memory-backend=ram"]
    backend = f"memory-backend-file,id=ram,size=512M,mem-path=a,,b.img,share={share}"
    assert options["-object"] == [backend]


def test_command_line_of_a_run_that_is_recorded() -> None:
    machine = qemu.machine("aarch64", memory=512 * MIB)
    plain, recorded, replayed = (
        argv(machine, Launch((), (0,)), Channels("c", log=log))
        for log in (None, RunLog("a,b", LogMode.RECORD), RunLog("a,b", LogMode.REPLAY))
    )
    assert pairs(recorded)["-icount"] == ["shift=3,sleep=off,rr=record,rrfile=a,,b"]
    assert pairs(replayed)["-icount"] == ["shift=3,sleep=off,rr=replay,rrfile=a,,b"]
    # Nothing else may differ, or qemu.sh of a run's directory would not be the same run.
    assert [len(set(words) - set(plain)) for words in (recorded, replayed)] == [1, 1]


def test_real_time_gives_up_determinism() -> None:
    machine = qemu.machine("x86_64", memory=512 * MIB, realtime="asked for")
    words = argv(machine, Launch((), (0,)), Channels("c,d", terminal=True))
    assert not {"-icount", "-rtc", "-seed"} & set(words)
    assert "stdio,id=console,mux=on,signal=off,logfile=c,,d" in words


def test_qemu_takes_the_commas(tmp_path: Path) -> None:
    """All paths with a comma at once, on real QEMU, which ends by itself: nothing is at 0."""
    machine = qemu.machine("x86_64", memory=16 * MIB)
    (tmp_path / "blob,1").write_bytes(b"\xf4" * 16)
    with (tmp_path / "ram,img").open("wb") as file:
        file.truncate(16 * MIB)
    channels = Channels(
        "console,log",
        ram=RamFile("ram,img", shared=True),
        after_shutdown="poweroff",
        log=RunLog("replay,bin", LogMode.RECORD),
    )
    words = argv(machine, Launch((Blob("blob,1", 0x1000),), (0x11000,), mapped=True), channels)
    run = subprocess.run(
        [*words, "-monitor", "stdio"],
        cwd=tmp_path,
        input="pmemsave 0x1000 16 saved\nquit\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "saved").read_bytes() == b"\xf4" * 16
    assert (tmp_path / "console,log").exists() and (tmp_path / "replay,bin").exists()
