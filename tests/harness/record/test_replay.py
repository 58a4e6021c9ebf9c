"""Records played back: the very same run again, whatever its end; and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bootproof.harness import cli, exitcode
from bootproof.harness.errors import UserError
from bootproof.harness.qemu.binary import find_qemu
from bootproof.harness.record import playback, replay
from bootproof.harness.record.playback import Recorded
from bootproof.harness.record.replay import Replayed, difference
from bootproof.harness.terms import Placement
from tests.builders.guests import boot, program

ARCHES = ("x86_64", "aarch64")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    boot(program("x86_64").say(b"one\ntwo\nthree\n").reset(), tmp_path / "run")
    return tmp_path / "run"


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("end", ["reset", "halt", "wait", "spin", "count"])
@pytest.mark.parametrize("arch", ARCHES)
def test_same_run_again(
    arch: str, end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a guest that the harness ended. Nothing of the run's directory is changed."""
    boot(getattr(program(arch).say(b"hello\n" * 30), end)(), tmp_path / "run")
    before = files(tmp_path / "run")
    assert replay.run(tmp_path / "run") == 0
    assert files(tmp_path / "run") == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"record    {tmp_path / 'run'}"
    assert lines[2].startswith("recorded  180 bytes of transcript, ")
    assert lines[3].removeprefix("replayed") == lines[2].removeprefix("recorded")
    assert lines[4].startswith("result    identical: ")
    assert psutil.Process().children(recursive=True) == []


