"""qemu.sh of a run directory: the same guest again, without the harness."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from bootproof.harness.qemu.argv import DirectKernel, Launch
from bootproof.harness.qemu.placement import PlacedImage
from bootproof.harness.record.reproduce import write_reference_script, write_script
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget, Placement
from bootproof.loader.address import GIB, MIB
from bootproof.loader.memory import GuestMemory
from tests.builders.guests import Claim, Guest, boot, machine, program

TEXT = b"one line\nand another\n" * 20
# QEMU's remark when a guest has not set any timer.
IDLE_WARNING = b"icount sleep disabled and no active timers"
# Low data on aarch64 is staged; each of the rest has a device of its own.
EXTRA = {
    "x86_64": {0x20000: b"low" * 99, 4 * MIB: b"high" * 99},
    "aarch64": {GIB: b"low" * 99, GIB + 4 * MIB: b"high" * 99},
}


# Ends the script and its QEMU together, also when the test itself has been killed.
BOUNDED = ("timeout", "--kill-after=5", "60")


def finished(arch: str, directory: Path, placement: Placement = Placement.DEVICES) -> bytes:
    """Runs a guest that ends by itself; gives its console's bytes."""
    directory.mkdir(parents=True)
    guest = Guest(program(arch).say(TEXT).reset(), extra=EXTRA[arch])
    image = guest.write(directory, machine(arch))
    claim = Claim(machine(arch), guest.program.entry)
    run(Start(image, machine(arch), claim.expected, placement, Budget()), directory)
    return (directory / "console.log").read_bytes()


def script(directory: Path, *arguments: str, cwd: Path | None = None) -> bytes:
    """What ./qemu.sh prints; it must end well and say nothing else."""
    done = subprocess.run(
        [*BOUNDED, directory / "qemu.sh", *arguments], cwd=cwd, capture_output=True, check=False
    )
    said = [line for line in done.stderr.splitlines() if IDLE_WARNING not in line]
    assert (done.returncode, said) == (0, [])
    return done.stdout


@pytest.mark.parametrize("placement", Placement)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_same_console_into_a_file(arch: str, placement: Placement, tmp_path: Path) -> None:
    console = finished(arch, tmp_path / "run", placement)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    ram = (tmp_path / "run" / "ram.img").read_bytes()
    assert console == TEXT
    assert script(tmp_path / "run", str(tmp_path / "again")) == b""
    assert (tmp_path / "again").read_bytes() == console
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    assert (tmp_path / "run" / "ram.img").read_bytes() == ram


@pytest.mark.parametrize(
    ("change", "probe", "promise"),
    [
        ({}, True, "the same bytes each time"),
        ({}, False, "the very same run as before, byte for byte"),
        ({"cpus": 2}, False, "nearly always the same bytes"),
        ({"realtime": "asked for"}, False, "the guest's time is the host's, and no two runs"),
    ],
)
def test_script_promises_what_holds(
    change: Mapping[str, Any], probe: bool, promise: str, tmp_path: Path
) -> None:
    computer = replace(machine("x86_64"), **change)
    boot(program("x86_64").say(TEXT).reset(), tmp_path / "run", on=computer, probe=probe)
    text = (tmp_path / "run" / "qemu.sh").read_text()
    assert f"console into FILE: {promise}" in text
    assert ("stopped at the kernel's first instruction" in text) == probe
    subprocess.run(["sh", "-n", tmp_path / "run" / "qemu.sh"], check=True)


def test_console_on_standard_output(tmp_path: Path) -> None:
    finished("x86_64", tmp_path / "run")
    assert script(tmp_path / "run", cwd=tmp_path) == TEXT


@pytest.mark.parametrize("name", ["a b", "a,b", "it's", 'say "hi"', "$(id)`id`", "-dash", "ünï"])
def test_any_path_will_do(name: str, tmp_path: Path) -> None:
    """Of the run directory and of the console's file, given absolute and relative."""
    finished("x86_64", tmp_path / name / name)
    script(tmp_path / name / name, str(tmp_path / f"{name}.log"))
    script(tmp_path / name / name, f"./{name}.relative", cwd=tmp_path)
    assert (tmp_path / f"{name}.log").read_bytes() == TEXT
    assert (tmp_path / f"{name}.relative").read_bytes() == TEXT


