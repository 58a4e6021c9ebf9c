"""`bootproof run`: boot images of other programs on real QEMU, honest and hostile ones."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from bootproof import loader
from bootproof.harness import cli, given_image, prepare
from bootproof.harness import run as run_module
from bootproof.harness.exitcode import USAGE
from bootproof.harness.qemu.placement import PlacedImage, place_image
from bootproof.harness.terms import Budget, Placement
from bootproof.loader import bootimage, initramfs
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch import Registers
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.layout import Region
from bootproof.loader.memory import Bank, GuestMemory, data_extents
from bootproof.loader.protocols import acpi
from bootproof.loader.protocols.e820 import LEGACY_HOLE
from bootproof.scenarios.museum.scene import Scene
from bootproof.scenarios.museum.table import EXHIBITS
from tests import ROOT
from tests.builders import images, trees
from tests.builders.acpi import split
from tests.builders.guests import (
    MEMORY,
    PAGE_TABLES,
    Claim,
    Guest,
    Program,
    flat32,
    flat64,
    framed,
    machine,
    program,
)
from tests.builders.programs import host_program
from tests.harness.guest.test_logbuffer import FIRST, ring
from tests.harness.qemu.test_machine import skip_without

WRITERS: Final = ROOT / "examples"
LANGUAGES: Final = ("c", "rs")
ZERO_PAGE, CMDLINE, ENTRY = 0x7000, 0x20000, 2 * MIB
NONCE: Final = "0123456789abcdef0123456789abcdef"
PROVING: Final = f"console=ttyS0 rdinit=/bootproof/init bootproof.nonce={NONCE}"
KERNEL: Final = Region("kernel", Range(ENTRY, 2 * MIB))

Change = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Result:
    """What `bootproof run` said and left."""

    code: int
    output: str
    error: str
    directory: Path

    @property
    def verdict(self) -> str:
        """The verdict and its reason."""
        return self.said("verdict")

    def said(self, what: str) -> str:
        lines = (line for line in self.output.splitlines() if line.startswith(f"{what} "))
        return "; ".join(line.removeprefix(what).strip() for line in lines)


Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `bootproof run DIR OPTIONS`, and sees to it that DIR stays as it is. A guest that does
    nothing more is given up soon.
    """
    soon = replace(Budget(), parked_cpu_seconds=0.1, parked_looks=4)
    monkeypatch.setattr(prepare, "Options", partial(prepare.Options, soon))

    def call(directory: Path, *options: str) -> Result:
        out = tmp_path / "out"
        before = contents(directory)
        capfd.readouterr()
        code = cli.main(["run", str(directory), "--out", str(out), *options])
        said = capfd.readouterr()
        assert contents(directory) == before
        if code == USAGE:
            assert re.fullmatch(r"bootproof: [^\n]+\n", said.err) and len(said.err) < 1000
        else:
            assert said.err == ""
        return Result(code, said.out, said.err, out)

    return call


def contents(directory: Path) -> Mapping[str, object]:
    """Everything about the files of a directory that a run might change."""
    found: dict[str, object] = {}
    for path in directory.glob("*"):
        about = path.lstat()
        data = held(path) if path.is_file() else {}
        found[path.name] = (about.st_mode, about.st_uid, about.st_mtime_ns, about.st_size, data)
    return found


def held(path: Path) -> Mapping[int, bytes]:
    """What a file holds, its holes left out."""
    with path.open("rb", buffering=0) as file:
        size = path.stat().st_size
        return {
            start: os.pread(file.fileno(), end - start, start)
            for start, end in data_extents(file.fileno(), 0, size)
        }


# --- images ------------------------------------------------------------------------------------


def zero_page(
    cmdline: int = CMDLINE,
    type_of_loader: int = 0xFF,
    ram: tuple[tuple[int, int], ...] = ((0, 0x9FC00), (MIB, MEMORY - MIB)),
) -> bytes:
    """struct boot_params with an E820 map, a command line, and nothing else."""
    page = bytearray(4096)
    page[0x1E8] = len(ram)
    for number, (start, size) in enumerate(ram):
        struct.pack_into("<QQI", page, 0x2D0 + 20 * number, start, size, 1)
    page[0x210] = type_of_loader
    struct.pack_into("<I", page, 0x228, cmdline)
    return bytes(page)


@dataclass(frozen=True)
class Image:
    """A boot image of x86_64, by default one that follows the 64-bit protocol and proves nothing.

    `description` changes boot.json's text afterwards.
    """

    program: Program
    protocol: str = "linux64"
    registers: Registers | None = None
    cmdline: str = "console=ttyS0"
    page: bytes = field(default_factory=zero_page)
    extra: Mapping[int, bytes] = field(default_factory=dict)
    regions: tuple[Region, ...] = (KERNEL,)
    banks: tuple[Bank, ...] | None = None

    def write(self, directory: Path, description: Change | None = None) -> Path:
        directory.mkdir()
        registers = self.registers or flat64(self.program.entry, rsi=ZERO_PAGE)
        content = {ZERO_PAGE: self.page, CMDLINE: self.cmdline.encode() + b"\0"}
        guest = Guest(self.program, registers, {**content, **self.extra}, self.regions)
        image = guest.write(directory, machine("x86_64"))
        if self.banks:
            image = self._moved(image, directory)
        bootimage.save(replace(image, protocol=self.protocol), directory)
        if description:
            data = json.loads((directory / "boot.json").read_text())
            description(data)
            (directory / "boot.json").write_text(json.dumps(data))
        return directory

    def _moved(self, image: BootImage, directory: Path) -> BootImage:
        """The same guest memory in other banks, at other places of the file."""
        assert self.banks
        (directory / "ram.img").rename(directory / "as-written")
        with (
            GuestMemory.open(directory / "as-written", image.banks) as source,
            GuestMemory(self.banks, path=directory / "ram.img") as target,
        ):
            for extent in source.data_extents():
                target.write(extent.start, source.read(extent.start, extent.size))
        (directory / "as-written").unlink()
        return replace(image, banks=self.banks)


def says(text: bytes) -> Program:
    """A guest that prints and then resets the machine, which ends the run."""
    return program("x86_64", ENTRY).say(text).reset()


def stays(text: bytes) -> Program:
    """A guest that prints and then waits for ever."""
    return program("x86_64", ENTRY).say(text).halt()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return Image(stays(b"hello\r\nlogin: ")).write(tmp_path / "image")


# --- guests without a proof --------------------------------------------------------------------


def test_clean_hand_over_is_all_that_is_claimed(image: Path, run: Run) -> None:
    result = run(image)
    assert result.code == 0
    assert result.verdict.startswith(
        "handed-over: entered at 0x200000 exactly as asked; then stuck"
    )
    assert result.verdict.endswith("million guest instructions in")
    assert "after 'login:'" in result.verdict
    assert result.said("|") == "hello; login:"
    assert result.said("proof") == "of the hand-over only: the guest carries no nonce of ours"
    assert result.said("hint") == "nothing was asked of what follows the hand-over (see --until)"
    assert result.said("memory") == "0x200000-0x3fffff        kernel"


