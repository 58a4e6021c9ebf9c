"""What a QEMU that somebody has taken over can reach: its own run directory, and nothing else."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from bootproof.harness import run
from bootproof.harness.host import confined
from bootproof.harness.host.files import NOBODY, given_to_qemu, is_root
from bootproof.harness.host.process import MOST_WRITTEN, QemuProcess
from bootproof.harness.qemu.argv import SANDBOX
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from bootproof.loader.address import MIB
from tests.builders.guests import Claim, Guest, live, machine, program

with_landlock = pytest.mark.skipif(
    confined.landlock_abi() == 0, reason="this kernel has no Landlock"
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A file that every user may read and write, where every user may go."""
    descriptor, name = tempfile.mkstemp(prefix="for-everybody-")
    path = Path(name)
    os.write(descriptor, b"for everybody")
    os.close(descriptor)
    path.chmod(0o666)
    yield path
    path.unlink()


def hostile(script: str, directory: Path) -> str:
    """What a shell script says that is started as QEMU is."""
    with given_to_qemu(directory), QemuProcess(["sh", "-c", script], directory) as child:
        child.wait(60)
        return child.stderr()


@with_landlock
def test_files_of_the_host_are_out_of_reach(directory: Path, open_to_all: Path) -> None:
    said = hostile(f"cat {open_to_all} /etc/passwd; echo evil >{open_to_all}; ls /", directory)
    assert "for everybody" not in said and "root:" not in said
    assert said.count("ermission denied") == 4
    assert open_to_all.read_text() == "for everybody"


@with_landlock
def test_its_own_directory_is_all_it_writes(directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "another-run"
    other.mkdir(mode=0o777)
    other.chmod(0o777)
    tmp_path.chmod(0o755)
    said = hostile(
        "echo ok >file && cat file; ln -s / link; mkfifo fifo;"
        " mkdir deep; echo x >../another-run/x; cp /bin/true . && ./true",
        directory,
    )
    assert said.startswith("ok\n")
    assert list(other.iterdir()) == []
    assert {path.name for path in directory.iterdir()} >= {"file", "qemu.stderr"}
    assert not {"link", "fifo", "deep"} & {path.name for path in directory.iterdir()}
    assert "./true: Permission denied" in said


@with_landlock
def test_no_network_of_the_host_is_reached(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = hostile(
            f"exec {sys.executable} -S -c 'import socket;"
            f' socket.create_connection(("127.0.0.1", {port}))\'',
            directory,
        )
    assert "Permission" in said or "not permitted" in said or "denied" in said


@with_landlock
@pytest.mark.skipif(confined.landlock_abi() < 6, reason="this kernel's Landlock is too old")
def test_no_other_process_is_reached_not_even_of_the_same_user(directory: Path) -> None:
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if is_root() else []
    other = subprocess.Popen(["setpriv", *user, "sleep", "60"])
    try:
        said = hostile(f"kill {other.pid}; cat /proc/{other.pid}/mem", directory)
        assert said.count("not permitted") + said.count("ermission denied") >= 2
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_files_it_writes_are_bounded_and_it_dumps_no_core(directory: Path) -> None:
    said = hostile("ulimit -f; ulimit -c; ulimit -H -f", directory)
    assert said.split() == [str(MOST_WRITTEN // 512), "0", str(MOST_WRITTEN // 512)]


# --- a real QEMU, as it runs -------------------------------------------------------------------


def test_rights_of_a_running_qemu(directory: Path) -> None:
    """Seen from outside, in the middle of a run."""
    seen: dict[str, str] = {}
    links: list[str] = []
    words: list[str] = []

    def look(_data: bytes) -> None:
        if seen:
            return
        (child,) = psutil.Process().children(recursive=True)
        proc = Path(f"/proc/{child.pid}")
        lines = (proc / "status").read_text().splitlines()
        seen.update((key, value) for key, _, value in (line.partition(":\t") for line in lines))
        links.extend(str(fd.readlink()) for fd in (proc / "fd").iterdir())
        words.extend(child.cmdline())

    computer = machine("x86_64")
    code = program("x86_64").say(b"running\n").reset()
    image = Guest(code).write(directory, computer)
    expected = Claim(computer, code.entry).expected
    run.run(Start(image, computer, expected, budget=Budget(), on_console=look), directory)

    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2")
    user = NOBODY if is_root() else os.geteuid()
    assert seen["Uid"].split() == [str(user)] * 4
    if is_root():
        assert seen["Gid"].split() == [str(NOBODY)] * 4
        assert seen["Groups"].strip() == ""
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(seen[kind], 16) == 0, kind

    # QMP and the gdbstub, each one end of a pair; nothing in the file system or on the network.
    assert sum(link.startswith("socket:") for link in links) == 2
    files = {link for link in links if link.startswith("/")}
    ours = {str(directory / "console.log"), str(directory / "qemu.stderr")}
    others = files - ours - {os.devnull, str(directory / "replay.bin")}
    assert {link for link in others if "memfd" not in link} == set()

    assert_words_that_confine(words)


def assert_words_that_confine(words: list[str]) -> None:
    sandbox = words[words.index("-sandbox") + 1]
    denied = {"obsolete=deny", "elevateprivileges=deny", "spawn=deny", "resourcecontrol=deny"}
    assert set(sandbox.split(",")) == {"on"} | denied
    assert {"-nodefaults", "-no-user-config"} <= set(words)
    backends = [value for option, value in pairwise(words) if option == "-netdev"]
    assert all(backend.startswith("hubport,") for backend in backends)
    for option in ("-nic", "-net", "-virtfs", "-fsdev", "-runas", "-monitor", "-qmp"):
        assert option not in words


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_guest_has_neither_network_nor_disk(arch: str, directory: Path) -> None:
    with live(Guest(program(arch).count()), machine(arch), directory) as running:
        kinds = set(re.findall(r"type=([a-z-]+)", running.hmp("info network")))
        assert kinds <= {"hubport", "filter-buffer"}  # joined to nothing: a timer, no network
        assert "model=" not in running.hmp("info network")
        assert running.hmp("info block") == ""


def test_sandbox_of_qemu_is_complete() -> None:
    assert SANDBOX == ("on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
    assert Budget().console_bytes == 16 * MIB