def test_relative_call_from_its_own_directory(tmp_path: Path) -> None:
    finished("x86_64", tmp_path / "run")
    for command in (["./qemu.sh", "here"], ["sh", "qemu.sh", "there"]):
        subprocess.run([*BOUNDED, *command], cwd=tmp_path / "run", check=True)
    assert (tmp_path / "run" / "here").read_bytes() == TEXT
    assert (tmp_path / "run" / "there").read_bytes() == TEXT


def test_ram_that_was_not_kept(tmp_path: Path) -> None:
    finished("x86_64", tmp_path / "run")
    (tmp_path / "run" / "ram.img").unlink()
    done = subprocess.run(
        [*BOUNDED, tmp_path / "run" / "qemu.sh"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"ram.img" in done.stderr
    assert not (tmp_path / "run" / "devices").exists()


@pytest.mark.parametrize("to_all", [True, False], ids=["group", "shell"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_it_leaves_nothing(
    number: signal.Signals, to_all: bool, tmp_path: Path
) -> None:
    """From a terminal the signal goes to the whole group, from a supervisor to the shell."""
    directory = tmp_path / "run"
    directory.mkdir()
    guest = Guest(program("x86_64").say(b"running\n").count(), extra=EXTRA["x86_64"])
    image = guest.write(directory, machine("x86_64"))
    claim = Claim(machine("x86_64"), guest.program.entry)
    run(
        Start(image, machine("x86_64"), claim.expected, budget=Budget(quiet_instructions=1000)),
        directory,
    )
    again = subprocess.Popen([directory / "qemu.sh", tmp_path / "console"], process_group=0)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "console").exists() or not (tmp_path / "console").stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        family = psutil.Process(again.pid).children(recursive=True)
        assert (directory / "devices").exists()
        (os.killpg if to_all else os.kill)(again.pid, number)
        assert again.wait(30) == 128 + number
        assert psutil.wait_procs(family, timeout=10)[1] == []
        assert not (directory / "devices").exists()
    finally:
        if again.poll() is None:
            os.killpg(again.pid, signal.SIGKILL)


def test_script_is_clean_shell(tmp_path: Path) -> None:
    finished("aarch64", tmp_path / "run")
    subprocess.run(["sh", "-n", tmp_path / "run" / "qemu.sh"], check=True)
    checked = subprocess.run(
        ["shellcheck", tmp_path / "run" / "qemu.sh"], capture_output=True, text=True, check=False
    )
    assert checked.stdout == ""


@pytest.mark.parametrize(
    "cpu",
    ["$(touch pwned)", "a$console$(touch pwned)", "`touch pwned`", "x'; touch pwned; '", "a\nb"],
)
def test_no_word_of_a_stranger_is_a_command(cpu: str, tmp_path: Path) -> None:
    """A CPU model, say, may come from somebody else's scenario."""
    finished("x86_64", tmp_path / "run")
    computer = replace(machine("x86_64"), cpu=cpu)
    launch = Launch((), (0,))
    placed = PlacedImage(launch, (), b"", ())
    with GuestMemory(computer.banks) as memory:
        write_script(computer, placed, memory, tmp_path / "run", probed=False)
    kernel = DirectKernel("a$console$(touch pwned)", "`touch pwned`", cpu)
    (tmp_path / "reference").mkdir()
    write_reference_script(computer, kernel, tmp_path / "reference")
    for directory in (tmp_path / "run", tmp_path / "reference"):
        done = subprocess.run(
            [*BOUNDED, directory / "qemu.sh", "out"],
            cwd=directory,
            capture_output=True,
            check=False,
        )
        assert done.returncode != 0  # QEMU does not know that CPU
        assert not list(tmp_path.rglob("pwned"))
