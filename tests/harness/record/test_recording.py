"""Records of runs: kept by every run that is not in real time, changing nothing, read strictly."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.guest.stages import Stage
from bootproof.harness.observation import End, Observation
from bootproof.harness.qemu import argv
from bootproof.harness.qemu.argv import RunLog
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.record import recording, replaylog
from bootproof.harness.record.recording import Logged, Record
from bootproof.harness.record.replaylog import ReplayLog, ReplayLogError
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Placement
from tests.builders.guests import BUDGET, Claim, Guest, Program, boot, machine, program

ARCHES = ("x86_64", "aarch64")


def text_until(end: str, arch: str) -> Program:
    text = b"".join(b"line %d\r\n" % number for number in range(50))
    code: Program = getattr(program(arch).say(text), end)()
    return code


# --- what is recorded --------------------------------------------------------------------------


ENDS = [
    *((arch, end) for arch in ARCHES for end in ("reset", "halt", "wait", "spin", "count")),
    # QEMU before 9.0 ends at once, and can be asked nothing.
    *(("riscv64", end) for end in ("reset", "power_off")),
]


@pytest.mark.parametrize(("arch", "end"), ENDS)
def test_log_agrees_with_the_run(arch: str, end: str, tmp_path: Path) -> None:
    """However it ended: QEMU's count of instructions and the console's bytes are the log's."""
    outcome = boot(text_until(end, arch), tmp_path)
    log = replaylog.read(tmp_path / "replay.bin")
    assert log.instructions == outcome.costs.instructions
    assert log.console_bytes == len(outcome.observation.transcript) > 400
    assert log.failed_writes == 0


COUNTED = ReplayLog(1000, 50, 0, ())


@pytest.mark.parametrize(
    ("log", "executed", "room", "lost"),
    [
        (COUNTED, 1000, False, False),
        (COUNTED, 1001, False, True),  # of only a part of the run
        (COUNTED, 1001, True, False),
        (replace(COUNTED, failed_writes=1), 1000, True, True),
        (replace(COUNTED, instructions=0), None, False, False),
        (ReplayLogError("is cut off"), 1000, True, False),
        (ReplayLogError("is cut off"), 1000, False, True),
    ],
)
def test_what_the_host_may_not_have_taken(
    log: Logged, executed: int | None, room: bool, lost: bool, tmp_path: Path
) -> None:
    seen = Observation(b"text", End.GUEST_RESET, instructions=executed)
    path = tmp_path / "replay.bin"
    assert recording.console_lost(seen, log, path, room_was_set_aside=room) is lost
    path.touch()
    assert recording.console_lost(seen, log, path, room_was_set_aside=room) is lost
    os.truncate(path, replaylog.READ_LIMIT + 1)  # not read, for its length only
    expected = lost and not isinstance(log, ReplayLogError)
    assert recording.console_lost(seen, log, path, room_was_set_aside=room) is expected


def _without_log(
    options: Callable[[Machine, RunLog | None], tuple[str, ...]], machine: Machine, _log: RunLog
) -> tuple[str, ...]:
    return options(machine, None)


@pytest.mark.parametrize("probe", [True, False])
@pytest.mark.parametrize("arch", ARCHES)
def test_recording_changes_nothing(arch: str, probe: bool, tmp_path: Path) -> None:
    """The same transcript and count without a log; a second record is the same in both, too."""
    seen = []
    for number, recorded in enumerate((True, True, False)):
        with pytest.MonkeyPatch.context() as patch:
            if not recorded:
                patch.setattr(argv, "_determinism", partial(_without_log, argv._determinism))
            outcome = boot(text_until("reset", arch), tmp_path / str(number), probe=probe)
        assert (tmp_path / str(number) / "replay.bin").exists() == recorded
        seen.append((outcome.observation.transcript, outcome.costs.instructions))
    assert seen == [seen[0]] * 3


