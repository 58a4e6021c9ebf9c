"""What a guest says costs what its length is worth: twice the text, twice the time.

Texts that no kernel would say, made of what the patterns look for. The bounds are generous: a
pattern that goes over a text again for each of its lines is off by orders of magnitude.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest

from bootproof.harness.compare import differences
from bootproof.harness.expected import ExpectedHandover
from bootproof.harness.guest import (
    aftermath,
    complaints,
    evidence,
    initrd_log,
    kernellog,
    memory_map,
    stages,
)
from bootproof.harness.guest.lockup import LockupReports
from bootproof.harness.judge import judge
from bootproof.harness.observation import End, Observation
from bootproof.harness.qemu.console import timestamped
from bootproof.harness.results import results
from bootproof.loader.address import MIB
from tests.builders.guests import Claim, machine

SMALL: Final = 1 << 14
X86: Final = Claim(machine("x86_64", memory=16 * MIB), 2 * MIB)


def lockups(text: bytes) -> None:
    reports = LockupReports()
    for end in range(0, len(text), 1 << 14):
        reports.lasting(text[:end])


READERS: Final[dict[str, Callable[[bytes], object]]] = {
    "evidence": evidence.parse,
    "proof": evidence.proof_end,
    "panic": kernellog.panic,
    "oops": kernellog.oops,
    "consoles": kernellog.consoles,
    "unheard": kernellog.unheard,
    "command line": kernellog.command_line,
    "end": kernellog.orderly_end,
    "init": kernellog.init_failure,
    "until": lambda text: kernellog.find(text, b"login:"),
    "complaints": complaints.find,
    "lockups": lockups,
    "stages": stages.marks,
    "initrd": lambda text: initrd_log.explanation("No working init found", text),
    "aftermath": lambda text: aftermath.after("/init", text),
    "map": memory_map.logged,
    "transcript": results.transcript,
    "times": lambda text: timestamped(text, [(0.0, 0)]),
    "log": lambda text: list(differences._log(text, b"")),
}
TEXTS: Final = (
    *(b"[0.0] a", b"[0.0] ", b"[ ", b"[0.0][T1] ", b"\n", b"\r", b"a", b" ", b"1", b"\x1b[0m"),
    *(b"bootproof: ", b"bootproof: 1 00000000 a b\n", b"bootproof: k1 x\n", b"bootproof: proof "),
    *(b"Run /", b"Run /a ", b"[0.0] Run /", b"[0.0] BUG: ", b"BUG: \n", b"a: 0000 [#1]\n"),
    *(b"[0.0] Kernel panic - not syncing: ", b"Kernel panic - not syncing: \n", b"pc : a"),
    *(b"Kernel command line: ", b"[0.0] Kernel command line: ", b"ommand line: ", b"\\\n"),
    *(b"[0.0] Call Trace:\n", b"[0.0]  panic+0x1/0x1\n", b"reboot: Restarting system\n"),
    *(b"[0.0] initrd ", b"[0.0] INFO: task ", b"[0.0] Starting init: ", b"l\x1b[", b"RIP: 0010:"),
    *(b"[0.0] watchdog: BUG: soft lockup \n", b"Memory: 1K/1K available (", b"\xc2", b"\x85"),
    *(b"BIOS-e820: [mem 0x0000000000000000-0x0000000000000001] ", b"[0.0] console [a] enabled"),
)


def seconds(read: Callable[[bytes], object], text: bytes) -> float:
    began = time.process_time()
    read(text)
    return time.process_time() - began


@pytest.mark.parametrize("name", READERS)
def test_twice_the_text_takes_twice_the_time(name: str) -> None:
    read = READERS[name]
    for text in TEXTS:
        little, much = text * (SMALL // len(text)), text * (4 * SMALL // len(text))
        most = 12 * max(seconds(read, little), 0.01)  # four times, and what else the host does
        if seconds(read, much) > most:
            assert min(seconds(read, much) for _ in range(3)) < most, text


@pytest.mark.parametrize(
    "text", [b"\n", b"\x1b", b"a\n", b"[0.0] a", b"BUG: \n", b"bootproof: k x\n"]
)
def test_memory_of_a_judgement_is_bounded(text: bytes) -> None:
    said = text * (MIB // 16 // len(text))
    observation = Observation(said, End.GUEST_RESET, log=said)
    works: tuple[Callable[[], object], ...] = (
        lambda: judge(X86.expected, observation),
        lambda: judge(ExpectedHandover(0x1000, b"login:"), observation),
        lambda: results.transcript(said),
        lambda: timestamped(said, [(0.0, 0)]),
    )
    for work in works:
        tracemalloc.start()
        work()
        assert tracemalloc.get_traced_memory()[1] < 25 * MIB // 2
        tracemalloc.stop()


def test_what_is_quoted_of_a_guest_is_short() -> None:
    for text in TEXTS:
        for begin in (text, b"[0.0] " + text):
            judgement = judge(
                X86.expected, Observation(begin * (MIB // 16 // len(begin)), End.PARKED)
            )
            assert len(judgement.reason) < 20_000, text
            assert len(judgement.complaints) <= complaints.MOST
