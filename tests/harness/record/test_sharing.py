"""Runs that share what their RAM has in common: what it takes on disk, and that nothing is lost."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness.host import rundir
from bootproof.harness.record import pack, replay, sharing
from bootproof.kernels.content import Content
from bootproof.loader import bootimage
from bootproof.loader.address import MIB, Range
from bootproof.loader.assemble import Lent
from bootproof.loader.bootimage import Backing
from bootproof.loader.copying import Copy
from bootproof.loader.layout import Region
from bootproof.loader.memory import GuestMemory
from tests.builders.disks import fill, used
from tests.builders.guests import Guest, boot, program

TEXT = b"hello\n"
KERNEL, INITRD = Region("kernel", Range(4 * MIB, 6 * MIB)), Region("initrd", Range(12 * MIB, MIB))
CONTENT = {4 * MIB: os.urandom(5 * MIB), 12 * MIB: os.urandom(MIB)}


def ran(directory: Path, mark: bytes, content: dict[int, bytes] = CONTENT) -> Path:
    """A run whose guest has a large kernel and initrd, and something of its own in between."""
    code = program("x86_64", KERNEL.range.end - MIB).say(TEXT).reset()
    boot(Guest(code, extra={**content, 11 * MIB: mark}, regions=(KERNEL, INITRD)), directory)
    return directory


def ram(directory: Path) -> bytes:
    with bootimage.open_ram(bootimage.open_boot_image(directory), directory) as memory:
        return memory.read(0, memory.size)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three runs that share, of guests that differ."""
    made = [ran(tmp_path / name, name.encode()) for name in ("a", "b", "c")]
    before = [ram(directory) for directory in made]
    assert used(tmp_path) > 3 * 6 * MIB
    for directory in made:
        sharing.share(directory, tmp_path / sharing.STORE)
    assert [ram(directory) for directory in made] == before
    return made


def test_what_is_the_same_is_there_once(runs: list[Path], tmp_path: Path) -> None:
    assert 6 * MIB < used(tmp_path) < 6 * MIB + 3 * (512 << 10)
    names = {path.name for path in tmp_path.rglob("*.img")}
    assert len(list((tmp_path / sharing.STORE).iterdir())) == 2
    assert names > {"ram.img", "kernel.img", "initrd.img"}
    sharing.share(runs[0], tmp_path / sharing.STORE)  # which has been done
    assert ram(runs[0])[11 * MIB :].startswith(b"a\0")