def test_run_directory_has_everything_but_the_ram(image: Path, run: Run) -> None:
    result = run(image)
    names = {path.name for path in result.directory.iterdir()}
    assert {"boot.json", "ram.img", "qemu.sh", "console.log", "result.json"} <= names
    assert (result.directory / "ram.img").readlink() == image / "ram.img"
    assert bootimage.parse((result.directory / "boot.json").read_bytes()).entry == ENTRY
    report = json.loads((result.directory / "result.json").read_text())
    assert (report["verdict"], report["image"]) == ("handed-over", str(image))
    assert (report["code"], report["profile"], report["unseen"]) == (None, None, [])
    assert (report["key"]["machine"], report["key"]["memory"]) == ("q35", MEMORY)
    assert report["probe"]["differences"] == []


@pytest.mark.parametrize("much", [given_image._MUCH, 0])
def test_qemu_sh_starts_the_same_guest_again(
    much: int, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given_image, "_MUCH", much)
    guest = Image(says(b"hello\r\n"))
    result = run(guest.write(tmp_path / "image"))
    assert "; then the CPU was reset at 0x" in result.verdict
    console = tmp_path / "again.log"
    bounded = ["timeout", "--kill-after=5", "60"]  # ends the script and its QEMU together
    subprocess.run([*bounded, result.directory / "qemu.sh", console], check=True)
    assert console.read_bytes() == b"hello\r\n"


