"""A case from its kernel file to its result, on tiny kernels: what is asked and what is written."""

from __future__ import annotations

import json
import resource
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness import prove
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case, Expectation, offset_label, short
from bootproof.harness.errors import UserError
from bootproof.harness.expected import CodeAnywhere, CodeAt
from bootproof.harness.inputs import variants
from bootproof.harness.prepare import Options, expected_code, prepare
from bootproof.harness.record import sharing
from bootproof.harness.record.sharing import Lender
from bootproof.harness.report import failure
from bootproof.harness.suite.case_result import case_result
from bootproof.harness.terms import Placement
from bootproof.harness.verdict import Verdict
from bootproof.kernels.errors import FetchError
from bootproof.loader import BzImage, Elf, Pe
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.assemble import Lent
from bootproof.loader.memory import GuestMemory
from bootproof.loader.result import PvhState
from tests.builders import images as builder
from tests.builders import packings
from tests.builders.guests import X86Program

CODE = bytes(X86Program(16 * MIB).say(b"hello\n").reset().code).ljust(0x1000, b"\x90")
TEXT = b"hello\n"
VMLINUX = builder.elf(
    builder.load(16 * MIB, CODE), builder.load(16 * MIB + 0x10000, TEXT, memsz=0x1000)
)
WITH_PVH = builder.elf(builder.load(16 * MIB, CODE), builder.notes(builder.pvh_entry(16 * MIB)))


@pytest.fixture
def case(offline: None, tmp_path: Path) -> Case:
    path = tmp_path / "vmlinux"
    path.write_bytes(VMLINUX)
    return Case("x86_64", str(path), "elf", "linux64", memory=32 * MIB)


def test_without_another_thread_the_host_is_to_blame(case: Case, tmp_path: Path) -> None:
    before = threading.stack_size(1 << 46)  # more than there are addresses for
    try:
        with pytest.raises(UserError, match="there may be no more threads here"):
            prove.prove(case, tmp_path / "run")
    finally:
        threading.stack_size(before)


# --- where the code must be --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "start"), [(None, 0x1000000), (0, 0x1000000), (2 * MIB, 0x1200000)]
)
def test_code_of_a_vmlinux_is_its_first_segment(offset: int | None, start: int) -> None:
    """Not its entry, which may lie anywhere in it."""
    kernel = builder.elf(builder.load(16 * MIB, CODE), entry=16 * MIB + 0x800)
    ram = (Range(0, 64 * MIB),)
    with GuestMemory([(0, 64 * MIB)]) as memory:
        loaded = Elf().load(memory, kernel, kernel_offset=offset)
    assert expected_code(loaded, ARCHES["x86_64"], "x", ram) == CodeAt((start,))


@pytest.mark.parametrize(
    ("offset", "cmdline", "wanted"),
    [
        (None, "nokaslr", CodeAt((0x1000000,))),  # pref_address
        (0x1100000, "quiet nokaslr", CodeAt((0x1200000,))),  # moved up to its alignment
        (0x3000000, "nokaslr", CodeAt((0x3000000,))),
        (0x3000000, "nokaslrx", CodeAnywhere(0x200000, Range(0x3000000, 61 * MIB - 45 * MIB))),
    ],
)
def test_code_of_a_bzimage_is_where_the_decompressor_puts_it(
    offset: int | None, cmdline: str, wanted: CodeAt | CodeAnywhere
) -> None:
    ram = (Range(0, 64 * MIB),)
    with GuestMemory([(0, 64 * MIB)]) as memory:
        loaded = BzImage().load(memory, builder.bzimage(CODE), kernel_offset=offset)
    assert expected_code(loaded, ARCHES["x86_64"], cmdline, ram) == wanted


def test_a_kernel_that_is_not_relocatable_moves_itself_to_where_it_runs() -> None:
    """Seen with Linux 6.1 without CONFIG_RELOCATABLE, loaded at 1 to 64 MiB."""
    with GuestMemory([(0, 64 * MIB)]) as memory:
        kernel = builder.bzimage(CODE, relocatable_kernel=0)
        loaded = BzImage().load(memory, kernel, kernel_offset=48 * MIB)
    found = expected_code(loaded, ARCHES["x86_64"], "", (Range(0, 64 * MIB),))
    assert found == CodeAt((0x1000000,))


