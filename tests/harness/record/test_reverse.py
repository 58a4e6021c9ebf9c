"""Going back from where a run failed to the instruction that caused it, on real QEMU."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.qemu import watchdog
from bootproof.harness.qemu.gdbstub import GdbStub
from bootproof.harness.record import playback, qcow2, reverse
from bootproof.harness.record.playback import Playback
from bootproof.loader.address import GIB, MIB
from tests.builders.guests import (
    Arm64Program,
    Program,
    RiscvProgram,
    X86Program,
    boot,
    machine,
    program,
)
from tests.builders.programs import host_program

PANIC = b"[    1.5] Kernel panic - not syncing: as a test\n"


def fatal(arch: str) -> tuple[Program, int, int]:
    """A program that prints two texts and resets the machine.

    Also where printing the second begins, and where its last instruction lies.
    """
    code = X86Program(2 * MIB) if arch == "x86_64" else Arm64Program(GIB + 2 * MIB)
    second = code.entry + len(code.say(b"hello\n").code)
    code.say(PANIC).reset()
    return code, second, code.entry + len(code.code) - (1 if arch == "x86_64" else 4)


@contextmanager
def debugged(directory: Path, asked: int | None) -> Iterator[tuple[Playback, GdbStub]]:
    """The playback of a run, stopped, with our own debugger attached over a socket of its own."""
    recorded = playback.open_recorded(directory)
    stop = reverse.stop_at(recorded, asked)
    with (
        reverse.listening("") as (listener, address),
        reverse.opened(recorded, stop, listener) as running,
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(address)
        yield running, GdbStub(client, running.monitor.wait)


@pytest.mark.parametrize("asked", [None, "all"])
def test_a_guest_that_ends_qemu_is_stopped_before_that(asked: str | None, tmp_path: Path) -> None:
    """QEMU before 9.0 ends with a riscv64 guest's last instruction, and can be asked nothing."""
    boot(RiscvProgram(2 * GIB + 2 * MIB).say(b"hello\n").power_off(), tmp_path)
    length = playback.open_recorded(tmp_path).instructions
    with debugged(tmp_path, length if asked else None) as (running, _):
        assert running.instructions == length - 1


def place(running: Playback) -> int:
    arch = (
        "x86_64" if "RIP" in (dump := running.monitor.registers()) or "EIP" in dump else "aarch64"
    )
    found = machine(arch).arch.dump.program_counter(dump)
    assert found is not None
    return found


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_back_from_the_end_to_what_ended_it(arch: str, tmp_path: Path) -> None:
    """From the reset one step back: the triple fault's int3, or the call of the firmware."""
    code, _, last = fatal(arch)
    boot(code, tmp_path / "run")
    end = playback.open_recorded(tmp_path / "run").instructions
    with debugged(tmp_path / "run", end) as (running, gdb):
        # x86 counts no instruction that faults: at the end it is still there.
        before = end if place(running) == last else end - 1
        for expected in (before, before - 1, before - 2):
            if running.instructions != expected:
                gdb.step_back()
            assert running.instructions == expected
            if expected == before:
                assert place(running) == last


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_back_to_a_breakpoint(arch: str, tmp_path: Path) -> None:
    code, second, _ = fatal(arch)
    boot(code, tmp_path / "run")
    end = playback.open_recorded(tmp_path / "run").instructions
    with debugged(tmp_path / "run", end) as (running, gdb):
        gdb.break_at(second)
        gdb.continue_back()
        assert place(running) == second
        assert running.transcript().startswith(b"hello\n")


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_stops_where_the_kernel_panics(arch: str, tmp_path: Path) -> None:
    """At the first byte of the panic's own words: what was printed before is there."""
    code, _, _ = fatal(arch)
    boot(code, tmp_path / "run")
    with debugged(tmp_path / "run", None) as (running, _gdb):
        assert running.transcript() == b"hello\n" + PANIC[: PANIC.index(b"K") + 1]


def test_stop_that_is_asked_for(tmp_path: Path) -> None:
    code, _, _ = fatal("x86_64")
    boot(code, tmp_path / "run")
    recorded = playback.open_recorded(tmp_path / "run")
    assert reverse.stop_at(recorded, 60).instructions == 60
    with pytest.raises(UserError, match="--at: 1,000,000 instructions, but the run has "):
        reverse.stop_at(recorded, 1_000_000)
    with debugged(tmp_path / "run", 60) as (running, gdb):
        assert running.instructions == 60
        gdb.step_back()
        assert running.instructions == 59