def test_much_data_is_mapped_where_the_file_is_as_the_machines_ram(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which changes nothing of what the guest does."""
    half = MEMORY // 2
    turned = (Bank(half, half, 0), Bank(0, half, half))
    found = set()
    for much, banks, placement in (
        (given_image._MUCH, None, "devices"),
        (0, None, "mapped"),
        (0, turned, "devices"),
    ):
        monkeypatch.setattr(given_image, "_MUCH", much)
        directory = tmp_path / f"image-{len(list(tmp_path.iterdir()))}"
        result = run(Image(says(b"hello\r\n"), banks=banks).write(directory))
        record = json.loads((result.directory / "replay.json").read_text())
        assert record["placement"] == placement
        found.add((result.verdict, record["instructions"]))
    assert len(found) == 1


@pytest.mark.parametrize(
    ("text", "options", "code", "verdict"),
    [
        (b"a\r\nlogin: ", ["--until", "login:"], 0, "handed-over: entered at 0x200000 exactly as"),
        (b"a\r\nlogin: ", ["--until", "$ "], 1, "stuck: stuck at 0x"),
        (
            b"a\r\n\x1b[1m\x1b[32mlog\x1b[0min: ",
            ["--until", "login:"],
            0,
            "handed-over: entered at 0x200000 exactly as",
        ),
        (b"", ["--until", "login:"], 1, "silent: stuck at 0x"),
        (b"", [], 1, "silent: stuck at 0x"),
        (b"Kernel panic - not syncing: no\r\n", [], 1, "panic: kernel panic: no"),
        (
            b"Kernel panic - not syncing: no\r\nlogin: ",
            ["--until", "login:"],
            1,
            "panic: kernel panic: no",
        ),
        (
            b"login: Kernel panic - not syncing: no\r\n",
            ["--until", "login:"],
            0,
            "handed-over: entered at 0x200000 exactly as asked; the console showed 'login:'",
        ),
        (b"", ["--only-handover"], 0, "handed-over: entered at 0x200000 exactly as asked, and st"),
        (b"bootproof: proof " + b"0" * 64 + b"\r\n", [], 0, "handed-over: "),
    ],
    ids=range(10),
)
def test_verdicts_without_a_proof(
    text: bytes, options: list[str], code: int, verdict: str, tmp_path: Path, run: Run
) -> None:
    program_ = stays(text) if text else program("x86_64", ENTRY).halt()
    result = run(Image(program_).write(tmp_path / "image"), *options)
    assert result.verdict.startswith(verdict)
    assert result.code == code
    if options[:1] == ["--until"] and code and "panic" not in verdict:
        assert result.verdict.endswith(f"the console never showed '{options[1]}'")


def test_reset_without_a_word_is_no_hand_over_to_be_proud_of(tmp_path: Path, run: Run) -> None:
    guest = Image(
        program("x86_64", ENTRY).reset(), protocol="none", registers=flat32(ENTRY, rsp=0x8000)
    )
    result = run(guest.write(tmp_path / "image"))
    assert (result.code, result.verdict.partition(":")[0]) == (1, "cpu-reset")


def test_broken_rule_is_named_and_a_tolerated_one_only_reported(tmp_path: Path, run: Run) -> None:
    registers = flat64(ENTRY, rsi=ZERO_PAGE)
    data = replace(registers.ds, selector=0x20)
    registers = replace(registers, ds=data, es=data, ss=data)
    result = run(Image(says(b"x"), registers=registers).write(tmp_path / "a"))
    assert (result.code, result.verdict.partition(":")[0]) == (0, "handed-over")
    assert "tolerated ds-selector: ds is 0x20, not __BOOT_DS 0x18" in result.said("entry")
    result = run(Image(says(b"x"), registers=flat64(ENTRY, rsi=0x5000)).write(tmp_path / "b"))
    assert result.code == 1
    assert result.verdict == "protocol-violation: e820: the zero page at 0x5000 has no E820 map"


def test_run_ends_with_the_line_that_was_waited_for(tmp_path: Path, run: Run) -> None:
    guest = Image(program("x86_64", ENTRY).say_for_ever(b"tick (1+1)\r\n"))
    result = run(guest.write(tmp_path / "image"), "--until", "tick (1+1)")
    assert result.code == 0
    assert json.loads((result.directory / "result.json").read_text())["end"] == "marker"


WARNED = b"[    0.5] WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2\r\nlogin: "


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--fail-on-complaints",), 1)])
def test_complaints_are_told_and_fail_where_that_is_asked(
    options: tuple[str, ...], code: int, tmp_path: Path, run: Run
) -> None:
    guest = Image(says(WARNED))
    result = run(guest.write(tmp_path / "image"), "--until", "login:", *options)
    assert result.code == code
    warning = "WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2"
    assert result.said("complaint") == f"warning: {warning}"
    assert result.said("problem") == (f"the kernel complained: {warning}" if code else "")
    (told,) = json.loads((result.directory / "result.json").read_text())["complaints"]
    assert (told["kind"], told["count"], told["after_proof"]) == ("warning", 1, False)


@pytest.mark.parametrize("wrong", [False, True])
def test_what_lies_in_ram_before_the_kernel_begins_is_no_log(
    wrong: bool, tmp_path: Path, run: Run
) -> None:
    """The image was dumped when the guest had run before: its log is still there."""
    lines = (b"Linux version 6.1.0", WARNED[WARNED.index(b"WARN") :].split(b"\r")[0], b"x", b"y")
    registers = flat64(ENTRY, rsi=0x5000 if wrong else ZERO_PAGE)
    guest = Image(says(b"x"), registers=registers, extra={0x600000: ring(FIRST, *lines)})
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("protocol-violation: " if wrong else "handed-over: ")
    assert result.said("complaint") == ""


@pytest.mark.parametrize("said", [False, True])
def test_text_of_the_kernels_command_line_proves_nothing(
    said: bool, tmp_path: Path, run: Run
) -> None:
    """A kernel says its words again anywhere: in a list of them, of its init, in a panic."""
    code = program("x86_64", ENTRY)
    for begin in (b"Kernel command line: ", b"Unknown kernel command line parameters "):
        code.say(b"[    0.000000] " + begin + b'"quiet until=ready", or not\r\n')
    code.say(b"[    0.0] Command line: [    0.0] ---[ end Kernel panic\r\n")
    if said:
        code.say(b"Requested init until=ready failed\r\n")
    result = run(Image(code.reset()).write(tmp_path / "image"), "--until", "until=ready")
    assert result.code == 1
    assert result.verdict.startswith("cpu-reset: ")
    assert result.verdict.endswith(
        "; 'until=ready' stands in the kernel's own command line: no proof"
    )


@pytest.mark.parametrize("until", ["busybox", "rdinit=/bootproof/busybox", "e"])
def test_text_of_the_images_command_line_is_not_waited_for(
    until: str, tmp_path: Path, run: Run
) -> None:
    guest = Image(says(b"Run /bootproof/busybox\r\n"), cmdline="quiet rdinit=/bootproof/busybox")
    result = run(guest.write(tmp_path / "image"), "--until", until)
    assert result.code == USAGE
    assert f"--until: '{until}' stands in the guest's own command line" in result.error


@pytest.mark.parametrize(
    "cmdline", [f'foo="{PROVING}"', f"quiet -- {PROVING}", f"{PROVING} rdinit=/a"]
)
def test_image_whose_kernel_runs_another_init_has_no_proof_to_give(
    cmdline: str, tmp_path: Path, run: Run
) -> None:
    result = run(Image(says(b"hello\r\n"), cmdline=cmdline).write(tmp_path / "image"))
    assert result.verdict.startswith("handed-over: ")


def test_budget_is_the_users(tmp_path: Path, run: Run) -> None:
    guest = Image(program("x86_64", ENTRY).say(b"tick\r\n").count())
    result = run(guest.write(tmp_path / "image"), "--budget-seconds", "0.5", "--until", "tock")
    assert (result.code, result.verdict.partition(":")[0]) == (1, "over-budget")


# --- guests that prove their boot --------------------------------------------------------------


def proving(claim: Callable[[Claim], bytes] = Claim.text, **changes: Any) -> Image:
    """A guest that carries a nonce, and says what `claim` makes of the truth."""
    truth = Claim(machine("x86_64"), ENTRY, NONCE, PROVING)
    return Image(says(claim(truth)), cmdline=PROVING, **changes)


def test_image_with_our_init_and_a_nonce_proves_its_boot(tmp_path: Path, run: Run) -> None:
    result = run(proving().write(tmp_path / "image"))
    assert result.verdict == "booted: 6.1.0-test proved its boot; kernel code at 0x200000"
    assert result.code == 0
    assert result.said("proof") == "by the guest itself: it carries a nonce and our init"
    assert result.said("cmdline") == PROVING


RAM_SEEN = "the guest sees RAM 0x1000-0x9fbff, 0x100000-0xffffff"


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (
            proving(lambda truth: truth.text(bootloader_type="176")),
            "bootloader_type is 176, not 255",
        ),
        (
            proving(page=zero_page(type_of_loader=0xB0)),
            "bootloader_type is 255, not 176",
        ),
        (
            proving(lambda truth: truth.text(nonce="0" * 32)),
            "the proof is not over this case's nonce and this evidence",
        ),
        (
            proving(lambda truth: truth.text(cmdline="console=ttyS0")),
            f"the command line is 'console=ttyS0', not '{PROVING}'",
        ),
        (proving(lambda truth: truth.text(cpus="2")), "the guest has 2 CPUs, not 1"),
        (
            proving(lambda truth: truth.text(code="00400000-00400fff")),
            "the kernel runs at 0x400000, outside of its region 0x200000-0x3fffff",
        ),
        (
            proving(page=zero_page(ram=((0, 0x9FC00), (MIB, 3 * MIB)))),
            f"{RAM_SEEN}, not 0x1000-0x9fbff, 0x100000-0x3fffff",
        ),
    ],
    ids=range(7),
)
def test_contradictions_to_the_image(image: Image, reason: str, tmp_path: Path, run: Run) -> None:
    result = run(image.write(tmp_path / "image"))
    assert (result.code, result.verdict.partition(";")[0]) == (1, f"booted-wrong: {reason}")


def test_image_that_never_proves_what_it_is_going_to_prove(tmp_path: Path, run: Run) -> None:
    """Output alone does not make it `handed-over`."""
    result = run(Image(stays(b"login: "), cmdline=PROVING).write(tmp_path / "image"))
    assert (result.code, result.verdict.partition(":")[0]) == (1, "stuck")


@pytest.mark.parametrize(
    "cmdline",
    [
        PROVING.replace("rdinit=/bootproof/init ", ""),
        PROVING.replace(NONCE, ""),
        "console=ttyS0 rdinit=/bootproof/init",
    ],
)
def test_without_init_or_nonce_there_is_no_proof(cmdline: str, tmp_path: Path, run: Run) -> None:
    guest = replace(proving(), cmdline=cmdline)
    result = run(guest.write(tmp_path / "image"))
    assert (result.code, result.verdict.partition(":")[0]) == (0, "handed-over")


def test_hand_over_of_a_proving_image_alone(tmp_path: Path, run: Run) -> None:
    result = run(proving().write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("handed-over: ")
    assert result.said("|") == ""
    assert result.said("proof") == "of the hand-over only: as asked"


def test_banks_in_any_order_in_the_file(tmp_path: Path, run: Run) -> None:
    half = MEMORY // 2
    banks = (Bank(half, half, 4096), Bank(0, half, half + 8192))
    result = run(replace(proving(), banks=banks).write(tmp_path / "image"))
    assert result.verdict == "booted: 6.1.0-test proved its boot; kernel code at 0x200000"


@pytest.mark.parametrize(
    ("banks", "machine_"),
    [
        pytest.param([(0, 0xA0000), (MIB, 15 * MIB)], "q35, qemu64,-cx16, 16 MiB", id="hole"),
        pytest.param([(0, MEMORY - 4096)], "q35, qemu64,-cx16, 16 MiB", id="odd"),
        pytest.param([(0, MEMORY + 4096)], "q35, qemu64,-cx16, 17 MiB", id="even-odder"),
        pytest.param([(0, 2 * GIB), (4 * GIB, GIB)], "q35, qemu64,-cx16, 3 GiB", id="q35"),
        pytest.param(
            [(0, 3 * GIB), (4 * GIB, 8192)], "microvm, qemu64,-cx16, 3073 MiB", id="microvm"
        ),
        pytest.param([(0, GIB), (4 * GIB, GIB)], "q35, qemu64,-cx16, 3 GiB", id="short-low-bank"),
        pytest.param(
            [(0, 3328 * MIB), (4 * GIB, GIB)],
            "pc-i440fx-1.7,max-ram-below-4g=3328M, qemu64,-cx16, 4352 MiB",
            id="crosvm",
        ),
    ],
)
def test_banks_of_any_size(
    banks: list[tuple[int, int]], machine_: str, tmp_path: Path, run: Run
) -> None:
    """The machine has RAM wherever the image has some, and maybe more."""
    skip_without(machine_.partition(", ")[0])
    places = tuple(Bank(base, size, 8192 + base) for base, size in banks)
    high = [(max(base, MIB), base + size) for base, size in banks if base + size > MIB]
    ram = ((0, 0x9FC00), *((base, end - base) for base, end in high))
    guest = Image(says(b"x"), page=zero_page(ram=ram), banks=places)
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("handed-over: ")
    assert machine_ in result.said("machine")


@pytest.mark.parametrize(("pstate", "board"), [(0x3C5, "virt"), (0x3C9, "virt,virtualization=on")])
def test_machine_starts_its_cpus_in_the_mode_of_the_image(
    pstate: int, board: str, tmp_path: Path, run: Run
) -> None:
    """At EL1 or at EL2: from neither a CPU of the other board can be brought to the other."""
    code = program("aarch64").halt()
    directory = tmp_path / "image"
    directory.mkdir()
    Guest(code, Arm64Registers(code.entry, pstate=pstate)).write(directory, machine("aarch64"))
    result = run(directory, "--only-handover")
    assert result.verdict.startswith("handed-over: ")
    assert f", {board}, " in result.said("machine")
    (other,) = {"virt", "virt,virtualization=on"} - {board}
    refused = run(directory, "--machine", other)
    level = pstate >> 2 & 3
    says = f"$.cpus[0]: the CPU is in EL{level}, and {other} starts none; --machine {board} does\n"
    assert (refused.code, refused.error.partition("boot.json: ")[2]) == (USAGE, says)


def test_of_what_is_refused_no_earlier_run_tells(image: Path, run: Run) -> None:
    assert run(image, "--only-handover").code == 0
    result = run(image, "--machine", "virt")
    assert result.code == USAGE
    assert list(result.directory.iterdir()) == []


GIC, GICV3 = (0x8000000, 0x8010000), (0x8000000, 0x80A0000)


def told_of(interrupts: tuple[int, ...], directory: Path) -> Path:
    """An arm64 image whose device tree has its interrupt controller there."""
    reg = b"".join(trees.quad(at, 0x10000) for at in interrupts)
    return arm64_image(directory, {"/intc": {"reg": reg}})


def arm64_image(directory: Path, changes: dict[str, dict[str, Any] | None], cpus: int = 1) -> Path:
    """An arm64 image of a device tree with these changes."""
    code = program("aarch64").halt()
    tree = trees.changed(
        trees.arm64(code.entry & ~0x3FFFFFFF, MEMORY)["firecracker"],
        changes if cpus > 1 else {"/cpus/cpu@1": None, **changes},
    )
    place = code.entry + 0x100000
    registers = Arm64Registers(code.entry, x=(place, *[0] * 30))
    guest = Guest(code, registers, {place: trees.device_tree(tree).to_bytes()})
    directory.mkdir()
    guest.write(directory, machine("aarch64"))
    description = directory / "boot.json"
    data = json.loads(description.read_text()) | {"protocol": "arm64"}
    data["cpus"] += [{**data["cpus"][0], "pc": "0x0"}] * (cpus - 1)
    description.write_text(json.dumps(data))
    return directory


@pytest.mark.parametrize(
    ("interrupts", "board"),
    [((), "virt"), (GIC, "virt"), (GICV3, "virt,gic-version=3"), (GICV3[:1], "virt")],
)
def test_machine_has_its_interrupt_controller_where_the_device_tree_says(
    interrupts: tuple[int, ...], board: str, tmp_path: Path, run: Run
) -> None:
    assert f", {board}, " in run(told_of(interrupts, tmp_path / "image")).said("machine")


@pytest.mark.parametrize(
    ("interrupts", "options", "says"),
    [
        (
            GICV3,
            ["--machine", "virt"],
            "virt has it at 0x8000000, 0x8010000: no kernel",
        ),
        (GICV3, ["--machine", "virt"], "; --machine virt,gic-version=3 has it there"),
        ((0x3FFF0000, 0x3FFD0000), [], "the interrupt controller at 0x3fff0000, 0x3ffd0000, and"),
        ((0x3FFF0000, 0x3FFD0000), [], "no kernel can boot on that; take --only-handover"),
    ],
)
def test_an_interrupt_controller_that_no_machine_has_is_no_panic_of_the_kernel(
    interrupts: tuple[int, ...], options: list[str], says: str, tmp_path: Path, run: Run
) -> None:
    directory = told_of(interrupts, tmp_path / "image")
    refused = run(directory, *options)
    assert (refused.code, says in refused.error) == (USAGE, True)
    assert "machine" in run(directory, *options, "--only-handover").output


@pytest.mark.parametrize(
    ("changes", "cpus", "says"),
    [
        (
            {"/psci": {"method": "smc"}},
            1,
            (
                "the guest calls its firmware by smc, as its device tree says, but that of virt is"
                " called by hvc: say so, or take --only-handover\n"
            ),
        ),
        (
            {
                "/cpus/cpu@1": {
                    "enable-method": "spin-table",
                    "cpu-release-addr": trees.quad(0x8000),
                }
            },
            2,
            (
                "CPU 0x1 waits for a spin-table, but QEMU's CPUs are off until PSCI starts them:"
                " have them started like that, or take --only-handover\n"
            ),
        ),
    ],
)
def test_how_no_machine_starts_its_cpus_is_no_fault_of_the_image(
    changes: dict[str, dict[str, Any] | None], cpus: int, says: str, tmp_path: Path, run: Run
) -> None:
    directory = arm64_image(tmp_path / "image", changes, cpus)
    refused = run(directory)
    assert (refused.code, refused.error.partition("boot.json: ")[2]) == (USAGE, says)
    assert run(directory, "--only-handover").verdict.startswith("handed-over: ")


def test_a_kernel_that_another_hart_enters_is_no_fault_of_the_image(
    tmp_path: Path, run: Run
) -> None:
    """Which hart a firmware goes on with is its own affair; QEMU's is told to take the first."""
    exhibit = next(e for e in EXHIBITS if e.name == "both-harts-enter")
    (tmp_path / "image").mkdir()
    exhibit.write(tmp_path / "image", fixed=True)
    description = tmp_path / "image" / "boot.json"
    data = json.loads(description.read_text())
    data["cpus"][0]["x"][10] = "0x1"
    description.write_text(json.dumps(data))
    refused = run(tmp_path / "image")
    says = "the guest is entered by CPU 0x1, as its registers say, but QEMU's first is 0: number"
    assert (refused.code, says in refused.error) == (USAGE, True)
    result = run(tmp_path / "image", "--only-handover")
    assert result.verdict.startswith("handed-over: ")


def test_an_interrupt_controller_that_no_machine_of_riscv64_has(tmp_path: Path, run: Run) -> None:
    """As QEMU's own virt,aia=aplic has it."""
    exhibit = next(e for e in EXHIBITS if e.name == "riscv-another-hart")
    (tmp_path / "image").mkdir()
    controller = {"reg": trees.quad(0xD000000, 0x8000), "phandle": 1}
    device = {"interrupts": 1, "interrupt-parent": 1}
    added = trees.device_tree({"/": {}, "/aplic@d000000": controller, "/serial": device}).nodes[1:]

    def change(scene: Scene) -> None:
        scene.tree(lambda tree: tree.nodes.extend(added))

    replace(exhibit, fixed=change).write(tmp_path / "image", fixed=True)
    refused = run(tmp_path / "image")
    says = "the device tree has the interrupt controller at 0xd000000, and virt has it at 0xc000000"
    assert (refused.code, says in refused.error) == (USAGE, True)


BOARDS = ("q35", "pc", "microvm")


@pytest.mark.parametrize("board", BOARDS)
def test_data_under_rom_is_there(board: str, tmp_path: Path, run: Run) -> None:
    """Where VMMs have an RSDP or MP tables, and QEMU's machines may have ROM: nothing else is
    there, of QEMU's firmware neither.
    """
    extra = {at: b"data %x" % at for at in (0x9FC00, 0xA0000, 0xC0000, 0xE0000, 0xF5000, 0xFFFF0)}
    guest = Image(says(b"x"), extra=extra)
    result = run(guest.write(tmp_path / "image"), "--only-handover", "--machine", board)
    assert result.verdict.startswith("handed-over: ")


def without_data(at: int) -> Callable[..., PlacedImage]:
    """place_image, and one blob, or the ROM, is lost."""

    def forgetful(*arguments: Any) -> PlacedImage:
        placed = place_image(*arguments)
        kept = tuple(blob for blob in placed.launch.blobs if blob.address != at)
        launch = replace(placed.launch, blobs=kept, rom=None)
        assert launch != placed.launch
        return replace(placed, launch=launch)

    return forgetful


@pytest.mark.parametrize("at", [0xA0000, 0xE0000])
def test_data_under_rom_that_is_not_there_is_named(
    at: int, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Image(says(b"x"), extra={at: b"RSD DATA"}).write(tmp_path / "image")

    monkeypatch.setattr(run_module, "place_image", without_data(at))
    result = run(directory)
    assert result.code == 1
    assert f"handover-wrong: RAM at {at:#x} is " in result.verdict
    assert result.verdict.split(";")[0].endswith(", not 52 53 44 20 44 41 54 41")


def test_what_a_machine_does_not_let_under_its_rom_breaks_no_rule_of_the_image(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The RSDP that kernels scan for is lost, and with it the second CPU."""
    guest = Image(says(b"x"), extra={0xE0000: acpi.tables(0xE0000, 2)})
    monkeypatch.setattr(run_module, "place_image", without_data(0xE0000))
    result = run(guest.write(tmp_path / "image"), "--smp", "2", "--only-handover")
    assert result.verdict.startswith("handover-wrong: RAM at 0xe0000 is ")


def test_rules_read_what_lies_under_rom(tmp_path: Path, run: Run) -> None:
    """ACPI tables of two CPUs at 0xe0000: right, and then with one byte changed."""
    page = bytearray(zero_page())
    struct.pack_into("<Q", page, 0x70, 0xE0000)
    tables = acpi.tables(0xE0000, 2)
    guest = Image(says(b"x"), page=bytes(page), extra={0xE0000: tables})
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("handed-over: ")
    assert "2 CPUs" in result.said("machine")
    broken = replace(guest, extra={0xE0000: tables[:8] + b"?" + tables[9:]})
    result = run(broken.write(tmp_path / "broken"), "--only-handover")
    assert "tolerated acpi: the checksum of the RSDP at 0xe0000 is wrong" in result.output


def test_zeros_in_the_file_are_free_room(tmp_path: Path, run: Run) -> None:
    """A plain copy has no holes."""
    directory = Image(says(b"x")).write(tmp_path / "image")
    data = (directory / "ram.img").read_bytes()
    (directory / "ram.img").unlink()
    (directory / "ram.img").write_bytes(data)
    assert (directory / "ram.img").stat().st_blocks * 512 >= MEMORY
    result = run(directory, "--only-handover")
    assert result.verdict.startswith("handed-over: ")
    assert (result.directory / "stub0.bin").stat().st_size < 4096


def test_page_tables_that_map_the_kernel_alone(tmp_path: Path, run: Run) -> None:
    """boot.rst asks for no more than kernel, zero page and command line."""
    high = 2 * ENTRY
    directory = {
        PAGE_TABLES + 0x2000: struct.pack("<3Q", 0, ENTRY | 0x83, high | 0x83) + bytes(4072)
    }
    registers = flat64(ENTRY, rsi=high)
    guest = Image(
        says(b"x"), registers=registers, extra={high: zero_page(high + 4096), **directory}
    )
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("handed-over: ")


def test_five_levels_of_page_tables_have_a_cpu_that_has_them(tmp_path: Path, run: Run) -> None:
    top = 0x500000
    registers = flat64(ENTRY, rsi=ZERO_PAGE, cr3=top, cr4=0x1020)
    guest = Image(says(b"x"), registers=registers, extra={top: struct.pack("<Q", PAGE_TABLES | 3)})
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("handed-over: ")
    assert "max,-cx16,-rdrand,-rdseed" in result.said("machine")


@pytest.mark.parametrize(("cr4", "said"), [(0x2020, "cr4 0x2020"), (0x4020, "cr4 0x4020")])
def test_a_register_that_the_cpu_does_not_take_is_named(
    cr4: int, said: str, tmp_path: Path, run: Run
) -> None:
    """VMX and SMX, which TCG has not got."""
    guest = Image(says(b"x"), registers=flat64(ENTRY, rsi=ZERO_PAGE, cr4=cr4))
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("entry-not-reached: ")
    assert f", where it does not take {said}: this CPU has not all" in result.verdict


# --- images of several CPUs --------------------------------------------------------------------


def two_cpus(data: dict[str, Any]) -> None:
    data["cpus"] *= 2


def running(data: dict[str, Any]) -> None:
    """The second CPU is where there is code, and not halted."""
    two_cpus(data)
    data["cpus"] = [data["cpus"][0], data["cpus"][1] | {"rip": hex(ENTRY + 1)}]


def two_told(guest: Image) -> Image:
    """The same with ACPI tables of two CPUs."""
    page = bytearray(guest.page)
    struct.pack_into("<Q", page, 0x70, 0xE0000)
    return replace(guest, page=bytes(page), extra={**guest.extra, 0xE0000: acpi.tables(0xE0000, 2)})


@pytest.mark.parametrize(
    ("seen", "change", "told", "verdict"),
    [
        (2, two_cpus, True, "booted: 6.1.0-test proved its boot; kernel code at 0x200000"),
        (1, two_cpus, True, "booted-wrong: the guest has 1 CPU, not 2"),
        (2, two_cpus, False, "protocol-violation: cpus: the MADT or MP table tells of 1, but the"),
        (2, running, True, "protocol-violation: secondary-cpu: CPU 1 is at 0x200001 in 64-bit mo"),
    ],
)
def test_an_image_of_two_cpus_boots_with_two(
    seen: int, change: Change, told: bool, verdict: str, tmp_path: Path, run: Run
) -> None:
    guest = proving(lambda truth: truth.text(cpus=str(seen)))
    directory = (two_told(guest) if told else guest).write(tmp_path / "image", change)
    result = run(directory)
    assert ", 2 CPUs, " in result.said("machine")
    assert result.verdict.startswith(verdict)
    assert result.code == (0 if verdict.startswith("booted:") else 1)


def test_cpus_of_other_numbers_than_qemus_are_refused_and_not_called_missing(
    tmp_path: Path, run: Run
) -> None:
    """A VMM may number its CPUs as it likes: the image is right on its own machine."""
    guest = two_told(proving(lambda truth: truth.text(cpus="1")))
    tables = bytearray(guest.extra[0xE0000])
    at = split(bytes(tables), 0xE0000)["APIC"][0]
    tables[at + 44 + 8 + 3] = 5
    tables[at + 9] = (tables[at + 9] - 4) & 0xFF
    guest = replace(guest, extra={**guest.extra, 0xE0000: bytes(tables)})
    directory = guest.write(tmp_path / "image", two_cpus)
    refused = run(directory)
    says = (
        "the guest is told of CPU 0x5 by its tables, but QEMU's 2 CPUs are 0 to 1, and no other can"
        " be started: number them like that, or take --only-handover\n"
    )
    assert (refused.code, refused.error.partition("boot.json: ")[2]) == (USAGE, says)
    assert run(directory, "--only-handover").verdict.startswith("handed-over: ")


# --- what is refused before anything starts ----------------------------------------------------


def other_bank(size: int, address: int = 0) -> Change:
    bank = {"address": address, "size": size, "offset": 0}
    return lambda data: data.update(banks=[bank], entry=data["entry"])


def register(name: str, value: object) -> Change:
    def change(data: dict[str, Any]) -> None:
        data["cpus"][0][name] = value
        data.pop("entry")

    return change


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        (two_cpus, ["--smp", "1"], "$.cpus: registers for 2 CPUs, but 1 of them asked for (--smp"),
        (
            None,
            ["--memory", "128M"],
            f"$.banks: {MEMORY // MIB} MiB of RAM, but 128 MiB was asked for (--memory)",
        ),
        (
            other_bank(MEMORY, 0xF0000000),
            [],
            f"$.banks: RAM at {Range(0xF0000000, MEMORY)}, but q35 with the most it can have, 64",
        ),
        (
            other_bank(3 * GIB),
            ["--machine", "q35"],
            "has it at 0x0-0x7fffffff, 0x100000000-0x107fffffff; --machine pc has RAM there",
        ),
        (other_bank(1 << 43), [], "RAM at 0x0-0x7ffffffffff, but q35 with the most it can have"),
        (None, ["--machine", "virt"], "machine 'virt' is not known for x86_64; known: q35, pc"),
        (
            register("rflags", 0x80002),
            [],
            "boot.json: rflags 0x80002: has flags that cannot be set",
        ),
        (
            register("gdtr", {"base": 0, "limit": 1 << 40}),
            [],
            "boot.json: gdtr 0x10000000000: does not fit 16 bits (gdtr limit)",
        ),
    ],
    ids=range(8),
)
def test_refused(
    change: Change | None, options: list[str], reason: str, tmp_path: Path, run: Run
) -> None:
    directory = Image(says(b"x")).write(tmp_path / "image", change)
    os.truncate(directory / "ram.img", 1 << 43)
    result = run(directory, *options)
    assert result.code == USAGE, result.output
    assert reason in result.error


@pytest.mark.parametrize(
    ("change", "broken", "why"),
    [
        (register("cr0", 0), "paging: ", "cr0 0x10: must have PE"),
        (register("efer", 0), "long-mode: ", "efer 0x0: LMA, LME, CR0.PG and CS.L do not agree"),
        (register("rflags", (1 << 64) - 1), "interrupts: ", "rflags 0xffffffffffffffff: "),
    ],
    ids=("cr0", "efer", "rflags"),
)
def test_what_no_cpu_can_be_and_no_kernel_wants_is_judged(
    change: Change, broken: str, why: str, tmp_path: Path, run: Run
) -> None:
    result = run(Image(says(b"x")).write(tmp_path / "image", change))
    assert result.code == 1, result.error
    assert result.verdict.startswith("protocol-violation: ")
    assert broken in result.verdict
    assert f"nothing was started: {why}" in result.verdict
    assert result.said("record") == "none: nothing was started"
    assert not (result.directory / "console.log").exists()


def test_nothing_else_is_waited_for_when_there_is_a_proof(tmp_path: Path, run: Run) -> None:
    result = run(proving().write(tmp_path / "image"), "--until", "login:")
    assert result.code == USAGE
    assert "--until: this boot image proves its boot" in result.error


@pytest.mark.parametrize("above", [0, 1])
def test_image_is_never_its_own_run_directory(image: Path, above: int, tmp_path: Path) -> None:
    out = image if above == 0 else tmp_path
    before = contents(image)
    assert cli.main(["run", str(image), "--out", str(out)]) == USAGE
    assert cli.main(["run", str(image), "--out", f"{out}/../{out.name}"]) == USAGE
    (tmp_path / "link").symlink_to(out)
    assert cli.main(["run", str(image), "--out", str(tmp_path / "link")]) == USAGE
    assert contents(image) == before


# --- strangers ---------------------------------------------------------------------------------


def test_a_loop_of_links_is_no_boot_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert cli.main(["run", str(tmp_path / "loop"), "--out", str(tmp_path / "out")]) == USAGE
    said = capsys.readouterr().err
    assert said == f"bootproof: {tmp_path}/loop/boot.json: no boot image: is a symbolic link\n"


@pytest.mark.parametrize("name", ["boot.json", "ram.img"])
@pytest.mark.parametrize("kind", ["link", "fifo", "nothing"])
def test_no_file_of_the_host_is_read(
    name: str, kind: str, image: Path, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "secret").write_text("the host's")
    (image / name).unlink()
    if kind == "link":
        (image / name).symlink_to("/dev/zero" if name == "ram.img" else tmp_path / "secret")
    elif kind == "fifo":
        os.mkfifo(image / name)
    result = run(image)
    reason = {"link": "is a symbolic link", "fifo": "not a regular file"}.get(kind, "No such file")
    assert f"{image / name}: no boot image: {reason}" in result.error
    assert "host's" not in result.output + result.error


def test_page_tables_that_point_at_themselves(tmp_path: Path, run: Run) -> None:
    """Followed one by one they would be 2^36 tables."""
    itself = struct.pack("<Q", PAGE_TABLES | 3) * 511
    guest = Image(says(b"x"), extra={PAGE_TABLES + 8: itself})
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("handed-over: ")


OUTSIDE = [Range(1 << 40, MIB), Range(MEMORY - 4096, 8192)]


@pytest.mark.parametrize("area", [Range(0, 1 << 63), *OUTSIDE])
def test_regions_outside_of_ram_are_left_out(area: Range, tmp_path: Path, run: Run) -> None:
    guest = Image(says(b"x"), regions=(Region("queue", area),))
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.verdict.startswith("handed-over: ")
    assert result.said("memory") == ""


@pytest.mark.parametrize("area", OUTSIDE)
def test_kernel_outside_of_ram(area: Range, tmp_path: Path, run: Run) -> None:
    guest = Image(says(b"x"), regions=(Region("kernel", area),))
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert f"kernel: the kernel {area} (region kernel of boot.json) is not all" in result.verdict


def test_kernel_everywhere(tmp_path: Path, run: Run) -> None:
    """The region is walked page by page; nobody says that it is true."""
    guest = Image(says(b"x"), regions=(Region("kernel", Range(0, 1 << 63)),))
    result = run(guest.write(tmp_path / "image"), "--only-handover")
    assert result.code == 1
    assert "nothing was started: guest RAM is full" in result.verdict


@pytest.mark.parametrize(
    "entries", [12 * MIB // 24, 0xFFFFFFFF], ids=["that RAM has room for", "more than that"]
)
def test_memory_map_with_a_great_many_entries(entries: int, tmp_path: Path, run: Run) -> None:
    """They are not read."""
    info = struct.pack("<IIIIQQQQII", 0x336EC578, 1, 0, 0, 0, 0, 0, 0x1000, entries, 0)
    registers = flat32(ENTRY, rbx=0x6000)
    guest = Image(says(b"x"), "pvh", registers, extra={0x6000: info})
    result = run(guest.write(tmp_path / "image"))
    assert result.code == 1
    said = f"map-count: the memory map has {entries} entries; Linux has room for 128"
    assert said in result.verdict


def test_names_and_text_never_reach_a_shell(tmp_path: Path) -> None:
    """Even when the reader's check of names were not there."""
    evil = "$console$(touch /tmp/evil);`id`'\"\n/../x" + "y" * 300
    directory = Image(says(b"x")).write(tmp_path / "image")
    image = bootimage.open_boot_image(directory)
    image = replace(image, regions=(Region(evil, KERNEL.range),))
    with bootimage.open_ram(image, directory) as memory:
        plan = place_image(image, memory, machine("x86_64"), Placement.DEVICES)
    assert all(re.fullmatch(r"devices/[\w-]{1,64}-0x[0-9a-f]+\.bin", p.path) for p in plan.files)


@pytest.mark.parametrize("count", [1, 64])
def test_scattered_ram_becomes_few_devices(count: int) -> None:
    """A page of data every 72 KiB: a device for each would be hundreds of arguments."""
    size = 64 * MIB // count
    banks = [Bank(n * size, size, (count - 1 - n) * size) for n in range(count)]
    with GuestMemory(banks) as memory:
        for address in range(0x10000, 64 * MIB, 72 << 10):
            if not LEGACY_HOLE.contains(Range(address, 1)):
                memory.write(address, b"data")
        image = BootImage("x86_64", "none", memory.banks, (flat32(ENTRY),))
        plan = place_image(image, memory, machine("x86_64", memory=64 * MIB), Placement.DEVICES)
        held = [Range(file.source, file.size) for file in plan.files]
        assert 200 < len(held) <= 256
        assert all(any(p.contains(e) for p in held) for e in memory.data_extents())
        assert not any(piece.overlaps(LEGACY_HOLE) for piece in held)


def test_no_piece_is_put_together_across_the_legacy_hole() -> None:
    """Its gap is smaller than hundreds of others, and an x86 stub cannot fill it."""
    guest = machine("x86_64", memory=512 * MIB)
    with GuestMemory(guest.banks) as memory:
        for address in (0x9F000, *range(MIB, 512 * MIB, 600 << 10)):
            memory.write(address, b"data")
        image = BootImage("x86_64", "none", memory.banks, (flat32(ENTRY),))
        files = place_image(image, memory, guest, Placement.DEVICES).files
    assert 200 < len(files) <= 257
    assert not any(Range(p.source, p.size).overlaps(LEGACY_HOLE) for p in files)


def test_most_banks_there_can_be(tmp_path: Path, run: Run) -> None:
    size = MEMORY // 64
    banks = tuple(Bank(number * size, size, (63 - number) * size) for number in range(64))
    directory = replace(proving(), banks=banks).write(tmp_path / "image")
    assert run(directory).verdict.startswith("booted: ")


def test_image_on_another_file_system(tmp_path: Path, run: Run) -> None:
    """Where the kernel refuses to copy between files by itself."""
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is no file system of its own here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        directory = proving().write(Path(elsewhere) / "image")
        assert run(directory).verdict.startswith("booted: ")


def test_terminal_is_not_obeyed(tmp_path: Path, run: Run) -> None:
    result = run(
        Image(says(b"\x1b]0;evil\x07\x1b[2J\r\nend"), cmdline="\x1b[2J").write(tmp_path / "i")
    )
    assert "\x1b" not in result.output and "\x07" not in result.output
    assert r"\x1b]0;evil\x07" in result.output


# --- guests that are no Linux --------------------------------------------------------------------

OTHERS: Final = "console=none bootproof.guest=a-nonce"


def contract(nonce: str = "a-nonce", **said: str) -> bytes:
    """What docs/other-guests.md asks of a guest; `said` are lines in place of the right ones."""
    lines = {"cmdline": OTHERS, **said}
    text = "".join(f"{key} {value}\n" for key, value in lines.items())
    framed_lines = [framed(n, key, value) for n, (key, value) in enumerate(lines.items(), 1)]
    digest = hashlib.sha256(f"{nonce}\n{text}".encode()).hexdigest()
    return "".join([*framed_lines, f"bootproof: proof {digest}\r\n"]).encode()


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (contract(), "booted: the guest proved its boot"),
        (contract(release="MyOS 1"), "booted: 'MyOS 1' proved its boot"),
        (contract(ram="0-9fbff", cpus="1"), "booted-wrong: the guest sees RAM 0x0-0x9fbff, not"),
        (contract(cpus="2"), "booted-wrong: the guest has 2 CPUs, not 1"),
        (contract(machine="aarch64"), "booted-wrong: the guest is a aarch64, not x86_64"),
        (contract(cmdline="other"), "booted-wrong: the command line is 'other', not"),
        (contract("another"), "booted-wrong: the proof is not over this case's nonce"),
        (b"hello\r\n", "cpu-reset: "),
    ],
)
def test_another_guest_proves_itself_by_the_contract(
    text: bytes, verdict: str, tmp_path: Path, run: Run
) -> None:
    result = run(Image(says(text), cmdline=OTHERS).write(tmp_path / "image"))
    assert result.verdict.startswith(verdict)
    assert result.code == (0 if verdict.startswith("booted: ") else 1)
    assert result.said("proof") == "by a guest that is no Linux: it carries a nonce"


def test_the_example_in_c_proves_itself(tmp_path: Path, run: Run, monkeypatch: Any) -> None:
    """Built as its first lines say, and started through our own loader."""
    text = (WRITERS / "prove_boot.c").read_text()
    (words,) = re.findall(r"^ \*     cc ((?:.|\n)*?)prove_boot.c$", text, re.MULTILINE)
    options = words.replace("\\\n *", "").split()
    monkeypatch.chdir(tmp_path)
    command = [host_program("cc"), "-Wall", "-Wextra", "-Werror", *options]
    subprocess.run([*command, str(WRITERS / "prove_boot.c")], check=True)
    words = ["--no-proof", "--memory", "64M", "--out", "image"]
    cmdline = "first bootproof.guest=another-for-each last"
    assert cli.main(["image", "guest", "--cmdline", cmdline, *words]) == 0
    result = run(tmp_path / "image")
    assert result.verdict == "booted: the guest proved its boot"
    assert "2 b260294f ram 0-9fbff" in result.said("|")


# --- writers of others -------------------------------------------------------------------------


def compiled(
    language: str,
    directory: Path,
    *,
    mistake: bool = False,
    checked: bool = False,
    name: str = "write_boot_image",
) -> Path:
    """An example, as its first lines say it is built."""
    program_ = directory / f"{name}{'-broken' if mistake else ''}"
    source = WRITERS / f"{name}.{language}"
    if language == "c":
        words = [host_program("cc"), "-O2", "-Wall", "-Wextra", "-Werror"]
        words += ["-DBREAK_RSI"] * mistake
        words += ["-fsanitize=undefined", "-fno-sanitize-recover"] * checked
    else:
        words = [host_program("rustc"), "-O", "-D", "warnings", "--edition", "2021"]
        words += ["-C", "overflow-checks=on"] * checked
    environment = {
        **os.environ,
        "TMPDIR": str(directory),
        **({"BREAK_RSI": "1"} if mistake else {}),
    }
    subprocess.run([*words, "-o", str(program_), str(source)], check=True, env=environment)
    return program_


def written(language: str, tmp_path: Path, guest: Program, *, mistake: bool = False) -> Path:
    directory = tmp_path / "image"
    directory.mkdir()
    loads = [images.load(address, data) for address, data in guest.contents.items()]
    (tmp_path / "vmlinux").write_bytes(images.elf(*loads, entry=guest.entry))
    archive = initramfs.archive([initramfs.file("hello", b"an initrd" * 1000)])
    (tmp_path / "initrd").write_bytes(archive)
    writer = compiled(language, tmp_path, mistake=mistake)
    words = [writer, tmp_path / "vmlinux", tmp_path / "initrd", PROVING, directory]
    subprocess.run([str(word) for word in words], check=True)
    return directory


@pytest.mark.parametrize("language", LANGUAGES)
def test_image_of_another_writer_boots(language: str, tmp_path: Path, run: Run) -> None:
    truth = Claim(machine("x86_64", memory=512 * MIB), ENTRY, NONCE, PROVING)
    directory = written(language, tmp_path, says(truth.text()))
    result = run(directory)
    assert result.verdict == "booted: 6.1.0-test proved its boot; kernel code at 0x200000"
    assert result.said("entry").endswith("are as the boot image says")
    sparse = (directory / "ram.img").stat()
    assert sparse.st_blocks * 512 < MIB < sparse.st_size


@pytest.mark.parametrize("language", LANGUAGES)
def test_mistake_of_another_writer_is_named(language: str, tmp_path: Path, run: Run) -> None:
    result = run(written(language, tmp_path, says(b"x"), mistake=True))
    assert result.code == 1
    assert "e820: the zero page at 0x8000 has no E820 map" in result.verdict


@pytest.mark.parametrize("language", LANGUAGES)
def test_another_writer_refuses_what_it_cannot_load(language: str, tmp_path: Path) -> None:
    writer = compiled(language, tmp_path, checked=True)
    good = images.elf(images.load(MIB, b"code"), entry=MIB)
    bad = {
        "cut": good[:100],
        "empty": b"",
        "text": b"no kernel" * 100,
        "low": images.elf(images.load(0x1000, b"code")),
        "high": images.elf(images.load((1 << 64) - 4096, b"code")),
        "beyond": images.elf(images.load(512 * MIB - 2, b"code")),
        "file": images.elf(images.load(MIB, b"code", offset=(1 << 64) - 2)),
        "memsz": images.elf(images.load(MIB, b"code", memsz=2)),
        "table": images.elf(images.load(MIB, b"code"), phoff=1 << 62),
    }
    for name, data in {"good": good, **bad}.items():
        (tmp_path / name).write_bytes(data)
        out = tmp_path / f"{name}.image"
        out.mkdir()
        command = [str(part) for part in (writer, tmp_path / name, tmp_path / "good", "x", out)]
        code = subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
        assert (name, code, (out / "boot.json").exists()) == (
            name,
            0 if name == "good" else 2,
            name == "good",
        )


@pytest.mark.parametrize("magic", [images.ARM64, images.RISCV64], ids=["arm64", "riscv64"])
def test_a_writer_of_device_trees_refuses_what_it_cannot_load(magic: bytes, tmp_path: Path) -> None:
    """What it can load has a right hand-over; both Images are held against the rules elsewhere."""
    writer = compiled("c", tmp_path, checked=True, name="write_boot_image_dt")
    good = images.image(magic)
    bad = {
        "cut": good[:63],
        "empty": b"",
        "text": b"no kernel" * 100,
        "offset": images.image(magic, text_offset=(1 << 64) - 4096),
        "size": images.image(magic, image_size=512 * MIB),
        "huge": images.image(magic, image_size=(1 << 64) - 1),
    }
    initrd = tmp_path / "initrd"
    initrd.write_bytes(initramfs.archive([initramfs.file("hello", b"an initrd")]))
    for name, data in {"good": good, **bad}.items():
        (tmp_path / name).write_bytes(data)
        out = tmp_path / f"{name}.image"
        out.mkdir()
        command = [str(part) for part in (writer, tmp_path / name, initrd, "x", out)]
        code = subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode
        assert (name, code) == (name, 0 if name == "good" else 2)
        assert (out / "boot.json").exists() == (name == "good")
    assert loader.check(tmp_path / "good.image") == ()