def test_kaslr_goes_no_lower_than_512_mib_or_the_kernel_itself() -> None:
    ram = (Range(0, 2 * GIB), Range(4 * GIB, GIB))
    with GuestMemory([(0, 2 * GIB), (4 * GIB, GIB)]) as memory:
        loaded = BzImage().load(memory, builder.bzimage(CODE), kernel_offset=GIB)
    found = expected_code(loaded, ARCHES["x86_64"], "", ram)
    assert found == CodeAnywhere(0x200000, Range.between(512 * MIB, 5 * GIB))


def test_code_of_an_image_is_its_load_address_or_one_segment_on() -> None:
    with GuestMemory([(GIB, 64 * MIB)]) as memory:
        loaded = Pe().load(memory, builder.image(text_offset=0x80000), kernel_offset=GIB)
    assert expected_code(loaded, ARCHES["aarch64"], "", ()) == CodeAt(
        (GIB + 0x80000, GIB + 0x90000)
    )


# --- a case and its result ---------------------------------------------------------------------


def test_result_of_a_boot(case: Case, tmp_path: Path) -> None:
    proven = prove.prove(case, tmp_path / "run")
    assert proven.verdict is Verdict.CPU_RESET
    assert proven.outcome is not None
    assert proven.outcome.observation.transcript == b"hello\n"
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["case"] == case.id
    assert (result["verdict"], result["reason"]) == ("cpu-reset", proven.reason)
    assert (result["protocol"], result["entry"]) == ("linux64", "0x1000000")
    assert (result["end"], result["console_bytes"]) == ("guest-reset", 6)
    assert result["machine"]["memory"] == 32 * MIB
    assert result["machine"]["deterministic"] is True
    assert result["instructions"] > 0
    assert result["evidence"] == {"proof": None}
    entry, output = result["stages"]
    assert (entry["name"], output["name"]) == ("entry", "first-output")
    assert 0 < entry["instructions"] < output["instructions"] < result["instructions"]
    assert json.loads((tmp_path / "run" / "boot.json").read_text())["provenance"]["case"] == case.id


@pytest.mark.parametrize("what", ["initrd", "cmdline"])
def test_a_refusal_leaves_no_result_of_an_earlier_run(
    case: Case, what: str, tmp_path: Path
) -> None:
    notes, run = tmp_path / "notes.txt", tmp_path / "run"
    notes.write_text("no archive")
    prove.prove(replace(case, memory=MIB), run)
    assert (run / "result.json").exists()
    bad = {
        "initrd": replace(case, initrd=str(notes)),
        "cmdline": replace(case, cmdline='open="quote'),
    }
    with pytest.raises(UserError):
        prepare(bad[what], run)
    assert not (run / "result.json").exists()


def test_result_of_a_refusal(case: Case, tmp_path: Path) -> None:
    proven = prove.prove(replace(case, offset=MIB), tmp_path / "run")
    assert (proven.verdict, proven.code) == (Verdict.LOAD_REFUSED, "Protocol::Refused")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["verdict"], result["code"]) == ("load-refused", "Protocol::Refused")
    assert result["reason"] == proven.reason


