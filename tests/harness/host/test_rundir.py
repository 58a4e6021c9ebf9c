"""Run directories: emptied of what a run made, and of nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootproof.harness.errors import UserError
from bootproof.harness.host import rundir
from bootproof.harness.host.rundir import make_fresh
from bootproof.kernels.cache import Cache
from tests.builders.guests import boot, program

REFUSED = json.dumps({"version": 1, "case": "a case", "verdict": "load-refused"})


def tree(directory: Path) -> dict[str, str | None]:
    """Every path below, with a file's or link's content."""
    return {
        str(path.relative_to(directory)): (
            str(path.readlink())
            if path.is_symlink()
            else path.read_text()
            if path.is_file()
            else None
        )
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def forked() -> Iterator[Callable[[], None]]:
    """Forks a process that has all that is open by now, as what another thread starts has until it
    is the program it is to be.
    """
    children: list[int] = []

    def fork() -> None:
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        children.append(child)

    yield fork
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_another_thread_starts_keeps_no_run_out(
    forked: Callable[[], None], tmp_path: Path
) -> None:
    for _ in range(2):
        with rundir.held(tmp_path):
            forked()


def test_what_another_thread_starts_keeps_nobody_from_the_cache(
    forked: Callable[[], None], tmp_path: Path
) -> None:
    for _ in range(2):
        with Cache(tmp_path).locked("a", on_wait=lambda: pytest.fail("it waits for nobody")):
            forked()


def test_makes_a_directory_with_its_parents(tmp_path: Path) -> None:
    make_fresh(tmp_path / "a" / "b")
    make_fresh(tmp_path / "a" / "b")
    assert tree(tmp_path) == {"a": None, "a/b": None}


def test_empties_it_of_a_real_run(tmp_path: Path) -> None:
    boot(program("aarch64").say(b"hello\n").reset(), tmp_path)
    rundir.write_result(tmp_path, {"verdict": "cpu-reset"})
    assert (tmp_path / "console.log").exists()
    make_fresh(tmp_path)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    "left",
    [
        {"ram.img": ""},
        {"ram.img": "", "boot.json": "{}", "boot.json.part": ""},
        {"boot.json": "", "devices/kernel-0x1000000.bin": "", "stub0.bin": "", "stub12.bin": ""},
        {"qemu.sh": "", "console.log": "", "transcript.log": "", "qemu.stderr": ""},
        {"result.json": REFUSED},
        {"result.json": "cut sho", "qemu.sh": ""},
    ],
)
def test_empties_it_of_a_run_that_was_cut_short(left: dict[str, str], tmp_path: Path) -> None:
    for name, content in left.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    make_fresh(tmp_path)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("own", "named"),
    [
        ({"thesis.tex": "years of work"}, "thesis.tex"),
        ({"boot.json": "{}", "notes": "mine"}, "notes"),
        ({"devices/queen.stl": "mine"}, "devices"),
        ({"console.log": "somebody's"}, "console.log"),
        ({"transcript.log": "somebody's"}, "transcript.log"),
        ({"qemu.stderr": "somebody's"}, "qemu.stderr"),
        ({"result.json": "[]"}, "result.json"),
        ({"result.json": '{"score": 3}'}, "result.json"),
        ({"result.json": "not JSON"}, "result.json"),
        ({"stub0.bin": "somebody's"}, "stub0.bin"),
        ({"boot.json": "{}", "stub-old.bin": "mine"}, "stub-old.bin"),
        ({"boot.json": "{}", "stubs.bin": "mine"}, "stubs.bin"),
        ({"boot.json": "{}", "qemu.shell": "mine"}, "qemu.shell"),
        ({"boot.json": "{}", "console.log/inner": "mine"}, "console.log"),
        ({".hidden": "mine", "ram.img": ""}, ".hidden"),
    ],
)
def test_never_deletes_what_no_run_made(own: dict[str, str], named: str, tmp_path: Path) -> None:
    for name, content in own.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    before = tree(tmp_path)
    with pytest.raises(UserError) as refused:
        make_fresh(tmp_path)
    sentence = f"{tmp_path}: holds {named}, which no run has made; take another one"
    assert str(refused.value) == sentence
    assert tree(tmp_path) == before


def test_link_to_a_strangers_ram_is_removed_and_not_the_ram(tmp_path: Path) -> None:
    """`bootproof run` makes such a link."""
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "ram.img").write_text("a stranger's")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "ram.img").symlink_to(tmp_path / "image" / "ram.img")
    make_fresh(tmp_path / "run")
    assert tree(tmp_path) == {"image": None, "image/ram.img": "a stranger's", "run": None}


@pytest.mark.parametrize("name", ["devices", "console.log", "qemu.sh"])
def test_never_follows_a_link(name: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "boot.json").write_text("{}")
    (directory / name).symlink_to(outside if name == "devices" else outside / "precious")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=f"holds {name}, which no run has made"):
        make_fresh(directory)
    assert tree(tmp_path) == before


def test_what_is_read_afterwards_is_not_deleted(tmp_path: Path) -> None:
    """Were it one of a run's own files: of an image that is imported, or booted again."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("boot.json", "ram.img", "initrd.img"):
        (run / name).write_text("mine")
    (tmp_path / "link").symlink_to(run / "ram.img")
    before = tree(tmp_path)
    for path in (run / "initrd.img", tmp_path / "link"):
        with pytest.raises(UserError, match=f"--out: .*/run holds {path}, which is to be read"):
            make_fresh(run, [path])
    assert tree(tmp_path) == before
    make_fresh(run, [tmp_path / "none", Path("x" * 5000), Path("\0")])
    assert list(run.iterdir()) == []


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file: is no directory; name another place"):
        make_fresh(tmp_path / "file")
    with pytest.raises(UserError, match="file: is no directory; name another place"):
        make_fresh(tmp_path / "file" / "below")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        make_fresh(tmp_path / "run")


def test_ram_is_dropped_once(tmp_path: Path) -> None:
    (tmp_path / "ram.img").write_text("large")
    (tmp_path / "boot.json").write_text("{}")
    rundir.drop_ram(tmp_path)
    rundir.drop_ram(tmp_path)
    assert tree(tmp_path) == {"boot.json": "{}"}


# --- one that was killed ------------------------------------------------------------------------


def test_an_earlier_run_whose_removal_was_killed_is_no_strangers(tmp_path: Path) -> None:
    """Killed at any of its files: what is left is known as a run's."""
    names = ("boot.json", "console.log", "qemu.sh", "ram.img", "replay.bin", "result.json")
    removed: list[str] = []
    unlink = Path.unlink
    for most in range(len(names) + 1):
        directory = tmp_path / str(most)
        directory.mkdir()
        for name in names:
            (directory / name).touch()
        left = iter(range(most))

        def killed(path: Path, missing_ok: bool = False, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            removed.append(path.name)
            unlink(path, missing_ok)

        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(Path, "unlink", killed)
            make_fresh(directory)
        assert most == 0 or not (directory / "result.json").exists()
        make_fresh(directory)
        assert not list(directory.iterdir())
    assert set(removed) == {*names}


def test_a_run_that_makes_nothing_else_first_is_known_by_its_mark(tmp_path: Path) -> None:
    make_fresh(tmp_path / "run")
    rundir.mark(tmp_path / "run")
    (tmp_path / "run" / "replay.bin").touch()
    make_fresh(tmp_path / "run")
    rundir.mark(tmp_path / "run")
    rundir.write_result(tmp_path / "run", {"case": "a", "verdict": "booted"})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]
