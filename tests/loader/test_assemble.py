"""From a kernel file and a request to a boot image: choices, refusals, and what stays on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from bootproof.harness.arch.arch import Arch
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.qemu.machine import Machine as QemuMachine
from bootproof.loader import assemble as assembly
from bootproof.loader import bootimage
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.assemble import Assembled, Assembly, Lent, Machine, assemble
from bootproof.loader.bootimage import Backing
from bootproof.loader.copying import Copy
from bootproof.loader.errors import LoaderError
from bootproof.loader.formats import Format
from bootproof.loader.identify import Identity, identify_bytes
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest
from bootproof.loader.result import PvhState
from tests.builders import images

CODE = b"\xf4" * 0x3000
PVH_ENTRY = 16 * MIB + 0x100
VMLINUX = images.elf(images.load(16 * MIB, CODE, memsz=0x8000))
WITH_PVH = images.elf(images.load(16 * MIB, CODE), images.notes(images.pvh_entry(PVH_ENTRY)))
BZIMAGE = images.bzimage(CODE)
IMAGE = images.image(image_size=0x8000)
LIMIT = 64 * GIB


def x86(memory: int = 64 * MIB, board: str = "q35") -> Machine:
    return Machine("x86_64", memory, LIMIT, ARCHES["x86_64"].boards[board].banks)


def arm64(memory: int = 64 * MIB) -> Machine:
    return Machine("aarch64", memory, LIMIT, ARCHES["aarch64"].boards["virt"].banks)


@pytest.fixture(scope="module")
def dtb() -> bytes:
    tree = device_tree(QemuMachine.with_defaults("aarch64", memory=64 * MIB))
    assert tree is not None
    return tree


def assembled(
    kernel: bytes, directory: Path, machine: Machine | None = None, **how: Any
) -> Assembled:
    wanted = {name: how.pop(name) for name in ("cmdline", "initrd", "dtb", "unsafe") if name in how}
    return assemble(kernel, Assembly(machine or x86(), BootRequest(**wanted), **how), directory)


def test_kernel_of_which_nothing_is_loaded(tmp_path: Path) -> None:
    """Its boot image had a region of no bytes, which no reader of boot images takes."""
    with pytest.raises(LoaderError, match="no part of it is loaded"):
        assembled(images.elf(images.load(16 * MIB, b"")), tmp_path, protocol="linux64")
    assert not [*tmp_path.iterdir()]


# --- what comes out ----------------------------------------------------------------------------


def test_what_is_no_kernel_is_searched_for_that_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def identify(data: memoryview) -> Identity:
        looks.append(data)
        return identify_bytes(data)

    monkeypatch.setattr(assembly, "identify_bytes", identify)
    assert "not a kernel that can be loaded" in refused(b"nothing" * 1000, tmp_path)
    assert len(looks) == 1


def test_boot_image_on_disk_is_the_one_returned(tmp_path: Path) -> None:
    provenance = {"kernel": "vmlinux", "sha256": "00"}
    found = assembled(VMLINUX, tmp_path, cmdline=b"quiet", initrd=b"i" * 99, provenance=provenance)
    assert bootimage.open_boot_image(tmp_path) == found.image
    assert found.image.provenance == provenance
    assert found.image.entry == 16 * MIB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boot.json", "ram.img"]
    with GuestMemory.open(tmp_path / "ram.img", [(0, 64 * MIB)]) as memory:
        assert memory.read(16 * MIB, len(CODE)) == CODE
        place = found.image.region("initrd")
        assert place is not None
        assert memory.read(place.start, 99) == b"i" * 99


def test_same_input_same_image(tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assembled(BZIMAGE, tmp_path / name, cmdline=b"x", initrd=b"i" * 5000)
        digests.append(
            [
                hashlib.sha256((tmp_path / name / file).read_bytes()).hexdigest()
                for file in ("boot.json", "ram.img")
            ]
        )
    assert digests[0] == digests[1]


def test_what_is_lent_is_not_copied(tmp_path: Path) -> None:
    """The very same boot image, but for where the kernel's bytes are."""
    for name in ("own", "lent"):
        (tmp_path / name).mkdir()
    (tmp_path / "kernel").write_bytes(VMLINUX)
    asked = []

    def lend(part: Range, copies: Sequence[Copy]) -> Lent:
        asked.append((part, copies))
        (tmp_path / "lent" / "kernel.img").write_bytes(CODE.ljust(part.size, b"\0"))
        return Lent(Backing("kernel.img", part.start, part.size), (Range(part.start, len(CODE)),))

    plan = Assembly(x86(), BootRequest(initrd=b"i" * 5000))
    own = assemble(tmp_path / "kernel", plan, tmp_path / "own")
    lent = assemble(tmp_path / "kernel", plan, tmp_path / "lent", lend)
    assert [part for part, _ in asked] == [Range(16 * MIB, 0x8000)]
    assert [(copy.address, copy.size) for copy in asked[0][1]] == [(16 * MIB, len(CODE))]
    assert replace(lent, image=replace(lent.image, backing=()), lent=None) == own
    assert bootimage.open_boot_image(tmp_path / "lent") == lent.image
    with (
        bootimage.open_ram(own.image, tmp_path / "own") as left,
        bootimage.open_ram(lent.image, tmp_path / "lent") as right,
        GuestMemory.open(tmp_path / "lent" / "ram.img", lent.image.banks) as rest,
    ):
        assert right.read(0, 64 * MIB) == left.read(0, 64 * MIB)
        assert not any(rest.read(16 * MIB, 0x8000))


