"""The initial RAM file system: an independent reader, busybox's cpio, and the guest's programs."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.loader import cpio, initramfs
from bootproof.loader.initramfs import (
    Entry,
    archive,
    character_device,
    directory,
    evidence_entries,
    file,
)
from tests.builders.programs import host_program


@dataclass(frozen=True)
class Member:
    inode: int
    mode: int
    owner: tuple[int, int]
    links: int
    time: int
    device: tuple[int, int]
    data: bytes


def members(data: bytes) -> dict[str, Member]:
    """Every member up to the trailer, by buffer-format.rst: a header of 13 hexadecimal numbers."""
    found: dict[str, Member] = {}
    at = 0
    while True:
        assert at % 4 == 0
        assert data[at : at + 6] == b"070701"
        numbers = [int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        inode, mode, uid, gid, links, time, size, major, minor, rmajor, rminor, length, check = (
            numbers
        )
        assert (major, minor, check) == (0, 0, 0)
        name_at = at + 110
        name = data[name_at : name_at + length]
        assert name[-1] == 0 and 0 not in name[:-1]
        data_at = -(-(name_at + length) // 4) * 4
        at = -(-(data_at + size) // 4) * 4
        if name == b"TRAILER!!!\0":
            assert not any(data[at:])
            return found
        found[name[:-1].decode()] = Member(
            inode, mode, (uid, gid), links, time, (rmajor, rminor), data[data_at : data_at + size]
        )


TREE = [
    directory("dev", 0o700),
    character_device("dev/console", 5, 1),
    file("a", b"1"),
    file("bin/tool", b"12345", 0o755),
    file("empty", b""),
    Entry("link", stat.S_IFLNK | 0o777, b"bin/tool"),
    file("ümlaut file", bytes(range(256))),
]


def test_every_member_is_there() -> None:
    data = archive(TREE)
    assert len(data) % 512 == 0
    assert members(data) == {
        "dev": Member(1, 0o40700, (0, 0), 2, 0, (0, 0), b""),
        "dev/console": Member(2, 0o20600, (0, 0), 1, 0, (5, 1), b""),
        "a": Member(3, 0o100644, (0, 0), 1, 0, (0, 0), b"1"),
        "bin/tool": Member(4, 0o100755, (0, 0), 1, 0, (0, 0), b"12345"),
        "empty": Member(5, 0o100644, (0, 0), 1, 0, (0, 0), b""),
        "link": Member(6, 0o120777, (0, 0), 1, 0, (0, 0), b"bin/tool"),
        "ümlaut file": Member(7, 0o100644, (0, 0), 1, 0, (0, 0), bytes(range(256))),
    }


def test_same_entries_same_bytes() -> None:
    assert archive(TREE) == archive(list(TREE))


def test_empty_archive() -> None:
    assert members(archive([])) == {}


@given(
    st.lists(
        st.tuples(st.text("ab/ü", min_size=1, max_size=9), st.binary(max_size=9)),
        unique_by=lambda entry: entry[0],
    )
)
def test_names_and_contents_of_any_length(entries: list[tuple[str, bytes]]) -> None:
    data = archive(file(name, content) for name, content in entries)
    assert {name: member.data for name, member in members(data).items()} == dict(entries)


def test_busybox_unpacks_it(tmp_path: Path) -> None:
    tree = [entry for entry in TREE if not stat.S_ISCHR(entry.mode)]
    tree.insert(1, directory("bin"))
    subprocess.run(
        [host_program("busybox"), "cpio", "-i"],
        cwd=tmp_path,
        input=archive(tree),
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "bin/tool").read_bytes() == b"12345"
    assert (tmp_path / "bin/tool").stat().st_mode == 0o100755
    assert (tmp_path / "link").readlink() == Path("bin/tool")
    assert (tmp_path / "ümlaut file").read_bytes() == bytes(range(256))
    assert {path.name for path in tmp_path.iterdir()} == {entry.path for entry in tree} - {
        "bin/tool"
    }


def test_busybox_lists_it() -> None:
    command = [host_program("busybox"), "cpio", "-t"]
    listed = subprocess.run(command, input=archive(TREE), check=True, capture_output=True)
    assert listed.stdout.decode().splitlines() == [entry.path for entry in TREE]


# --- what every guest is given -----------------------------------------------------------------

GUEST = resources.files("loader").joinpath("guest")
PROGRAMS = sorted({entry.name for entry in GUEST.iterdir()} - {"__init__.py", "__pycache__"})


def test_evidence_entries() -> None:
    found = members(archive(evidence_entries(b"the busybox", (204, 64))))
    assert list(found) == [
        *("dev", "dev/console", "bootproof", "bootproof/serial", "bootproof/kmsg"),
        *("bootproof/proc", "bootproof/lines", "bootproof/sys"),
        *("bootproof/busybox", "bootproof/init", "bootproof/restart", "bootproof/shell"),
    ]
    for name, device in (
        ("dev/console", (5, 1)),
        ("bootproof/serial", (204, 64)),
        ("bootproof/kmsg", (1, 11)),
    ):
        assert (found[name].mode, found[name].device) == (0o20600, device)
    assert found["bootproof/busybox"].data == b"the busybox"
    for name in ("busybox", "init", "restart", "shell"):
        assert found[f"bootproof/{name}"].mode == 0o100755
    for name in ("init", "restart", "shell"):
        assert found[f"bootproof/{name}"].data == GUEST.joinpath(name).read_bytes()


def test_a_serial_port_whose_number_the_kernel_chooses(tmp_path: Path) -> None:
    """Init asks for the number before it opens the port; nothing else is another."""
    found = members(archive(evidence_entries(b"b", "ttyPS0")))
    assert list(found) == [
        name
        for name in members(archive(evidence_entries(b"b", (4, 64))))
        if name != "bootproof/serial"
    ]
    init, plain = found["bootproof/init"].data, GUEST.joinpath("init").read_bytes()
    before, _, behind = plain.partition(b"if true > /bootproof/serial; then\n")
    assert init.startswith(before) and init.endswith(behind)
    asked = b"/bootproof/sys/class/tty/ttyPS0/dev"
    assert init.index(asked) < init.index(b"if true > /bootproof/serial")
    script = tmp_path / "init"
    script.write_bytes(init)
    subprocess.run(["sh", "-n", script], check=True)


def test_another_archive_behind_ours() -> None:
    """As the kernel reads them: one after the other, each with a trailer, at a multiple of 4."""
    ours, users = archive(evidence_entries(b"b", (4, 64))), archive([file("init", b"users")])
    both = ours + users
    assert "bootproof/init" in members(ours) and len(ours) % 4 == 0
    assert members(both[len(ours) :])["init"].data == b"users"
    cpio.check(both[len(ours) :], "both", initramfs.OURS)


@pytest.mark.parametrize("name", PROGRAMS)
def test_guest_programs_are_clean_shell(name: str, tmp_path: Path) -> None:
    script = tmp_path / name
    script.write_bytes(GUEST.joinpath(name).read_bytes())
    assert script.read_text().startswith("#!/bootproof/busybox sh\n")
    subprocess.run(["sh", "-n", script], check=True)
    # The first line names a shell that shellcheck does not know; busybox's is an ash. SC2094 takes
    # a variable for the file of the same name.
    checked = subprocess.run(
        [host_program("shellcheck"), "--shell=dash", "--exclude=SC2239,SC2094", script],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.stdout == ""


@pytest.mark.parametrize("name", PROGRAMS)
def test_guest_programs_parse_in_their_own_shell(name: str) -> None:
    source = GUEST.joinpath(name).read_bytes()
    subprocess.run([host_program("busybox"), "sh", "-n"], input=source, check=True)


def test_tests_that_something_follows_end_otherwise() -> None:
    ends, goes_on = (initramfs.test_entries(["true"], goes_on=later)[0] for later in (False, True))
    begin = ends.data.removesuffix(b"exec /bootproof/restart\n")
    assert begin != ends.data
    assert goes_on.data == begin + GUEST.joinpath("then").read_bytes()


def test_an_init_is_added_by_its_file() -> None:
    assert {"init", "init-exits"} <= {*initramfs.inits()} == {n for n in PROGRAMS if "init" in n}