def test_gdb_itself(tmp_path: Path) -> None:
    """The printed command, given to a shell; Ctrl-C ends it and leaves nothing."""
    host_program("gdb-multiarch")
    code, _, last = fatal("aarch64")
    boot(code, tmp_path / "run")
    end = playback.open_recorded(tmp_path / "run").instructions
    command = [
        sys.executable,
        "-m",
        "bootproof.harness.cli",
        "replay",
        str(tmp_path / "run"),
        "--gdb",
    ]
    with subprocess.Popen(
        [*command, "--at", str(end)], stdout=subprocess.PIPE, text=True, process_group=0
    ) as serving:
        assert serving.stdout is not None
        lines = {}
        for line in iter(serving.stdout.readline, ""):
            key, _, words = line.strip().partition(" ")
            lines[key] = words.strip()
            if key == "end":
                break
        commands = " -ex ".join(["", "reverse-stepi", "'info registers pc'", "detach"])
        done = subprocess.run(
            f"{lines['attach']} -batch{commands}",
            shell=True,
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        assert f"{last:#x}" in done.stdout
        children = psutil.Process(serving.pid).children(recursive=True)
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) in (0, 130)
    assert psutil.wait_procs(children, timeout=10)[1] == []
    socket_path = Path(lines["attach"].rpartition("target remote ")[2].rstrip("'"))
    assert not socket_path.parent.exists()


@pytest.mark.parametrize("end", ["kill", "detach"])
def test_a_debugger_may_end_it(end: str, tmp_path: Path) -> None:
    """By killing the guest; a guest that it leaves runs to its end. Neither is a failure."""
    host_program("gdb-multiarch")
    code, _, _ = fatal("x86_64")
    boot(code, tmp_path / "run")
    words = ["-m", "bootproof.harness.cli", "replay", str(tmp_path / "run"), "--gdb", "--at", "60"]
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None and serving.stderr is not None
        attach = ""
        while not attach:
            attach = serving.stdout.readline().partition("attach")[2].strip()
        command = f"{attach} -batch -ex {end}"
        # A gdb that kills may find the connection closed first, and calls that an error.
        check = end == "detach"
        subprocess.run(command, shell=True, capture_output=True, timeout=100, check=check)
        with contextlib.suppress(subprocess.TimeoutExpired):
            serving.wait(10 if end == "kill" else 3)
        serving.send_signal(signal.SIGINT)  # where it still serves
        assert (serving.wait(60), serving.stderr.read()) == (0, "")
        assert ("ended     by the debugger" in serving.stdout.read()) or end == "detach"


def test_a_debugger_may_take_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also to attach, at the end of a run: QEMU may say there that it is told to end, and waits."""
    boot(program("x86_64").say(b"hello\n").reset(), tmp_path / "run")
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(reverse, "_POLL", 0.01)
    recorded = playback.open_recorded(tmp_path / "run")
    with (
        reverse.listening("") as (listener, _),
        reverse.opened(recorded, reverse.stop_at(recorded, None), listener) as running,
    ):
        running.monitor.told_to_end = True  # a race inside of QEMU
        ending = threading.Timer(0.5, os.kill, (running.process.pid, signal.SIGTERM))
        ending.start()
        reverse._serve(running)
        ending.join()
    assert capsys.readouterr().out == "ended     by the debugger\n"


# --- sockets and files -------------------------------------------------------------------------


def test_sockets(tmp_path: Path) -> None:
    with reverse.listening("") as (_, address):
        assert Path(address).is_socket()
        assert Path(address).stat().st_mode & 0o077 == 0
        assert Path(address).parent.stat().st_mode & 0o077 == 0
    assert not Path(address).parent.exists()
    with reverse.listening(str(tmp_path / "here")) as (_, address):
        assert address == str(tmp_path / "here")
    assert list(tmp_path.iterdir()) == []
    with reverse.listening("0") as (listener, address):
        assert address == f"127.0.0.1:{listener.getsockname()[1]}"
        taken = address.rpartition(":")[2]
        refused = pytest.raises(UserError, match=f"--gdb: port {taken} on ")
        with refused, reverse.listening(taken):
            pass


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("70000", "--gdb: port 70000 on 127.0.0.1: "),
        ("x" * 108, "longer than 107 bytes"),
        ("/none/such", "/none/such: No such file or directory"),
        ("/etc/passwd", "--gdb: /etc/passwd: is there already; name a socket that is to be made"),
    ],
)
def test_sockets_that_cannot_be_made(where: str, reason: str) -> None:
    with pytest.raises(UserError) as caught, reverse.listening(where):
        pass
    assert reason in str(caught.value)


def test_empty_qcow2_is_one(tmp_path: Path) -> None:
    """QEMU's own tool finds nothing wrong with it, where there is one; the tests above use it."""
    path = tmp_path / "empty.qcow2"
    path.write_bytes(qcow2.empty())
    assert path.stat().st_size == 4 << 16
    assert path.read_bytes()[:8] == b"QFI\xfb\0\0\0\x03"