@pytest.mark.parametrize("how", ["unsafe", "bytes", "refused"])
def test_only_what_copies_of_a_file_make_is_lent(how: str, tmp_path: Path) -> None:
    """Without checks a piece may lie over the kernel; what is refused needs no file."""
    (tmp_path / "kernel").write_bytes(VMLINUX)
    source: Path | bytes = VMLINUX if how == "bytes" else tmp_path / "kernel"
    request = BootRequest(unsafe=how == "unsafe")
    plan = Assembly(x86(8 * MIB if how == "refused" else 64 * MIB), request)
    asked: list[Range] = []
    with contextlib.suppress(LoaderError):
        assemble(source, plan, tmp_path, lambda part, _: asked.append(part))
    assert not asked
    assert (tmp_path / "boot.json").exists() == (how != "refused")


def test_ram_image_is_sparse(tmp_path: Path) -> None:
    assembled(VMLINUX, tmp_path, x86(2 * GIB))
    status = (tmp_path / "ram.img").stat()
    assert (status.st_size, status.st_blocks * 512 < MIB) == (2 * GIB, True)


def test_arm64(dtb: bytes, tmp_path: Path) -> None:
    found = assembled(IMAGE, tmp_path, arm64(), cmdline=b"x", dtb=dtb, kernel_offset=GIB + 2 * MIB)
    assert (found.protocol, found.image.arch) == ("arm64", "aarch64")
    assert found.image.entry == GIB + 2 * MIB


@pytest.mark.parametrize(
    ("kernel", "how", "protocol", "entry", "state"),
    [
        (WITH_PVH, {}, "pvh", PVH_ENTRY, PvhState.PRESENT),
        (WITH_PVH, {"protocol": "linux64"}, "linux64", 16 * MIB, PvhState.PRESENT),
        (WITH_PVH, {"kernel_offset": 0}, "linux64", 16 * MIB, PvhState.IGNORED),
        (WITH_PVH, {"kernel_offset": 2 * MIB}, "linux64", 18 * MIB, PvhState.IGNORED),
        (VMLINUX, {}, "linux64", 16 * MIB, PvhState.NOT_PRESENT),
        (BZIMAGE, {}, "linux64", MIB + 0x200, PvhState.IGNORED),
        (BZIMAGE, {"protocol": "linux32"}, "linux32", MIB, PvhState.IGNORED),
    ],
)
def test_protocol_taken(
    kernel: bytes,
    how: Mapping[str, Any],
    protocol: str,
    entry: int,
    state: PvhState,
    tmp_path: Path,
) -> None:
    found = assembled(kernel, tmp_path, **how)
    assert (found.protocol, found.image.protocol) == (protocol, protocol)
    assert found.image.entry == entry
    assert found.kernel.pvh_boot_cap.state is state


# --- refusals ----------------------------------------------------------------------------------