def test_earlier_result_is_gone_when_a_case_runs_again(case: Case, tmp_path: Path) -> None:
    prove.prove(case, tmp_path / "run")
    prove.prove(replace(case, offset=MIB), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["result.json"]
    prove.prove(case, tmp_path / "run")
    assert (tmp_path / "run" / "console.log").read_bytes() == TEXT


# --- what is not the kernel's doing --------------------------------------------------------------


@pytest.fixture
def large(case: Case) -> Case:
    data = builder.load(17 * MIB, bytes(range(256)) * 8192)
    Path(case.kernel).write_bytes(builder.elf(builder.load(16 * MIB, CODE), data))
    return replace(case, expect=Expectation(Verdict.LOAD_REFUSED))


def test_a_full_disk_is_no_refusal(
    large: Case, disk: Callable[[int], Path], tmp_path: Path
) -> None:
    full = disk(256) / "run"
    with pytest.raises(UserError) as refused:
        prove.prove(large, full)
    assert str(refused.value) == f"{full}/ram.img: the guest's RAM: No space left on device"
    assert not (tmp_path / "run").exists()


def test_a_file_that_may_not_grow_is_no_refusal(large: Case, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 << 19, hard))
    try:
        with pytest.raises((UserError, FetchError), match="File too large"):
            prove.prove(large, tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list((tmp_path / "run").iterdir())


def test_a_disk_without_room_for_what_is_unpacked_is_no_refusal(
    large: Case, disk: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = packings.bzimage(packings.gzip(Path(large.kernel).read_bytes()))
    Path(large.kernel).write_bytes(packed)
    monkeypatch.setenv("BOOTPROOF_CACHE", str(disk(256)))
    with pytest.raises((UserError, FetchError), match="No space left on device"):
        prove.prove(large, tmp_path / "run")


@pytest.fixture
def lender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lender:
    monkeypatch.setattr(sharing, "_LEAST", 1)
    return Lender(tmp_path / sharing.STORE)


@pytest.mark.parametrize("placement", Placement)
def test_a_kernel_that_is_lent_boots_as_any(
    placement: Placement, case: Case, lender: Lender, tmp_path: Path
) -> None:
    case = replace(case, placement=placement)
    own = prove.prove(case, tmp_path / "own")
    lent = prove.prove(case, tmp_path / "lent", Options(lend=lender.lend))
    assert not (tmp_path / "own" / "kernel.img").exists()
    assert (tmp_path / "lent" / "kernel.img").stat().st_nlink == 2
    results = [
        json.loads((tmp_path / name / "result.json").read_text()) for name in ("own", "lent")
    ]
    for result in results:
        for measured in ("host_seconds", "qemu_seconds", "cpu_seconds"):
            del result[measured]
    assert results[0] == results[1]
    assert own.outcome is not None
    assert lent.outcome is not None
    assert lent.outcome.observation.transcript == own.outcome.observation.transcript == TEXT
    subprocess.run(
        ["timeout", "60", tmp_path / "lent" / "qemu.sh", tmp_path / "console"],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "console").read_bytes() == TEXT


def test_what_is_said_of_a_kernel_that_is_lent_is_not_believed(
    case: Case, lender: Lender, tmp_path: Path
) -> None:
    """Here, that its last page has only zeros."""

    def lend(*asked: Any) -> Lent | None:
        lent = lender.lend(*asked)
        return None if lent is None else replace(lent, nonzero=lent.nonzero[:-1])

    proven = prove.prove(case, tmp_path / "run", Options(lend=lend))
    assert proven.verdict is Verdict.HANDOVER_WRONG
    assert "RAM at 0x1010000" in proven.reason


@pytest.mark.parametrize("how", [{"unsafe": True}, {"damage": "initrd-over-bss"}], ids=str)
def test_what_may_be_written_over_is_not_lent(
    how: dict[str, Any], case: Case, lender: Lender, tmp_path: Path
) -> None:
    prove.prove(replace(case, **how), tmp_path / "run", Options(lend=lender.lend))
    assert not (tmp_path / "run" / "kernel.img").exists()


def test_nonce_is_of_this_case_and_this_kernel(case: Case, tmp_path: Path) -> None:
    nonces = []
    for number, (content, offset) in enumerate(
        [(VMLINUX, None), (VMLINUX, 0), (VMLINUX + b"\0", None), (VMLINUX, None)]
    ):
        Path(case.kernel).write_bytes(content)
        prepared = prepare(replace(case, offset=offset), tmp_path / str(number))
        expected: Any = prepared.start.expected
        assert f"bootproof.nonce={expected.nonce} " in expected.cmdline + " "
        nonces.append(expected.nonce)
    assert len(set(nonces)) == 3 and nonces[0] == nonces[3]


# --- ids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case_", "wanted"),
    [
        (Case("x86_64", "6.1", "elf", "linux64"), "x86_64-6.1-elf-linux64-none"),
        (Case("x86_64", "6.1", "elf", "pvh", 0), "x86_64-6.1-elf-pvh-+0"),
        (Case("x86_64", "6.1", "elf", "pvh", 16 * MIB), "x86_64-6.1-elf-pvh-+16M"),
        (Case("x86_64", "6.1", "bzimage", "linux32", GIB), "x86_64-6.1-bzimage-linux32-at1G"),
        (Case("aarch64", "6.1", "image", "arm64", GIB), "aarch64-6.1-image-arm64-ram+0"),
        (Case("aarch64", "6.1", "image", "arm64", 3 * GIB), "aarch64-6.1-image-arm64-ram+2G"),
        (Case("aarch64", "6.1", "image", "arm64", MIB), "aarch64-6.1-image-arm64-at1M"),
        (
            Case(
                *("x86_64", "6.1", "elf", "auto"),
                offset=4096,
                board="pc",
                unsafe=True,
                label="pvh-ignored",
                placement=Placement.MAPPED,
            ),
            "x86_64-6.1-elf-pvh-ignored-+4K-pc-mapped-unsafe",
        ),
        (Case("x86_64", "/tmp/a b/../ü", "elf", "pvh"), "x86_64-_tmp_a_b_..__-elf-pvh-none"),
        (
            Case("x86_64", "/" * 300 + "vmlinux", "elf", "pvh"),
            "x86_64-" + "_" * 113 + "vmlinux-elf-pvh-none",
        ),
    ],
)
def test_id(case_: Case, wanted: str) -> None:
    assert case_.id == wanted


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (9, "9"), (10, "0xa"), (1024, "1K"), (0x1234000, "0x1234000")),
        *((MIB, "1M"), (GIB, "1G"), (9999 * GIB, "9999G"), (10000 * GIB, "0x9c400000000")),
    ],
)
def test_short(value: int, text: str) -> None:
    assert short(value) == text


