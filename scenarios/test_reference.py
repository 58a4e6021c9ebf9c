"""Each kernel and format beside QEMU's own -kernel: every difference has its reason in the docs."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bootproof.harness import cli, typedjson
from bootproof.harness.arch.profiles import DEFAULT_PROFILE, FAST_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.compare import both_ways
from bootproof.harness.compare.both_ways import Pair
from bootproof.harness.compare.differences import Section
from bootproof.harness.report.comparison import render
from bootproof.harness.suite.case_result import reference_result
from bootproof.harness.suite.options import OPTIONS, REFERENCE_PROPERTY, Keep
from bootproof.loader import bootimage
from bootproof.loader.address import MIB, Range
from bootproof.loader.device_tree import DeviceTree
from bootproof.loader.memory import GuestMemory

RunDirectory = Callable[[str], Path]

X86_64, AARCH64, RISCV64 = (default_kernels(arch) for arch in ("x86_64", "aarch64", "riscv64"))


def cases() -> Iterator[Case]:
    """One case for each kernel and format; and boards with another firmware or another RAM.

    With the plain command line for the oldest kernel in each format, and where little differs.
    """
    for kernel in X86_64:
        yield Case("x86_64", kernel, "elf", "pvh", profile=_profile(kernel))
        yield Case("x86_64", kernel, "bzimage", "linux64", profile=_profile(kernel))
    offset = ARCHES["aarch64"].ram_base() + 2 * MIB
    for kernel in AARCH64:
        yield Case("aarch64", kernel, "image", "arm64", offset, profile=_profile(kernel))
    offset = ARCHES["riscv64"].ram_base()
    for kernel in RISCV64:
        yield Case("riscv64", kernel, "image", "riscv64", offset, profile=_profile(kernel))
    others = (
        Case("aarch64", AARCH64[0], "image", "arm64", 2 * MIB, board="xlnx-zcu102"),
        Case("x86_64", X86_64[0], "bzimage", "linux32"),
        Case("x86_64", X86_64[0], "elf", "linux64"),
    )
    yield from (replace(case, profile=FAST_PROFILE) for case in others)
    yield Case("x86_64", X86_64[0], "elf", "pvh", board="microvm")


def _profile(kernel: str) -> str:
    oldest = (kernels[0] for kernels in (X86_64, AARCH64, RISCV64))
    return DEFAULT_PROFILE if kernel in oldest else FAST_PROFILE


def _id(case: Case) -> str:
    """What is compared; how much the guest leaves out is not."""
    return replace(case, profile=DEFAULT_PROFILE).id


@pytest.mark.beside
@pytest.mark.parametrize("case", list(cases()), ids=_id)
def test_reference(
    case: Case,
    run_directory: RunDirectory,
    record_property: Callable[[str, object], None],
    pytestconfig: pytest.Config,
) -> None:
    """Both boots prove themselves at the same place, and all that differs is known."""
    assert both_ways.at_references_place(case) == case
    found = both_ways.compare(case, run_directory(f"reference-{case.id}"))
    assert not found.unexplained, f"\n{render(found)}"
    assert (found.ours.verdict, found.reference.verdict) == ("booted", "booted")
    for side in (found.ours, found.reference):
        assert [rule for rule in side.rules if rule.startswith("violation")] == []
    result = typedjson.to_json(reference_result(found.reference))
    record_property(REFERENCE_PROPERTY, {"case": case.id, "reference": result})
    # A comparison that sees nothing explains everything: these are always there.
    codes = {item.code for item in found.differences}
    always = {"acpi", "firmware-top"} if case.arch == "x86_64" else {"seed", "place"}
    assert always <= codes
    if pytestconfig.stash[OPTIONS].keep is Keep.FAILED:
        both_ways.drop_large_files(found.directory)


@pytest.mark.short
def test_command(run_directory: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """`bootproof compare --json`, in place of what an earlier run left."""
    out = run_directory("reference-command")
    for name in ("ours", "reference"):
        (out / name / "devices").mkdir(parents=True, exist_ok=True)
        for artifact in ("qemu.sh", "console.log"):
            (out / name / artifact).write_text("of an earlier run")
    assert cli.main(["compare", AARCH64[0], "--json", "--out", str(out)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((out / "comparison.json").read_text())
    assert (said["unexplained"], said["case"]) == (0, f"aarch64-{AARCH64[0]}-image-auto-ram+2M")
    assert {path.name for path in out.iterdir()} == {"ours", "reference", "comparison.json"}
    for name in ("ours", "reference"):
        assert json.loads((out / name / "result.json").read_text())["verdict"] == "booted"
        assert "-kernel" in (out / name / "qemu.sh").read_text() or name == "ours"


def test_command_when_neither_boots(
    run_directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two boots that fail alike are no proof of anything: exit code 1, and a table that says so."""
    out = run_directory("reference-fails")
    words = ("--profile", FAST_PROFILE, "--append", "initcall_blacklist=populate_rootfs")
    arguments = [*words, "--format", "elf", "--out", str(out)]
    assert cli.main(["compare", X86_64[0], *arguments]) == 1
    said = capsys.readouterr().out
    assert "UNEXPLAINED" in said
    both = r"^verdict +verdict +panic: .* +panic: "
    assert re.search(both, said, re.MULTILINE)


