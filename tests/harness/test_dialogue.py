"""Dialogues with guests of a few instructions, and that nothing stays whatever happens meanwhile.

With kernels and a shell: scenarios/test_dialogue.py.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import psutil
import pytest

from bootproof.harness.case import Case
from bootproof.harness.dialogue import Dialogue, DialogueError, dialogue
from bootproof.harness.errors import UserError
from bootproof.harness.host.rundir import RUN_LOG
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests import ROOT
from tests.builders import images
from tests.builders.guests import TEXT_DISTANCE, X86Program
from tests.harness.test_left_behind import descriptors

ENTRY = 16 * MIB
Talk = Callable[[X86Program], AbstractContextManager[Dialogue]]


def guest() -> X86Program:
    return X86Program(ENTRY)


def vmlinux(code: X86Program) -> bytes:
    text = images.load(ENTRY + TEXT_DISTANCE, bytes(code.text) + images.LINUX)
    return images.elf(images.load(ENTRY, bytes(code.code).ljust(0x1000, b"\x90")), text)


@pytest.fixture
def talk(offline: None, tmp_path: Path) -> Talk:
    def start(code: X86Program) -> AbstractContextManager[Dialogue]:
        path = tmp_path / "vmlinux"
        path.write_bytes(vmlinux(code))
        case = Case("x86_64", str(path), "elf", "linux64", memory=32 * MIB)
        return dialogue(case, tmp_path / "run", {})

    return start


def test_what_is_said_is_heard_and_marked_as_not_repeatable(talk: Talk, tmp_path: Path) -> None:
    with talk(guest().say(b"boot: ").echo()) as running:
        running.expect("boot: ", 30)
        running.send("a\x01c", 30)  # of a terminal's QEMU the second would be the escape
        running.send("linux (7) äöü\n", 30)
        assert running.expect(r"\((\d+)\) (\w+)\n", 30).groups() == ("7", "äöü")
        assert running.before == "a\x01clinux "
        assert running.console == "boot: a\x01clinux (7) äöü\n"
        proven = running.end()
    assert proven.verdict is Verdict.INCONCLUSIVE
    assert proven.reason.startswith("nobody talked to the guest any longer, after ")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["machine"]["deterministic"], result["machine"]["realtime"]) == (
        False,
        "dialogue",
    )
    assert (result["key"]["console"], result["key"]["icount_shift"]) == ("dialogue", None)
    assert result["not_recorded"] == "runs in real time"
    assert not (tmp_path / "run" / RUN_LOG).exists()


def test_what_is_not_seen_in_time(talk: Talk) -> None:
    with talk(guest().say(b"one\ntwo\n").echo()) as running:
        running.expect("two", 30)
        with pytest.raises(DialogueError) as nothing:
            running.expect("thr.e", 0.3)
        with pytest.raises(DialogueError) as earlier:
            running.expect("on[e]", 0.1)
        running.send("three", 30)
        running.expect("three", 30)
    said = "; the guest said last:\n| one\n| two"
    assert str(nothing.value) == f"expect: 'thr.e' was not seen in 0.3 s{said}"
    wanted = "expect: 'on[e]' was not seen in 0.1 s; it was said before the last match"
    assert str(earlier.value) == f"{wanted}{said}"


def test_a_guest_that_waits_by_looking_is_waited_for(talk: Talk) -> None:
    """It loops in place, and is not stuck: a word would make it go on."""
    with talk(guest().echo()) as running:
        with pytest.raises(DialogueError, match="was not seen in 2 s; it said nothing"):
            running.expect("x", 2)
        running.send("x", 30)
        running.expect("x", 30)


def test_a_guest_that_has_ended(talk: Talk) -> None:
    with talk(guest().say(b"bye\n").reset()) as running:
        with pytest.raises(DialogueError, match=r"^expect: 'login' was not seen before the guest "):
            running.expect("login", 60)
        assert running.wait(0).verdict is running.end().verdict is Verdict.CPU_RESET
        with pytest.raises(DialogueError) as deaf:
            running.send("hello\n", 1)
    assert re.fullmatch(
        r"send: 'hello\\n' cannot be said: the guest ended: cpu-reset: the CPU was reset.*"
        r"; the guest said last:\n\| bye",
        str(deaf.value),
    )


def test_a_guest_that_takes_no_more(talk: Talk) -> None:
    with talk(guest().say(b"busy\n").spin()) as running:
        running.expect("busy", 30)
        with pytest.raises(
            DialogueError, match=r"^send: the guest has not taken .* of 200,000 byte"
        ):
            running.send("x" * 200_000, 0.3)
        with pytest.raises(DialogueError, match=r"^wait: the guest has not ended in 0.1 s"):
            running.wait(0.1)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("(", "is no regular expression: missing )"), (b"x", "is no text"), (7, "is no regular expr")],
)
def test_no_regular_expression(pattern: str, said: str, talk: Talk) -> None:
    with talk(guest().echo()) as running, pytest.raises(UserError, match=re.escape(said)):
        running.expect(pattern, 1)


def channels() -> set[str]:
    return {each for each in descriptors() if re.search("pipe|socket", each)}


def test_nothing_stays_of_a_dialogue_that_breaks_off(talk: Talk) -> None:
    before, threads = channels(), threading.active_count()
    with pytest.raises(KeyboardInterrupt), talk(guest().echo()) as running:
        running.send("x", 30)
        running.expect("x", 30)
        assert channels() != before
        raise KeyboardInterrupt
    assert psutil.Process().children(recursive=True) == []
    assert (channels(), threading.active_count()) == (before, threads)


SUITE = """
import os, signal
import psutil
"""
TEST = """
def test_{name}(start_guest):
    assert psutil.Process().children(recursive=True) == []
    guest = start_guest({kernel!r}, format="elf", protocol="linux64", memory="32M")
    guest.sendline("hello")
    guest.expect("hell(o)")
    (qemu,) = psutil.Process().children(recursive=True)
    open("{name}.pid", "w").write(str(qemu.pid))
    {body}