@pytest.mark.parametrize("arch", ARCHES)
def test_qemu_answers_while_the_guest_has_no_timer(arch: str, tmp_path: Path) -> None:
    """Each answer costs the guest's next stretch: it must be short, not 2^31 ns."""
    budget = replace(BUDGET, quiet_instructions=1)
    code = program(arch).count()
    image = Guest(code).write(tmp_path, machine(arch))
    outcome = run(
        Start(image, machine(arch), Claim(machine(arch), code.entry).expected, budget=budget),
        tmp_path,
    )
    assert outcome.costs.instructions is not None
    assert outcome.costs.instructions < 100_000_000


@pytest.mark.parametrize("arch", ARCHES)
def test_stages_in_exact_instructions(arch: str, tmp_path: Path) -> None:
    """Counted by hand: what the program executes between two bytes of its output."""
    code = program(arch).say(b"hello\n[    1.5] Linux version 6.1\n").halt()
    first, second = (boot(code, tmp_path / name).stages for name in "ab")
    assert first == second
    entry, output, banner = first
    assert (entry.name, output.name, banner.name) == ("entry", "first-output", "banner")
    assert (entry.guest_seconds, output.guest_seconds, banner.guest_seconds) == (None, None, 1.5)
    counts = [stage.instructions for stage in first]
    # x86: mov, mov, mov, cld, lodsb, out; then loop, lodsb, out for each byte.
    # aarch64: three constants in four instructions each, ldrb, str; then subs, b.ne, ldrb, str.
    start, each = (6, 3) if arch == "x86_64" else (14, 4)
    assert counts[0] is not None
    assert counts[1:] == [counts[0] + start, counts[0] + start + len("hello\n") * each]


def test_without_a_probe_the_entry_is_not_known(tmp_path: Path) -> None:
    outcome = boot(program("x86_64").say(b"x").halt(), tmp_path, probe=False)
    (stage,) = outcome.stages
    assert stage.name == "first-output"
    assert stage.instructions is not None


@pytest.mark.parametrize("change", [{"realtime": "asked for"}, {"cpus": 2}])
def test_what_qemu_cannot_record(change: dict[str, Any], tmp_path: Path) -> None:
    computer = replace(machine("aarch64"), **change)
    outcome = boot(program("aarch64").say(b"hello\n").reset(), tmp_path, on=computer)
    entry, output = outcome.stages
    assert (entry.name, output) == ("entry", Stage("first-output", None, None))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("replay")]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: b"\0\0\0\0" + data[4:],
        lambda data: b"\x00\xe0\x20\x0d" + data[4:],
        lambda data: data[:-1] + b"\0\0\0\0\1'",  # one instruction more
        lambda data: data[:-1] + b"\x16\0\0\0\1\0\0\0\1'",  # one byte more
    ],
)
def test_counts_of_a_log_that_does_not_agree_are_unknown(damage: Any, tmp_path: Path) -> None:
    outcome = boot(program("x86_64").say(b"x").reset(), tmp_path)
    seen, log = outcome.observation, tmp_path / "replay.bin"
    assert recording.stages(seen, recording.read_log(log, seen.transcript)) == outcome.stages
    log.write_bytes(damage(log.read_bytes()))
    entry, output = recording.stages(seen, recording.read_log(log, seen.transcript))
    assert (entry, output) == (outcome.stages[0], Stage("first-output", None, None))


@pytest.mark.parametrize(
    ("stderr", "log", "count"),
    [
        ("", ReplayLog(4711, 0, 0, ()), 4711),
        ("replay write error", ReplayLog(4711, 0, 0, ()), None),
        ("", ReplayLogError("is cut off"), None),
    ],
)
def test_instructions_of_a_qemu_that_nobody_could_ask(
    stderr: str, log: Logged, count: int | None
) -> None:
    seen = Observation(b"", End.QEMU_EXITED, exit_code=0, stderr=stderr)
    assert recording.counted(seen, log) == replace(seen, instructions=count)