# --- seen to fail --------------------------------------------------------------------------------


def unexplained(pair: Pair) -> set[tuple[Section, str]]:
    """Section and name of what is unexplained once `pair` has run; log lines are left out."""
    found = both_ways.run_pair(pair).unexplained
    return {(item.section, item.name) for item in found if item.section is not Section.LOG}


def our_ram(pair: Pair) -> GuestMemory:
    """The RAM of our side, to be spoilt before it runs."""
    banks = [(bank.base, bank.size) for bank in pair.prepared.start.image.banks]
    return GuestMemory.open(pair.ours / bootimage.RAM, banks, writable=True)


@pytest.mark.beside
def test_a_word_a_byte_and_a_memory_map_entry(run_directory: RunDirectory) -> None:
    """A loader that changes the command line, spoils the initrd and forgets a reserved range."""
    pair = both_ways.prepare(
        Case("x86_64", X86_64[0], "elf", "pvh", profile=FAST_PROFILE),
        run_directory("reference-pvh"),
    )
    regions = {region.name: region.range for region in pair.prepared.start.image.regions}
    with our_ram(pair) as ram:
        cmdline = pair.prepared.start.image.provenance["cmdline"]
        ram.write(regions["cmdline"].start, cmdline.replace("panic=-1", "panic=-2").encode())
        ram.write(regions["initrd"].start + MTIME_OF_FIRST_MEMBER, b"00000001")
        first, _, last = (regions["memmap"].start + 24 * number for number in range(3))
        ram.write(first + 24, ram.read(last, 24))
        ram.write(regions["start_info"].start + MEMMAP_ENTRIES, (2).to_bytes(4, "little"))
    assert unexplained(pair) == {
        (Section.VERDICT, "verdict"),
        (Section.PARAMETERS, "cmdline"),
        (Section.PARAMETERS, "initrd"),
        (Section.MEMORY_MAP, "at the entry, 0x9fc00-0x9ffff"),
        (Section.MEMORY_MAP, "at the entry, 0xf0000-0xfffff"),
        (Section.MEMORY_MAP, "in the log, 0x9fc00-0x9ffff"),
        (Section.EVIDENCE, "cmdline"),
    }


MTIME_OF_FIRST_MEMBER = 46  # of a newc header
MEMMAP_ENTRIES = 48  # of struct hvm_start_info


@pytest.mark.beside
def test_ram_that_is_kept_back(run_directory: RunDirectory) -> None:
    """A loader whose map leaves out 1 MiB in the middle of RAM, where no firmware keeps any."""
    case = Case("x86_64", X86_64[0], "bzimage", "linux64", profile=FAST_PROFILE)
    pair = both_ways.prepare(case, run_directory("reference-linux64"))
    page = pair.prepared.start.image.region("boot_params")
    assert page is not None
    with our_ram(pair) as ram:
        count = ram.read(page.start + E820_ENTRIES, 1)[0]
        last = page.start + E820_TABLE + 20 * (count - 1)
        start, size = struct.unpack("<QQ", ram.read(last, 16))
        hole, end = start + size // 2 // MIB * MIB, start + size
        ram.write(last, struct.pack("<QQ", start, hole - start))
        ram.write(last + 20, struct.pack("<QQI", hole + MIB, end - hole - MIB, 1))
        ram.write(page.start + E820_ENTRIES, bytes([count + 1]))
    left_out = Range(hole, MIB)
    assert unexplained(pair) >= {
        (Section.VERDICT, "verdict"),
        (Section.MEMORY_MAP, f"at the entry, {left_out}"),
        (Section.MEMORY_MAP, f"in the log, {left_out}"),
        (Section.EVIDENCE, "ram"),
        (Section.MEMORY, "total"),
    }


E820_ENTRIES, E820_TABLE = 0x1E8, 0x2D0  # of struct boot_params


@pytest.mark.beside
def test_a_seed_and_another_place(run_directory: RunDirectory) -> None:
    """A loader that leaves the seed in the device tree, and one that loads somewhere else."""
    offset = ARCHES["aarch64"].ram_base() + 64 * MIB
    case = Case("aarch64", AARCH64[0], "image", "arm64", offset, profile=FAST_PROFILE)
    pair = both_ways.prepare(case, run_directory("reference-arm64"))
    image = pair.prepared.start.image
    tree_at = image.region("dtb")
    assert tree_at is not None
    with our_ram(pair) as ram:
        tree = DeviceTree.parse(ram.read(tree_at.start, tree_at.size))
        tree.chosen[b"kaslr-seed"] = bytes(8)
        ram.write(tree_at.start, tree.to_bytes())
    assert unexplained(pair) == {
        (Section.REGISTERS, "pc"),
        (Section.KERNEL, "place"),
        (Section.DEVICE_TREE, "/chosen kaslr-seed"),
        (Section.EVIDENCE, "code"),
    }
