"""Packed runs: the same file each time, replayed from it; and packs that are not what they seem."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import zstandard

from bootproof.harness.errors import UserError
from bootproof.harness.record import pack, replay
from bootproof.loader.errors import LoaderError
from tests.builders.guests import Guest, boot, program

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recorded") / "run"
    code = program("x86_64").say(b"hello\n").reset()
    boot(Guest(code, extra={0x800000: b"more" * 99}), directory)
    return directory


@pytest.fixture
def packed(recorded: Path, tmp_path: Path) -> Path:
    pack.pack(recorded, tmp_path / "run.tar.zst")
    return tmp_path / "run.tar.zst"


def members(packed: Path) -> Members:
    """What the archive holds, as Python's own tarfile reads it."""
    raw = zstandard.ZstdDecompressor().stream_reader(packed.read_bytes())
    with tarfile.open(fileobj=raw, mode="r|") as archive:
        return [(info, _content(archive, info)) for info in archive]


def _content(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(info)
    return file.read() if file else b""


def rewritten(packed: Path, content: Iterable[tuple[tarfile.TarInfo, bytes]]) -> Path:
    data = b""
    for info, body in content:
        data += info.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    packed.write_bytes(zstandard.ZstdCompressor().compress(data + bytes(1024)))
    return packed


def member(name: str, body: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(body)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, body


def test_replayed_from_the_pack(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pack.run_directory(packed) as directory:
        assert replay.run(directory) == 0
    assert "identical" in capsys.readouterr().out
    assert not directory.exists()


def test_unpacked_is_what_was_packed(recorded: Path, packed: Path, tmp_path: Path) -> None:
    pack.unpack(packed, tmp_path / "again")
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    before = {path.name: path.read_bytes() for path in recorded.iterdir()}
    assert again == {name: before[name] for name in again}
    assert set(before) - set(again) == {"qemu.sh", "qemu.stderr", "stub0.bin"}
    for _ in range(2):  # the second replaces the first
        pack.pack(tmp_path / "again", tmp_path / "again.tar.zst")
    assert (tmp_path / "again.tar.zst").read_bytes() == packed.read_bytes()


def test_only_a_file_is_replaced(recorded: Path, tmp_path: Path) -> None:
    """A device as root, too; a link stays, and what it leads to is written."""
    (tmp_path / "link").symlink_to("file")
    pack.pack(recorded, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").is_file()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match="fifo: is no regular file; take another name"):
        pack.pack(recorded, tmp_path / "fifo")
    assert (tmp_path / "fifo").is_fifo()


def test_names_and_owners_are_nobodys(packed: Path) -> None:
    found = [info for info, _ in members(packed)]
    first = ["boot.json", "replay.json", "console.log", "replay.bin", "transcript.log"]
    assert [info.name for info in found[:5]] == first
    assert all(info.name.startswith("ram/") for info in found[5:])
    assert {(info.mtime, info.uid, info.gid, info.uname, info.gname) for info in found} == {
        (0, 0, 0, "", "")
    }


def test_what_cannot_be_replayed_is_not_packed(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path / "run")
    (tmp_path / "run" / "ram.img").unlink()
    with pytest.raises(UserError, match="guest RAM was not kept"):
        pack.pack(tmp_path / "run", tmp_path / "out.tar.zst")
    with pytest.raises(UserError, match=r"No such file or directory"):
        pack.pack(recorded, tmp_path / "none" / "out.tar.zst")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_ram_is_that_of_the_boot_image_and_no_other_file(
    recorded: Path, tmp_path: Path
) -> None:
    """`bootproof run` leaves a link to the RAM of the image that was run; so may a stranger."""
    shutil.copytree(recorded, tmp_path / "image")
    shutil.copytree(recorded, tmp_path / "run")
    link, private = tmp_path / "run" / "ram.img", tmp_path / "private" / "ram.img"
    link.unlink()
    link.symlink_to(tmp_path / "image" / "ram.img")
    pack.pack(tmp_path / "run", tmp_path / "good.tar.zst")
    private.parent.mkdir()
    shutil.copy(recorded / "ram.img", private)
    for target in (private, private.with_name("secret")):
        target.touch()
        link.unlink()
        link.symlink_to(target)
        with pytest.raises((UserError, LoaderError), match=r"no boot image|is not the RAM of this"):
            pack.pack(tmp_path / "run", tmp_path / "out.tar.zst")
    assert not (tmp_path / "out.tar.zst").exists()


def refused(packed: Path, content: Members | bytes, reason: str) -> None:
    """Unpacking ends in one line, and leaves nothing."""
    if isinstance(content, bytes):
        packed.write_bytes(content)
    else:
        rewritten(packed, content)
    before = sorted(packed.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        pack.unpack(packed, packed.parent / "out")
    assert str(caught.value).startswith(f"{packed}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(packed.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("stranger", "reason"),
    [
        (member("../evil", b"x"), "has a member that no pack has: '../evil'"),
        (member("/tmp/evil", b"x"), "has a member that no pack has: '/tmp/evil'"),
        (member("qemu.sh", b"#!/bin/sh\n"), "has a member that no pack has: 'qemu.sh'"),
        (member("x\x1b[2J"), "has a member that no pack has: 'x\\x1b[2J'"),
        (member("ram/zzzzzzzzzzzzzzzz"), "has a member that no pack has"),
        (member("result.json", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "not a plain file"),
        (member("result.json", type=tarfile.LNKTYPE, linkname="boot.json"), "not a plain file"),
        (member("result.json", type=tarfile.CHRTYPE, devmajor=1), "not a plain file"),
        (member("result.json", type=tarfile.FIFOTYPE), "not a plain file"),
        (member("result.json", type=tarfile.XHDTYPE), "not a plain file"),
        (member("result.json", type=tarfile.GNUTYPE_LONGNAME), "not a plain file"),
        (member("result.json", size=1 << 32), "at most 0x4000000 may be"),
        (member("ram/0000000000f00000", size=1 << 30), "are not inside guest RAM"),
        (member("ram/ffffffffffffffff", b"x" * 512), "are not inside guest RAM"),
        (member("ram/0000000001000000", b"x" * 512), "are not inside guest RAM"),
        (member("ram/0000000000000000", b"x" * 512), "not in order"),
        (member("boot.json", b"{}"), "has a member that no pack has: 'boot.json'"),
        (member("result.json", size=1000), "is cut off"),
    ],
)
def test_member_of_a_stranger(
    stranger: tuple[tarfile.TarInfo, bytes], reason: str, packed: Path
) -> None:
    refused(packed, [*members(packed), stranger], reason)


@pytest.mark.parametrize("name", ["boot.json", "replay.json", "console.log", "replay.bin"])
def test_member_that_is_missing(name: str, packed: Path) -> None:
    rest = [(info, body) for info, body in members(packed) if info.name != name]
    refused(packed, rest, f"is no pack of a run: {name} is not where it belongs")


def test_files_that_are_no_packs(packed: Path) -> None:
    whole = packed.read_bytes()
    refused(packed, b"", "is cut off")
    refused(packed, b"PK\3\4" * 99, "is no pack of a run, or a damaged one (zstd")
    refused(packed, whole[: len(whole) // 2], "is cut off")
    refused(packed, zstandard.ZstdCompressor().compress(b"x" * 5000), "is no tar archive")


def test_more_ram_than_any_machine_has(packed: Path) -> None:
    content = members(packed)
    description = json.loads(content[0][1])
    description["banks"][0]["size"] = hex(1 << 50)
    content[0] = member("boot.json", json.dumps(description).encode())
    refused(packed, content, "of RAM")


def test_bomb(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes that say that they are gigabytes of guest RAM."""
    monkeypatch.setattr(pack, "_MOST_DATA", 1 << 20)
    files = [found for found in members(packed) if not found[0].name.startswith("ram/")]
    bomb = [member(f"ram/{at << 19:016x}", bytes(1 << 19)) for at in range(8)]
    refused(packed, [*files, *bomb], "RAM that is too much")


def test_a_place_where_nothing_can_be_put_is_told_as_it_was_named(
    recorded: Path, packed: Path
) -> None:
    """And not by a name that we would have had there, nor by what a link leads to."""
    place = Path("/proc/self/place")
    for work in (lambda: pack.pack(recorded, place), lambda: pack.unpack(packed, place)):
        with pytest.raises(UserError) as refused:
            work()
        assert str(refused.value) == "/proc/self/place: No such file or directory"


def test_a_disk_without_room(packed: Path, disk: Callable[[int], Path]) -> None:
    out = disk(16) / "out"
    with pytest.raises(UserError) as refused:
        pack.unpack(packed, out)
    assert str(refused.value) == f"{out}: No space left on device"
    assert not list(out.parent.iterdir())


def test_a_pack_that_cannot_be_read(tmp_path: Path) -> None:
    """Is told by its name, and not by that of the place where it would be unpacked."""
    with pytest.raises(UserError) as refused, pack.run_directory(Path("/proc/self/mem")):
        pass
    assert str(refused.value) == "/proc/self/mem: Input/output error"


def test_a_place_that_is_below_a_file(packed: Path, recorded: Path) -> None:
    for work in (
        lambda: pack.pack(recorded, packed / "x"),
        lambda: pack.unpack(packed, packed / "x"),
    ):
        with pytest.raises(UserError, match=r"run\.tar\.zst: is no directory; name another place"):
            work()


def test_directory_that_is_there_is_left_alone(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(UserError, match="out: is there already; name a directory that is not"):
        pack.unpack(packed, tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "mine"