def refused(kernel: bytes, directory: Path, machine: Machine | None = None, **how: Any) -> str:
    """The refusal in one line; no file stays."""
    with pytest.raises(LoaderError) as error:
        assembled(kernel, directory, machine, **how)
    assert list(directory.iterdir()) == []
    text = str(error.value)
    assert text.isprintable()
    return text


@pytest.mark.parametrize(
    ("kernel", "how", "text"),
    [
        (b"no kernel", {}, "image: not a kernel that can be loaded (it is: unknown)"),
        (
            IMAGE,
            {},
            "image: a kernel for aarch64 cannot boot on a machine of x86_64",
        ),
        (
            images.elf(images.load(MIB, CODE), machine=183),
            {},
            "image: a kernel for aarch64 cannot boot on a machine of x86_64",
        ),
        (
            VMLINUX,
            {"protocol": "pvh"},
            "image: no PVH entry: the kernel has no PVH note",
        ),
        (
            WITH_PVH,
            {"protocol": "pvh", "kernel_offset": 0},
            "image: no PVH entry: the capability is ignored because an offset was requested",
        ),
        (BZIMAGE, {"protocol": "pvh"}, "image: no PVH entry: the format has none"),
        (
            VMLINUX,
            {"protocol": "linux32"},
            "image: the kernel cannot be entered through linux32; it offers: linux64",
        ),
        (
            VMLINUX,
            {"protocol": "multiboot"},
            "image: no boot protocol is called 'multiboot'; known: linux64, linux32, pvh, arm64",
        ),
        (
            VMLINUX,
            {"cmdline": b"x" * 2048},
            "image: the command line has 2048 bytes but the kernel takes at most 2047",
        ),
    ],
)
def test_refused(kernel: bytes, how: Mapping[str, Any], text: str, tmp_path: Path) -> None:
    assert refused(kernel, tmp_path, **how).startswith(text)


def test_bzimage_is_never_entered_through_a_protocol_of_another_format(tmp_path: Path) -> None:
    text = refused(BZIMAGE, tmp_path, protocol="pvh")
    assert "--memory" not in text


def test_arm64_without_a_device_tree_is_not_told_to_take_more_memory(tmp_path: Path) -> None:
    text = refused(IMAGE, tmp_path, arm64(), kernel_offset=GIB + 2 * MIB)
    assert text == "image: arm64 kernels need a device tree"


@pytest.mark.parametrize("exists", ["file", "directory", "link"])
def test_a_ram_image_that_is_there_already_is_not_touched(exists: str, tmp_path: Path) -> None:
    ram = tmp_path / "ram.img"
    if exists == "file":
        ram.write_text("somebody's")
    elif exists == "directory":
        ram.mkdir()
    else:
        (tmp_path / "precious").write_text("somebody's")
        ram.symlink_to(tmp_path / "precious")
    before = ram.lstat()
    with pytest.raises(LoaderError, match="cannot create the RAM file: File exists"):
        assembled(VMLINUX, tmp_path)
    assert ram.lstat().st_ino == before.st_ino
    assert exists != "link" or (tmp_path / "precious").read_text() == "somebody's"


def test_what_is_refused_is_refused_before_ram_is_written(tmp_path: Path) -> None:
    """Into no directory: a kernel that can be loaded says so, one that is refused does not."""
    nowhere = tmp_path / "nowhere"
    with pytest.raises(LoaderError, match="multiple of 2 MiB"):
        assembled(VMLINUX, nowhere, kernel_offset=MIB)
    with pytest.raises(LoaderError, match="--memory"):
        assembled(VMLINUX, nowhere, x86(memory=8 * MIB))
    with pytest.raises(LoaderError, match="cannot create the RAM file"):
        assembled(VMLINUX, nowhere)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_that_is_full_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """boot.json cannot be written: the whole image goes, and what is said is one line."""
    (tmp_path / "boot.json.part").symlink_to("/dev/full")
    with pytest.raises(LoaderError, match="No space left on device"):
        assembled(VMLINUX, tmp_path)
    assert not (tmp_path / "ram.img").exists()
    assert not (tmp_path / "boot.json").exists()


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    count = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        assembled(VMLINUX, tmp_path / str(number), initrd=bytes(MIB))
        with pytest.raises(LoaderError):
            assembled(VMLINUX, tmp_path / str(number), initrd=bytes(64 * MIB))
    assert len(os.listdir("/proc/self/fd")) == count  # noqa: PTH208