def test_whoever_runs_on_after_its_power_off_has_no_count(tmp_path: Path) -> None:
    """QEMU stops it some instructions later, and each time others. Its stages are exact."""
    outcome = boot(text_until("power_off", "x86_64"), tmp_path)
    assert outcome.observation.end is End.GUEST_SHUTDOWN
    assert outcome.costs.instructions is None
    assert None not in [stage.instructions for stage in outcome.stages]


def test_qemu_that_dies_leaves_no_counts(tmp_path: Path) -> None:
    code = program("x86_64").say(b"this and more\n").count()
    outcome = boot(code, tmp_path, kill_at=b"this")
    assert outcome.stages[1:] == (Stage("first-output", None, None),)
    with pytest.raises(replaylog.ReplayLogError):
        replaylog.read(tmp_path / "replay.bin")


# --- replay.json -------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
def test_record_there_and_back(arch: str, tmp_path: Path) -> None:
    computer = machine(arch)
    record = Record(computer, Placement.MAPPED, 12345, 41)
    recording.save(record, tmp_path)
    found = recording.load(tmp_path)
    assert replace(found.machine, qemu=computer.qemu) == computer
    assert found.machine.qemu.version == computer.qemu.version
    assert (found.placement, found.instructions) == (Placement.MAPPED, 12345)
    assert found.entry == 41


def test_run_leaves_its_record(tmp_path: Path) -> None:
    outcome = boot(program("x86_64").say(b"x").reset(), tmp_path)
    found = recording.load(tmp_path)
    assert found.instructions == outcome.costs.instructions
    assert found.entry == outcome.stages[0].instructions
    assert (found.machine.board, found.machine.memory) == ("q35", 16 << 20)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("format", "x", '$.format: "x" is not one of bootproof record'),
        ("version", 2, "$.version: 0x2 is not known; this program replays 1"),
        ("version", True, "$.version: true or false is not known; this program replays 1"),
        ("icount_shift", 5, "$.icount_shift: 0x5 is not known; this program replays 3"),
        ("qemu", "7.2", '$.qemu: "7.2" is no version such as 7.2.22'),
        ("qemu", None, "$.qemu: null is no version such as 7.2.22"),
        ("arch", "sparc", '$.arch: "sparc" is not one of x86_64, aarch64'),
        ("board", "-S", '$.board: "-S" is not one of q35, pc, '),
        ("cpu", "a b", '$.cpu: "a b" is no CPU model'),
        ("cpu", "-S", '$.cpu: "-S" is no CPU model'),
        ("memory", 1, "$.memory: 0x1 is not from 0x100000 to 0x1000000000"),
        ("memory", 1048577, "$.memory: 0x100001 is not a whole number of MiB"),
        ("placement", "x", '$.placement: "x" is not one of devices, mapped'),
        ("instructions", -1, "$.instructions: -0x1 is not an unsigned 64-bit number"),
        ("argv", [], "$.argv: unknown key; known: format, version, qemu, arch, board, cpu"),
    ],
)
def test_record_from_a_stranger(key: str, value: object, reason: str, tmp_path: Path) -> None:
    recording.save(Record(machine("x86_64"), Placement.DEVICES, None), tmp_path)
    path = tmp_path / "replay.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError) as caught:
        recording.load(tmp_path)
    assert str(caught.value).startswith(f"{path}: {reason}")


def test_record_that_has_the_word_of_before(tmp_path: Path) -> None:
    recording.save(Record(machine("x86_64"), Placement.DEVICES, None), tmp_path)
    path = tmp_path / "replay.json"
    path.write_text(path.read_text().replace('"devices"', '"pieces"'))
    assert recording.load(tmp_path).placement is Placement.DEVICES


def test_no_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no record of this run"):
        recording.load(tmp_path)
    path = tmp_path / "replay.json"
    path.write_bytes(b"{" + b" " * (1 << 16))
    with pytest.raises(UserError, match="is larger than 64 KiB"):
        recording.load(tmp_path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(UserError, match="Too many levels of symbolic links"):
        recording.load(tmp_path)
    path.unlink()
    subprocess.run(["mkfifo", path], check=True)
    with pytest.raises(UserError, match="is not a regular file"):
        recording.load(tmp_path)