def test_offset_labels_tell_every_offset_apart() -> None:
    offsets = [None, 0, 1, 9, 10, 4096, MIB, GIB - 1, GIB, GIB + MIB, 1 << 63]
    for arch, format_ in (("x86_64", "elf"), ("x86_64", "bzimage"), ("aarch64", "image")):
        assert len({offset_label(arch, format_, offset) for offset in offsets}) == len(offsets)


# --- held against the expectation --------------------------------------------------------------


def test_problem(offline: None, tmp_path: Path) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(WITH_PVH)
    case = Case("x86_64", str(path), "elf", "auto", memory=32 * MIB)
    proven = prove.prove(case, tmp_path / "run")

    def problem(**expect: Any) -> str | None:
        wanted = Expectation(**({"verdict": Verdict.CPU_RESET} | expect))
        return replace(proven, case=replace(case, expect=wanted)).problem

    assert problem() is None
    assert problem(pvh=PvhState.PRESENT, protocol="pvh") is None
    assert problem(pvh=PvhState.IGNORED) == "the PVH capability is present, not ignored"
    assert problem(protocol="linux64") == "the protocol taken is pvh, not linux64"
    found = problem(verdict=Verdict.BOOTED)
    assert found is not None and found.startswith(
        "cpu-reset instead of booted: the CPU was reset at "
    )
    refused = prove.prove(replace(case, protocol="pvh", offset=0), tmp_path / "refused")

    def refusal(**expect: Any) -> str | None:
        wanted = Expectation(Verdict.LOAD_REFUSED, **expect)
        return replace(refused, case=replace(case, expect=wanted)).problem

    assert refusal(code="Protocol::Refused", reason="ignored") is None
    found = refusal(code="Elf::Overflow")
    assert found is not None
    assert found.startswith("refused with Protocol::Refused instead of Elf::Overflow: ")
    found = refusal(reason="--memory")
    assert found is not None and found.startswith("the reason does not say '--memory': ")


def test_failure_has_all_a_reader_needs(case: Case, tmp_path: Path) -> None:
    result = case_result(prove.prove(case, tmp_path / "run"), "again")
    result = replace(result, problem="what")
    assert failure.text(result) == "\n".join(
        [
            f"{case.id}: what",
            "last console lines:",
            "  | hello",
            "reproduce: again",
            f"run directory: {tmp_path / 'run'}",
        ]
    )


# --- changed kernels ---------------------------------------------------------------------------


def test_pvh_note_renamed() -> None:
    two = builder.elf(
        builder.load(16 * MIB, CODE + b"Xen\0"),
        builder.notes(builder.pvh_entry(1), builder.BUILD_ID, builder.pvh_reloc(1, 2, 3)),
        builder.notes(builder.pvh_entry(2, 4)),
    )
    changed = variants.without_pvh_note(two)
    assert len(changed) == len(two)
    assert [i for i in range(len(two)) if two[i] != changed[i]] == [
        index + letter
        for index in (two.index(b"Xen\0", two.index(b"\x12\0\0\0Xen\0")), two.rindex(b"Xen\0"))
        for letter in (0, 2)
    ]
    with GuestMemory([(0, 64 * MIB)]) as memory:
        assert Elf().load(memory, changed).pvh_boot_cap.state is PvhState.NOT_PRESENT


def test_kernel_without_a_note_to_rename() -> None:
    with pytest.raises(ValueError, match="no PVH entry note"):
        variants.without_pvh_note(VMLINUX)


def test_damaged_kernels() -> None:
    assert variants.truncated(b"abcd") == b"ab"
    assert variants.no_kernel(VMLINUX).startswith(b"this is no kernel\n")
    made = {"no-pvh-note", "truncated", "no-kernel", "old-header", "text-offset-0"}
    assert set(variants.VARIANTS) == made