# --- the memory that would do ------------------------------------------------------------------


def advised(text: str) -> int:
    """The size in "...; give the guest at least 129 MiB (--memory)"."""
    words = text.partition("give the guest at least ")[2].split()
    assert words[2] == "(--memory)", text
    return int(words[0]) * {"MiB": MIB, "GiB": GIB}[words[1]]


@pytest.mark.parametrize(
    ("kernel", "how"),
    [
        (images.elf(images.load(16 * MIB, CODE, memsz=64 * MIB)), {}),
        (images.bzimage(CODE, init_size=50 * MIB), {}),
        (VMLINUX, {"kernel_offset": 512 * MIB}),
        (VMLINUX, {"initrd": bytes(60 * MIB)}),
        (BZIMAGE, {"initrd": bytes(64 * MIB), "cmdline": b"x" * 2000}),
        (WITH_PVH, {"initrd": bytes(48 * MIB)}),
    ],
)
def test_advised_memory_does_and_less_does_not(
    kernel: bytes, how: Mapping[str, Any], tmp_path: Path
) -> None:
    size = advised(refused(kernel, tmp_path, **how))
    assert size > 64 * MIB
    refused(kernel, tmp_path, x86(size - MIB), **how)
    assembled(kernel, tmp_path, x86(size), **how)


def test_advised_memory_on_aarch64(dtb: bytes, tmp_path: Path) -> None:
    how = {"kernel_offset": GIB + 128 * MIB, "dtb": dtb, "initrd": bytes(10 * MIB)}
    size = advised(refused(IMAGE, tmp_path, arm64(), **how))
    assert size > 128 * MIB
    refused(IMAGE, tmp_path, arm64(size - MIB), **how)
    assembled(IMAGE, tmp_path, arm64(size), **how)


def test_no_memory_helps_a_kernel_in_a_hole(tmp_path: Path) -> None:
    """Between the banks of a machine there never is RAM."""
    text = refused(VMLINUX, tmp_path, x86(2816 * MIB), kernel_offset=0xC0000000)
    assert text.endswith("no amount of memory helps on this machine; load it elsewhere (--offset)")


MAGICS: Final = {"aarch64": images.ARM64, "riscv64": images.RISCV64}
BOARDS: Final = [(arch, board) for arch in ARCHES.values() for board in arch.boards]


@pytest.mark.parametrize("above", [0, 64 * GIB, 800 * GIB])
@pytest.mark.parametrize(("arch", "board"), BOARDS, ids=[board for _, board in BOARDS])
def test_no_size_is_advised_that_a_board_cannot_have(
    arch: Arch, board: str, above: int, tmp_path: Path
) -> None:
    most, banks = arch.most_memory(board), arch.on(board).banks
    machine = Machine(arch.name, 64 * MIB, most, banks)
    end = sum(banks(most)[-1])
    kernel = VMLINUX if arch.name == "x86_64" else images.image(MAGICS[arch.name])
    text = refused(kernel, tmp_path, machine, kernel_offset=end + above)
    assert "(--memory)" not in text
    assert text.endswith("no amount of memory helps on this machine; load it elsewhere (--offset)")


def test_advice_only_where_memory_is_what_is_missing(tmp_path: Path) -> None:
    for how in ({"cmdline": b"x" * 2048}, {"protocol": "linux32"}, {"protocol": "pvh"}):
        assert "(--memory)" not in refused(VMLINUX, tmp_path, **how)


def test_unsafe_takes_what_is_refused(tmp_path: Path) -> None:
    kernel = images.elf(images.load(16 * MIB, CODE))
    assert "multiple of 2 MiB" in refused(kernel, tmp_path, kernel_offset=0x1000)
    found = assembled(kernel, tmp_path, unsafe=True, kernel_offset=0x1000)
    assert found.image.entry == 16 * MIB + 0x1000
    assert found.image.region("kernel") == Range(16 * MIB + 0x1000, 0x3000)


def test_table_of_loaders_has_every_loadable_format() -> None:
    assert {format_ for format_ in assembly.LOADERS if not Format(format_).loadable} == set()
    assert replace(x86(), memory=128 * MIB).banks == ((0, 128 * MIB),)