def test_a_run_stays_whole_wherever_it_is(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Replayed, packed, and started by its script, after all else has gone."""
    shutil.copytree(runs[1], tmp_path / "elsewhere")
    for path in (*runs, tmp_path / sharing.STORE):
        shutil.rmtree(path)
    there = tmp_path / "elsewhere"
    assert replay.run(there) == 0
    pack.pack(there, tmp_path / "run.tar.zst")
    pack.unpack(tmp_path / "run.tar.zst", tmp_path / "again")
    assert replay.run(tmp_path / "again") == 0
    assert capsys.readouterr().out.count("identical") == 2
    assert ram(tmp_path / "again") == ram(there)
    script: list[str | Path] = [
        "timeout",
        "--kill-after=5",
        "60",
        there / "qemu.sh",
        tmp_path / "console",
    ]
    subprocess.run(script, check=True, capture_output=True)
    assert (tmp_path / "console").read_bytes() == TEXT
    assert ram(tmp_path / "again") == ram(there)


def test_nobody_writes_through_a_shared_file(runs: list[Path], tmp_path: Path) -> None:
    """Not who runs a guest in one of the directories, nor who removes the run there."""
    others = ram(runs[1])
    kernel = runs[0] / "kernel.img"
    assert kernel.stat().st_mode & 0o222 == 0
    rundir.make_fresh(runs[0])
    assert not list(runs[0].iterdir())
    ran(runs[0], b"new", {4 * MIB: b"another kernel"})
    assert ram(runs[1]) == others
    rundir.drop_ram(runs[1])
    assert not list(runs[1].glob("*.img"))
    assert ram(runs[2])[:MIB] == others[:MIB]


def test_what_no_run_has_any_more_goes(runs: list[Path], tmp_path: Path) -> None:
    store = tmp_path / sharing.STORE
    sharing.prune(store)
    assert len(list(store.iterdir())) == 2
    for directory in runs:
        rundir.make_fresh(directory)
    sharing.prune(store)
    assert not store.exists()
    sharing.prune(store)


def test_what_only_seems_to_be_the_same_is_not_shared(tmp_path: Path) -> None:
    """One byte differs where no sample is taken."""
    other = bytearray(CONTENT[4 * MIB])
    other[4097] ^= 1
    changed = {**CONTENT, 4 * MIB: bytes(other)}
    store = tmp_path / sharing.STORE
    sharing.share(ran(tmp_path / "a", b"a"), store)
    before = ram(ran(tmp_path / "b", b"b", changed))
    sharing.share(tmp_path / "b", store)
    assert ram(tmp_path / "b") == before
    image = bootimage.open_boot_image(tmp_path / "b")
    assert [part.file for part in image.backing] == ["initrd.img"]


def test_without_links_a_run_keeps_what_it_has(tmp_path: Path, disk: Callable[[int], Path]) -> None:
    """On another file system than the store's."""
    ran(tmp_path / "run", b"x")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    sharing.share(tmp_path / "run", disk(16 << 10) / sharing.STORE)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_run_without_an_image_is_left_alone(tmp_path: Path) -> None:
    """Of what was refused, or its RAM not kept."""
    (tmp_path / "run").mkdir()
    sharing.share(tmp_path / "run", tmp_path / sharing.STORE)
    assert [path.name for path in tmp_path.rglob("*")] == ["run"]


# --- what is lent before anything is written ------------------------------------------------------

PLACE, SIZE = 16 * MIB, MIB
COPIES = (Copy(PLACE, 0, 300_000), Copy(PLACE + 0x80000, 300_000, 212_288))
FILE = os.urandom(512 << 10)


class Shop:
    """A kernel's file, a store, and run directories that are lent from it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        (root / "kernel").write_bytes(FILE)
        self.kernel = Content(root / "kernel", hashlib.sha256(FILE).hexdigest())
        self.store = root / sharing.STORE
        self.lender = sharing.Lender(self.store)

    def lend(self, name: str, at: int = PLACE, copies: Sequence[Copy] = COPIES) -> Lent | None:
        (self._root / name).mkdir()
        moved = [replace(copy, address=copy.address + at - PLACE) for copy in copies]
        return self.lender.lend(self.kernel, self._root / name, Range(at, SIZE), moved)

    def has(self, name: str) -> bytes | None:
        file = self._root / name / "kernel.img"
        return file.read_bytes() if file.exists() else None


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def as_loaded() -> bytes:
    with GuestMemory([(PLACE, SIZE)]) as ram:
        for copy in COPIES:
            ram.write(copy.address, FILE[copy.offset : copy.offset + copy.size])
        return ram.read(PLACE, SIZE)


def test_a_kernel_is_written_once_for_all_that_load_it_alike(shop: Shop, tmp_path: Path) -> None:
    assert shop.lend("a") == Lent(
        Backing("kernel.img", PLACE, SIZE),
        (Range(PLACE, 0x4A000), Range(PLACE + 0x80000, 0x34000)),
    )
    elsewhere = shop.lend("b", 32 * MIB)
    assert elsewhere is not None
    assert elsewhere.nonzero[0] == Range(32 * MIB, 0x4A000)
    assert shop.has("a") == shop.has("b") == as_loaded()
    assert (tmp_path / "a" / "kernel.img").samefile(tmp_path / "b" / "kernel.img")
    assert (tmp_path / "a" / "kernel.img").stat().st_mode & 0o222 == 0
    assert len(list(shop.store.iterdir())) == 1
    shop.lend("c", copies=COPIES[:1])
    shop.lend("d", copies=COPIES[1:])
    (tmp_path / "other").write_bytes(FILE[::-1])
    shop.kernel = Content(tmp_path / "other", "another")
    shop.lend("e")
    assert shop.has("c") == as_loaded()[: COPIES[0].size].ljust(SIZE, b"\0")
    assert shop.has("d") == as_loaded()[0x80000:].rjust(SIZE, b"\0")
    assert (shop.has("e") or b"")[:300_000] == FILE[::-1][:300_000]


def test_zeros_of_a_kernels_file_take_no_room(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(FILE[:0x8000] + bytes(300_000 - 0x8000) + FILE[300_000:])
    lent = shop.lend("a")
    assert lent is not None
    assert lent.nonzero == (Range(PLACE, 0x8000), Range(PLACE + 0x80000, 0x34000))
    file = tmp_path / "a" / "kernel.img"
    with GuestMemory.open(file, [(PLACE, SIZE)]) as ram:
        assert tuple(ram.data_extents()) == lent.nonzero
    assert file.read_bytes() == as_loaded()[:0x8000].ljust(0x80000, b"\0") + as_loaded()[0x80000:]


def test_a_byte_that_has_changed_in_the_store_is_not_lent(shop: Shop) -> None:
    shop.lend("a")
    (file,) = shop.store.iterdir()
    file.chmod(0o644)
    with file.open("r+b") as opened:
        os.pwrite(opened.fileno(), b"changed", 4097)
    assert (shop.lend("b"), shop.has("b")) == (None, None)


@pytest.mark.parametrize("size", [SIZE, SIZE - 1])
def test_a_file_that_is_torn_is_not_lent(size: int, shop: Shop, tmp_path: Path) -> None:
    """Of an earlier run, whose name says the same: what is in it is looked at."""
    shop.lend("a")
    (file,) = shop.store.iterdir()
    file.unlink()
    file.write_bytes((as_loaded()[:-5000] + bytes(5000))[:size])
    shop.lender = sharing.Lender(shop.store)
    other = bytearray(as_loaded())
    other[4097] ^= 1
    file.write_bytes(other[:size])
    assert (shop.lend("b"), shop.has("b")) == (None, None)


def test_without_room_or_links_nothing_is_lent(
    shop: Shop, tmp_path: Path, disk: Callable[[int], Path]
) -> None:
    """Whoever needs the room then says so."""
    small = disk(64 << 10)
    fill(small)
    shop.lender = sharing.Lender(small / sharing.STORE)
    assert (shop.lend("a"), shop.has("a")) == (None, None)
    shop.lender = sharing.Lender(disk(4 << 10) / sharing.STORE)
    assert (shop.lend("b"), shop.has("b")) == (None, None)


def test_what_is_small_or_elsewhere_is_not_lent(shop: Shop) -> None:
    assert shop.lend("a", PLACE + 0x800) is None
    assert shop.lend("b", copies=[Copy(PLACE + SIZE - 1, 0, 2)]) is None
    assert not [*shop.store.iterdir()]
