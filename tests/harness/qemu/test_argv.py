"""QEMU command lines, some of them given to real QEMU."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.qemu.argv import (
    Blob,
    Channels,
    DirectKernel,
    Launch,
    LogMode,
    RamFile,
    RunLog,
    argv,
)
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.talker import TERMINAL, Talker
from bootproof.loader.address import MIB


def pairs(words: list[str]) -> dict[str, list[str]]:
    """Each option's values; an option without one has an empty list."""
    found: dict[str, list[str]] = {}
    for index, word in enumerate(words):
        if word.startswith("-"):
            value = words[index + 1 : index + 2]
            found.setdefault(word, []).extend([] if value and value[0].startswith("-") else value)
    return found


def test_command_line_of_loader_devices() -> None:
    machine = replace(Machine.with_defaults("x86_64", memory=512 * MIB), cpus=2)
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
    machine = Machine.with_defaults("x86_64", memory=512 * MIB)
    words = argv(machine, Launch((), (0,)), Channels("c"))
    assert not {"-kernel", "-initrd", "-append", "-bios", "-pflash", "-dtb"} & set(words)
    assert "-S" not in words  # nobody could ever start it
    reference = argv(machine, DirectKernel("k", "i", "a b"), Channels("c"))
    assert reference[-6:] == ["-kernel", "k", "-initrd", "i", "-append", "a b"]


def test_data_where_the_firmware_shows_takes_its_place() -> None:
    machine = Machine.with_defaults("x86_64", memory=512 * MIB)
    options = pairs(argv(machine, Launch((), (0,), rom="devices/data.bin"), Channels("c")))
    assert options["-bios"] == ["devices/data.bin"]


@pytest.mark.parametrize(("shared", "share"), [(True, "on"), (False, "off")])
def test_command_line_with_a_file_as_ram(shared: bool, share: str) -> None:
    machine = Machine.with_defaults("aarch64", memory=512 * MIB)
    channels = Channels("c", ram=RamFile("a,b.img", shared=shared))
    options = pairs(argv(machine, Launch((), (0,), mapped=True), channels))
    assert options["-machine"] == ["virt,accel=tcg,memory-backend=ram"]
    backend = f"memory-backend-file,id=ram,size=512M,mem-path=a,,b.img,share={share}"
    assert options["-object"] == [backend]


def test_command_line_of_a_run_that_is_recorded() -> None:
    machine = Machine.with_defaults("aarch64", memory=512 * MIB)
    plain, recorded, replayed = (
        argv(machine, Launch((), (0,)), Channels("c", log=log))
        for log in (None, RunLog("a,b", LogMode.RECORD), RunLog("a,b", LogMode.REPLAY))
    )
    assert pairs(recorded)["-icount"] == ["shift=3,sleep=off,rr=record,rrfile=a,,b"]
    assert pairs(replayed)["-icount"] == ["shift=3,sleep=off,rr=replay,rrfile=a,,b"]
    # Nothing else may differ, or qemu.sh of a run's directory would not be the same run.
    assert [len(set(words) - set(plain)) for words in (recorded, replayed)] == [1, 1]


def test_real_time_gives_up_determinism() -> None:
    machine = replace(Machine.with_defaults("x86_64", memory=512 * MIB), realtime="asked for")
    words = argv(machine, Launch((), (0,)), Channels("c,d", talker=TERMINAL))
    assert not {"-icount", "-rtc", "-seed"} & set(words)
    assert "stdio,id=console,mux=on,signal=off,logfile=c,,d" in words


def test_a_program_that_talks_to_the_guest_has_no_escape() -> None:
    machine = replace(Machine.with_defaults("x86_64", memory=512 * MIB), realtime="dialogue")
    talker = Talker("dialogue", "dialogue", "/sh", stdin=7)
    words = argv(machine, Launch((), (0,)), Channels("c", talker=talker, append=True))
    assert "stdio,id=console,mux=off,signal=off,logfile=c,logappend=on" in words
    assert "-mon" not in words


def test_qemu_takes_the_commas(tmp_path: Path) -> None:
    """All paths with a comma at once, on real QEMU, which ends by itself: nothing is at 0."""
    machine = Machine.with_defaults("x86_64", memory=16 * MIB)
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
