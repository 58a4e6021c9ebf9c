"""Which modules a guest is given, in which order, and which are refused before it starts."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.cases import schema
from bootproof.harness.cases.from_kernel import case_of
from bootproof.harness.commands import case_options
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import modules
from bootproof.kernels import modules as places
from bootproof.kernels.errors import DiskFull
from tests.builders import images
from tests.kernels.debian import deb_of

MAGIC = "6.1.0-test SMP preempt mod_unload "
KERNEL = images.elf(images.load(16 << 20, images.LINUX + b"\0" + MAGIC.encode() + b"\0"))
TREE = "lib/modules/6.1.0-test"


@pytest.fixture
def kernel(offline: None, tmp_path: Path) -> Path:
    """An installed kernel, with modules that need one another."""
    (tmp_path / "boot").mkdir()
    path = tmp_path / "boot" / "vmlinux"
    path.write_bytes(KERNEL)
    add(tmp_path / TREE, "core", "ring:bus", "bus", "rng-a:core,ring")
    (tmp_path / TREE / "modules.builtin").write_text("kernel/fs/ext4.ko\n")
    return path


def add(directory: Path, *described: str, vermagic: str = MAGIC, machine: int = 62) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for each in described:
        name, _, depends = each.partition(":")
        data = images.module(name.replace("-", "_"), vermagic, depends=depends, machine=machine)
        (directory / f"{name}.ko").write_bytes(data)


def commands(kernel: Path, *asked: str) -> list[str]:
    text = case_of(str(kernel), {"modules": "\n".join(asked)}, "boot").modules
    return [] if text is None else [module.command for module in modules.read(text)]


def loads(*names: str) -> list[str]:
    return [f"insmod /bootproof/modules/{name}.ko" for name in names]


def test_by_name_with_what_it_needs_and_its_parameters(kernel: Path) -> None:
    wanted = [*loads("core", "bus", "ring"), "insmod /bootproof/modules/rng_a.ko rate=9 on"]
    assert commands(kernel, "rng_a rate=9 on") == wanted
    assert commands(kernel, "bus", "rng-a rate=9 on") == [wanted[1], wanted[0], *wanted[2:]]
    assert commands(kernel, "core,ring") == loads("core", "bus", "ring")
    # Of one that another needs as well, wherever its parameters stand.
    assert commands(kernel, "ring", "bus x=1") == [
        "insmod /bootproof/modules/bus.ko x=1",
        wanted[2],
    ]


def test_more_parameters_than_a_name_may_be_long(kernel: Path) -> None:
    many = "rates=" + ",".join(map(str, range(100)))
    assert commands(kernel, f"rng_a {many}")[-1] == f"{loads('rng_a')[0]} {many}"


def test_files_and_directories_of_the_users(kernel: Path, tmp_path: Path) -> None:
    own = tmp_path / "my own"
    add(own, "mine:theirs,core", "theirs")
    assert commands(kernel, f"{own}/mine.ko") == loads("theirs", "core", "mine")
    with_parameters = [*loads("theirs", "core"), f"{loads('mine')[0]} fw=/a/b c"]
    assert commands(kernel, f"{own}/mine fw=/a/b c") == with_parameters
    assert commands(kernel, str(own)) == loads("theirs", "core", "mine")
    (tmp_path / "elsewhere").mkdir()
    (own / "theirs.ko").rename(tmp_path / "elsewhere" / "theirs.ko")
    files = [f"{own}/mine.ko", f"{tmp_path}/elsewhere/theirs.ko"]
    assert commands(kernel, *files) == loads("theirs", "core", "mine")


def test_a_kernel_that_stands_alone(kernel: Path, tmp_path: Path) -> None:
    """What the user names a place for needs no other one."""
    (tmp_path / TREE).rename(tmp_path / "own")
    assert commands(kernel, f"{tmp_path}/own/ring") == loads("bus", "ring")
    add(tmp_path / "own", "last:gone")
    said = (
        r"no module gone, which last needs, in .*/own; .*vmlinux: nothing is known of its modules"
    )
    with pytest.raises(UserError, match=said):
        commands(kernel, f"{tmp_path}/own/last")
    with pytest.raises(UserError, match=r"^no module ring; .*nothing is known of its modules"):
        commands(kernel, "ring")


def test_what_was_found_is_found_again(kernel: Path) -> None:
    """The command that repeats a case, and its data, name files."""
    words = ["boot", str(kernel), "--modules", "core", "--modules", "rng_a x=1"]
    first, _ = case_options.case(cli.whole_parser().parse_args(words), "boot")
    again = shlex.split(case_options.typed({"modules": first.modules}))
    assert again.count("--modules") == 4 and again[-1].endswith("/rng-a.ko x=1")
    assert (
        case_options.case(cli.whole_parser().parse_args([*words[:2], *again]), "boot")[0] == first
    )
    assert schema.case_from_data(schema.case_to_data(first)) == first


def test_a_part_of_the_kernel(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands(kernel, "ext4") == []
    assert capsys.readouterr().err == "bootproof: --modules: ext4 is built into the kernel\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("rng", r"no module rng in .*/lib/modules/6.1.0-test; did you mean ring\?"),
        (
            "old/old.ko",
            r"old.ko: is built for the kernel '6.0.0 SMP', and .*vmlinux is '6.1.0-test ",
        ),
        ("arm/arm", r"arm.ko: is a module for aarch64, and .*vmlinux a kernel of x86_64"),
        ("left/left", r"no module gone, which left needs, in .*/left or .*/lib/modules/6.1.0-test"),
        ("round", r"a needs b needs a: no order to load them in"),
        ("empty", r"empty: has no modules; name those you want: "),
        ("nosuch/loop", r"nosuch: No such file or directory"),
        ("text.ko", r"text.ko: is no kernel module: no relocatable 64-bit ELF file"),
    ],
)
def test_refusals(asked: str, said: str, kernel: Path, tmp_path: Path) -> None:
    add(tmp_path / "old", "old", vermagic="6.0.0 SMP ")
    add(tmp_path / "arm", "arm", machine=183)
    add(tmp_path / "left", "left:gone")
    add(tmp_path / "round", "a:b", "b:a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ko").write_text(
        "no module, and long enough for a header of an ELF file\n" * 2
    )
    with pytest.raises(UserError, match=said) as caught:
        commands(kernel, asked if asked == "rng" else f"{tmp_path}/{asked}")
    assert str(caught.value).endswith("(--modules)")


@pytest.mark.parametrize("name", ["../init", "a b", "x;reboot", "x" * 56, "\x1b[2J"])
def test_a_name_that_would_lead_elsewhere_in_the_guest(
    name: str, kernel: Path, tmp_path: Path
) -> None:
    """What a module says of itself is a stranger's word, and the proof is in the same archive."""
    (tmp_path / "x.ko").write_bytes(images.module(name, MAGIC))
    with pytest.raises(
        UserError, match=r"x.ko: '.*' is no name of a module .--modules.$"
    ) as caught:
        commands(kernel, f"{tmp_path}/x.ko")
    assert str(caught.value).isprintable()


def test_a_kernel_that_loads_none(kernel: Path) -> None:
    kernel.write_bytes(images.elf(images.load(16 << 20, images.LINUX)))
    with pytest.raises(UserError, match=r"loads no modules .it is without CONFIG_MODULES"):
        commands(kernel, "core")


def test_a_disk_without_room(disk: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    package = disk(200) / "k_1_amd64.deb"
    package.write_bytes(deb_of({f"{TREE}/loop.ko": bytes(1 << 20)}))
    monkeypatch.setenv("BOOTPROOF_CACHE", str(package.parent / "cache"))
    with pytest.raises(DiskFull, match=r"^no room for .*: No space left on device"):
        places.at(package)


def test_more_than_anybody_wants(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "_MOST", 3)
    with pytest.raises(UserError, match=r"has 4 modules; name those you want: .*/NAME"):
        commands(kernel, str(tmp_path / TREE))