"""
ENDS = {  # what a test does in the end, and whether it fails
    "waits": ("assert guest.expect('login:', 0.2)", True),
    "errs": ("assert guest.expect('(')", True),
    "ends": ("assert guest.end().not_recorded == 'runs in real time'", False),
    "leaves": ("pass", False),
}


def suite(directory: Path, bodies: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """A suite with a test of each of these, run by pytest; all of their guests have ended."""
    kernel = directory / "vmlinux"
    kernel.write_bytes(vmlinux(guest().echo()))
    tests = (TEST.format(name=name, kernel=str(kernel), body=body) for name, body in bodies.items())
    (directory / "test_it.py").write_text(SUITE + "".join(tests))
    words = ["-q", "-p", "bootproof.harness.fixtures", "-p", "no:cacheprovider", "--basetemp=tmp"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "test_it.py"],
        cwd=directory,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin:/usr/sbin"},
        capture_output=True,
        text=True,
        check=False,
    )
    for pid in directory.glob("*.pid"):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(int(pid.read_text())).wait(30)
    return done


def test_nothing_stays_whatever_a_test_does(tmp_path: Path) -> None:
    done = suite(tmp_path, {name: body for name, (body, _) in ENDS.items()})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "\n2 failed, 2 passed in " in done.stdout
    for name, (_, fails) in ENDS.items():
        assert (f"\nFAILED test_it.py::test_{name} " in done.stdout) == fails
    said = r"expect: 'login:' was not seen in 0.2 s; the guest said last:\nE +\| hello\n"
    assert re.search(said, done.stdout) and ".py:" not in done.stdout.replace("test_it.py", "")
    assert "bootproof: expect: '(' is no regular expression" in done.stdout


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 2), ("SIGKILL", -signal.SIGKILL)])
def test_nothing_stays_whatever_ends_a_test(name: str, code: int, tmp_path: Path) -> None:
    done = suite(tmp_path, {"it": f"os.kill(os.getpid(), signal.{name})"})
    assert done.returncode == code, done.stdout + done.stderr
