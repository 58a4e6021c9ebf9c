"""The run directory between us and a QEMU that somebody has taken over."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.host import files, rundir
from bootproof.harness.host.files import (
    NOBODY,
    file_for_qemu,
    give_to_qemu,
    given_to_qemu,
    read_from_qemu,
    take_back,
    write_whole,
)
from bootproof.harness.host.process import QemuProcess
from bootproof.harness.observation import End
from bootproof.harness.qemu.binary import QemuBinary
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests.builders.guests import Claim, Guest, machine, program

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="QEMU runs as another user only for root")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that any user may read."""
    path = Path(tempfile.mkdtemp(prefix="bootproof-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def owners(directory: Path) -> dict[str, int]:
    return {path.name: path.lstat().st_uid for path in (directory, *directory.iterdir())}


@as_root
def test_it_is_qemus_while_lent_and_ours_again_afterwards(directory: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    (directory / "inside").write_text("")
    (directory / "link").symlink_to(outside)
    directory.chmod(0o755)
    with given_to_qemu(directory):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert owners(directory) == {"run": NOBODY, "inside": 0, "link": 0}
        assert outside.stat().st_uid == outside.stat().st_gid == 0
    assert set(owners(directory).values()) == {0}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@as_root
def test_qemu_reads_what_we_made_and_cannot_change_it(directory: Path) -> None:
    (directory / "devices").mkdir(mode=0o700)
    for name in ("stub0.bin", "devices/kernel.bin"):
        (directory / name).write_text("ours")
        (directory / name).chmod(0o600)
    script = (
        "cat stub0.bin devices/kernel.bin >&2; echo evil >>stub0.bin; echo >devices/new; id -un"
    )
    with given_to_qemu(directory), QemuProcess(["sh", "-c", script], directory) as child:
        child.wait(30)
        said = child.stderr()
    assert said.startswith("oursours")
    assert said.count("Permission denied") == 2
    assert (directory / "stub0.bin").read_text() == "ours"
    assert os.listdir(directory / "devices") == ["kernel.bin"]  # noqa: PTH208


@as_root
def test_what_was_planted_is_removed_and_what_was_written_is_kept(
    directory: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    script = (
        f"ln -s {secret} result.json; ln -s {tmp_path} devices; mkfifo transcript.log;"
        " mkdir -p deep/er; ln -s / deep/er/root; echo record >record.bin"
    )
    with given_to_qemu(directory), QemuProcess(["sh", "-c", script], directory) as child:
        assert child.wait(30) == 0
    assert owners(directory) == {"run": 0, "record.bin": 0, "qemu.stderr": 0}
    assert secret.read_text() == "secret"
    assert secret.stat().st_uid == 0


@as_root
def test_hard_link_is_never_given_away(directory: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    precious.chmod(0o600)
    os.link(precious, directory / "stub0.bin")
    give_to_qemu(directory)
    assert (precious.stat().st_gid, stat.S_IMODE(precious.stat().st_mode)) == (0, 0o600)
    take_back(directory)
    assert precious.stat().st_uid == 0


@as_root
def test_run_that_was_cut_short_is_taken_back_first(directory: Path, tmp_path: Path) -> None:
    (directory / "boot.json").write_text("{}")
    give_to_qemu(directory)
    (directory / "boot.json.part").symlink_to(tmp_path / "anything")
    os.chown(directory / "boot.json.part", NOBODY, NOBODY, follow_symlinks=False)
    rundir.make_fresh(directory)
    assert owners(directory) == {"run": 0}


# --- a QEMU that was taken over ----------------------------------------------------------------

TAKEN_OVER = """\
#!/bin/sh
# A QEMU that does what it likes with its run directory, and is a good QEMU otherwise.
for name in result.json transcript.log qemu.sh qemu.stderr boot.json ram.img console.log; do
    rm -f "$name"
    ln -s "{victim}" "$name"
done
{more}
exec {qemu} "$@"
"""


@as_root
@pytest.mark.parametrize("more", ["", "mkdir result.json.part", "rm qemu.sh; mkfifo qemu.sh"])
def test_no_link_of_a_taken_over_qemu_is_followed(
    more: str, directory: Path, public: Path, tmp_path: Path
) -> None:
    """Were one, root would have written the guest's words over the victim, or read it out."""
    victim = tmp_path / "victim"
    victim.write_text("root's own")
    computer = machine("x86_64")
    hostile = public / "qemu"
    hostile.write_text(TAKEN_OVER.format(victim=victim, qemu=computer.qemu.path, more=more))
    hostile.chmod(0o755)
    computer = replace(computer, qemu=QemuBinary(str(hostile), computer.qemu.version))
    code = program("x86_64").say(b"from the guest\n").reset()
    image = Guest(code).write(directory, computer)
    claim = Claim(computer, code.entry)
    outcome = run(Start(image, computer, claim.expected, budget=Budget()), directory)
    rundir.write_result(directory, {"verdict": outcome.judgement.verdict.value})
    assert victim.read_text() == "root's own"
    assert victim.stat().st_uid == 0
    assert "root's own" not in outcome.observation.stderr
    assert b"root's own" not in outcome.observation.transcript
    for path in directory.iterdir():
        assert path.is_file() and not path.is_symlink(), path.name
    # Its console went to a file that is not there any more: nothing was said, nothing is claimed.
    assert outcome.judgement.verdict in (Verdict.CPU_RESET, Verdict.QEMU_FAILED)
    assert "/qemu" in (directory / "qemu.sh").read_text()
    subprocess.run(["sh", "-n", directory / "qemu.sh"], check=True)


@as_root
def test_script_for_the_shell_is_ours_whatever_qemu_wrote(directory: Path, public: Path) -> None:
    computer = machine("x86_64")
    hostile = public / "qemu"
    hostile.write_text(
        "#!/bin/sh\nrm -f qemu.sh; echo 'touch /pwned' >qemu.sh; chmod 755 qemu.sh\n"
        f'exec {computer.qemu.path} "$@"\n'
    )
    hostile.chmod(0o755)
    computer = replace(computer, qemu=QemuBinary(str(hostile), computer.qemu.version))
    code = program("x86_64").reset()
    image = Guest(code).write(directory, computer)
    expected = Claim(computer, code.entry).expected
    run(Start(image, computer, expected, budget=Budget()), directory)
    assert "pwned" not in (directory / "qemu.sh").read_text()
    assert (directory / "qemu.sh").stat().st_uid == 0


# --- files -------------------------------------------------------------------------------------


def test_file_is_written_in_place_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("mine")
    for name in ("result.json", ".bootproof-result.json.part"):
        (tmp_path / name).symlink_to(tmp_path / "outside")
    write_whole(tmp_path / "result.json", b"new")
    assert (tmp_path / "outside").read_text() == "mine"
    assert (tmp_path / "result.json").read_bytes() == b"new"
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "result.json"}


def test_console_has_its_room_from_the_start(directory: Path) -> None:
    fd = file_for_qemu(directory / "console.log", 16 * MIB)
    try:
        assert os.fstat(fd).st_size == 0
        assert os.fstat(fd).st_blocks * 512 >= 16 * MIB
    finally:
        os.close(fd)


def test_room_that_was_set_aside_is_given_back(directory: Path) -> None:
    code = program("x86_64").say(b"little\n").reset()
    image = Guest(code).write(directory, machine("x86_64"))
    expected = Claim(machine("x86_64"), code.entry).expected
    outcome = run(Start(image, machine("x86_64"), expected, budget=Budget()), directory)
    assert outcome.observation.end is End.GUEST_RESET
    found = (directory / "console.log").stat()
    assert found.st_size == 7
    assert found.st_blocks * 512 < MIB


def test_file_that_qemu_did_not_write_is_not_read(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.write_bytes(b"12345678")
    link = tmp_path / "peek.bin"
    link.symlink_to(ours)
    with pytest.raises(UserError, match=r"peek.bin: Too many levels of symbolic links"):
        read_from_qemu(link, 8)
    link.unlink()
    os.mkfifo(link)
    with pytest.raises(UserError, match=r"peek.bin: is not a regular file"):
        read_from_qemu(link, 8)
    with pytest.raises(UserError, match="is not what QEMU was asked to write"):
        read_from_qemu(ours, 7)
    if files.is_root():
        with pytest.raises(UserError, match="is not what QEMU was asked to write"):
            read_from_qemu(ours, 8)
        os.chown(ours, NOBODY, NOBODY)
    assert read_from_qemu(ours, 8) == b"12345678"


# --- what a user names ---------------------------------------------------------------------------


def test_what_a_user_names_is_read_within_bounds(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    (tmp_path / "link").symlink_to(file)
    assert files.read_given(tmp_path / "link", 5) == b"12345"
    with pytest.raises(UserError, match="has 5 bytes, and more than 4 bytes are not read"):
        files.read_given(file, 4)
    os.truncate(file, 6 << 30)
    with pytest.raises(UserError, match=r"more than 1 MiB are not read \(--initrd\)"):
        files.read_given(file, 1 << 20, "--initrd")


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "gone", "nul"])
def test_what_is_no_file_is_refused_without_waiting(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "nul":
        path = tmp_path / "a\0b"
    with pytest.raises(UserError):
        files.read_given(path, 100)