@pytest.mark.parametrize("end", ["reset", "power_off"])
def test_a_guest_that_ends_qemu_itself(
    end: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """QEMU before 9.0 ends with a riscv64 guest's last instruction, and can be asked nothing."""
    boot(getattr(program("riscv64").say(b"hello\n" * 30), end)(), tmp_path / "run")
    assert replay.run(tmp_path / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[3].removeprefix("replayed") == lines[2].removeprefix("recorded")
    (tmp_path / "run" / "console.log").write_bytes(b"another\n")
    assert replay.run(tmp_path / "run") == 1


@pytest.mark.parametrize(("probe", "placement"), [(False, "devices"), (True, "mapped")])
@pytest.mark.parametrize("arch", ARCHES)
def test_however_it_was_started(arch: str, probe: bool, placement: str, tmp_path: Path) -> None:
    code = program(arch).say(b"hello\n").reset()
    boot(code, tmp_path / "run", probe=probe, placement=Placement(placement))
    assert replay.run(tmp_path / "run") == 0


def test_console_that_was_another_one(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recorded / "console.log").write_bytes(b"one\nt\x1bo\nthree\n")
    assert replay.run(recorded) == 1
    found = capsys.readouterr().out.splitlines()[-1]
    assert found == (r"result    different: line 2 of the transcript was 't\x1bo', now it is 'two'")


def test_ram_that_is_another_one(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another text: the log fits, the transcript does not."""
    with (recorded / "ram.img").open("r+b") as file:
        file.seek((2 << 20) + 0x10000)
        file.write(b"One")
    assert replay.run(recorded) == 1
    assert "line 1 of the transcript was 'one', now it is 'One'" in capsys.readouterr().out


def test_guest_that_does_not_follow_the_log(tmp_path: Path) -> None:
    """Another program: QEMU finds that out, or waits for ever. Both end, in one line."""
    boot(program("x86_64").say(b"hello\n").reset(), tmp_path / "run")
    code = program("x86_64").halt()
    with (tmp_path / "run" / "ram.img").open("r+b") as file:
        file.seek(code.entry)
        file.write(code.code)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playback, "_STILL_CPU_SECONDS", 0.5)
        patch.setattr(playback, "_STILL_LOOKS", 5)
        try:
            assert replay.run(tmp_path / "run") == 1
        except UserError as error:
            assert str(error).startswith("the replay failed: ")
            assert "\n" not in str(error)


def recorded_as(transcript: bytes, instructions: int, like: Path) -> Recorded:
    found = playback.open_recorded(like)
    return Recorded(
        *(like, found.image, found.home, found.record, found.machine, transcript, instructions)
    )


@pytest.mark.parametrize(
    ("now", "instructions", "sentence"),
    [
        (b"a\nb\n", 5, None),
        (b"a\nb\n", 6, "different: 5 instructions were recorded"),
        (b"a\nb", 5, "different: line 3 of the transcript was '', now it is missing"),
        (b"a\n", 5, "different: line 2 of the transcript was 'b', now it is ''"),
        (b"", 5, "different: line 1 of the transcript was 'a', now it is ''"),
        (b"a\r\nb\n", 5, "different: line 1 of the transcript was 'a', now it is 'a\\r'"),
        (b"a\nb\nc", 9, "different: line 3 of the transcript was '', now it is 'c'"),
    ],
)
def test_difference(now: bytes, instructions: int, sentence: str | None, recorded: Path) -> None:
    was = recorded_as(b"a\nb\n", 5, recorded)
    assert difference(was, Replayed(now, instructions)) == sentence


# --- what cannot be played back ----------------------------------------------------------------


def _cut(directory: Path) -> None:
    data = (directory / "replay.bin").read_bytes()
    (directory / "replay.bin").write_bytes(data[:-4])


def _unfinished(directory: Path) -> None:
    data = (directory / "replay.bin").read_bytes()
    (directory / "replay.bin").write_bytes(bytes(4) + data[4:])


def _changed(**fields: object) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "replay.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def _without(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_without("boot.json"), ": is not the directory of a run: no boot.json"),
        (_without("ram.img"), ": guest RAM was not kept (ram.img), and nothing can be replayed"),
        (
            _without("replay.json"),
            ": there is no record of this run (replay.json); result.json says why (not_recorded)",
        ),
        (_without("replay.bin"), "/replay.bin: cannot be opened: No such file or directory"),
        (_without("console.log"), "/console.log: No such file or directory"),
        (_cut, "/replay.bin: is cut off at offset 0x"),
        (_unfinished, "/replay.bin: is not complete: QEMU did not come to finish it"),
        (_changed(qemu="7.2.0"), ": was recorded with QEMU 7.2.0, but /"),
        (_changed(memory=32 << 20), ": the record is of a x86_64 machine with 0x2000000 bytes"),
        (_changed(version=9), "/replay.json: $.version: 0x9 is not known"),
    ],
)
def test_refused(damage: Callable[[Path], None], reason: str, recorded: Path) -> None:
    damage(recorded)
    with pytest.raises(UserError) as caught:
        playback.open_recorded(recorded)
    assert str(caught.value).startswith(f"{recorded}{reason}")
    assert "\n" not in str(caught.value)


def test_no_run_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: No such file or directory"):
        playback.open_recorded(tmp_path / "none")
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(UserError, match="is not the directory of a run"):
            playback.open_recorded(path)


def test_another_qemu_is_named(recorded: Path) -> None:
    _changed(qemu="10.0.2")(recorded)
    with pytest.raises(UserError) as caught:
        playback.open_recorded(recorded)
    assert "was recorded with QEMU 10.0.2, but " in str(caught.value)
    assert "name one with --qemu NAME=PATH, as for the run" in str(caught.value)


@pytest.mark.parametrize("command", ["replay", "profile", "pack"])
def test_the_qemu_of_the_run_is_named_as_for_the_run(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = find_qemu("x86_64").path
    boot(program("x86_64").say(b"one\n").reset(), tmp_path / "run")
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "none")
    out = {"replay": [], "profile": [f"--out={tmp_path}"], "pack": [f"--out={tmp_path}/r.tar.zst"]}
    words = [command, str(tmp_path / "run"), *out[command]]
    assert cli.main(words) == exitcode.USAGE
    assert "is switched off by BOOTPROOF_QEMU_X86_64=none" in capsys.readouterr().err
    assert cli.main([*words, "--qemu", own]) == exitcode.USAGE
    assert "is no NAME=PATH" in capsys.readouterr().err
    assert cli.main([*words, "--qemu", f"mine={own}"]) == 0
    if command == "pack":
        assert capsys.readouterr().out.endswith(f"--qemu mine={own}\n")


def test_a_run_is_profiled_as_it_was(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["profile", str(recorded), "--memory", "1G"]) == exitcode.USAGE
    says = "--memory: for a kernel, which is booted first; a run is as it was\n"
    assert capsys.readouterr().err == f"bootproof: {says}"
