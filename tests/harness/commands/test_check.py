"""`bootproof check`: exit code, text and JSON of a boot image that nobody starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness import cli, exitcode
from bootproof.loader import bootimage, conformance
from bootproof.loader.arch import StubError
from bootproof.loader.arch.x86_64 import Segment
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.table import EXHIBITS
from tests.builders import images


def exhibit(name: str) -> Exhibit:
    return next(item for item in EXHIBITS if item.name == name)


def checked(
    name: str, directory: Path, capsys: pytest.CaptureFixture[str], *words: str, fixed: bool = False
) -> tuple[int, str, str]:
    exhibit(name).write(directory, fixed=fixed)
    code = cli.main(["check", str(directory), *words])
    return code, *capsys.readouterr()


def test_a_broken_rule(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = checked("cmdline-upper-half-of-ones", tmp_path, capsys)
    first, where, *_ = said.splitlines()
    assert code == 1
    assert first.startswith("violation cmdline: cmd_line_ptr 0xffffffff")
    assert where.strip() == (
        "Documentation/arch/x86/boot.rst, The Real-Mode Kernel Header, cmd_line_ptr"
    )


def test_what_is_tolerated_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said, _ = checked("initrd-above-its-limit", tmp_path, capsys, "--json")
    (finding,) = json.loads(said)
    assert code == 0
    assert finding == {
        "code": "initrd-addr-max",
        "grade": "tolerated",
        "sentence": finding["sentence"],
        "section": "Documentation/arch/x86/boot.rst, The Real-Mode Kernel Header, initrd_addr_max",
        "address": "0x90000000",
        "value": finding["value"],
        "limit": "0x7fffffff",
    }


def test_a_right_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = checked("entry-in-nothing", tmp_path, capsys, fixed=True)
    assert (code, said) == (0, f"{tmp_path}: every rule of its protocol holds\n")
    assert checked_json(tmp_path, capsys) == []


def checked_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> object:
    assert cli.main(["check", str(directory), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_registers_that_follow_no_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = exhibit("entry-in-nothing").write(tmp_path, fixed=False)
    bootimage.save(replace(image, protocol=bootimage.NO_PROTOCOL), tmp_path)
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(images.elf(images.load(16 << 20, b"\1" * 0x4000), entry=16 << 20))
    assert cli.main(["check", str(tmp_path)]) == exitcode.CANNOT_TELL
    assert "no protocol, no rules to check: nothing is known of it" in capsys.readouterr().out
    assert cli.main(["check", str(tmp_path), "--json"]) == exitcode.CANNOT_TELL
    assert cli.main(["check", str(tmp_path), "--kernel", str(kernel)]) == 1


@pytest.mark.parametrize(
    ("protocol", "changes"),
    [
        ("linux64", {"cs": Segment(0x10010, attributes=0xA09B)}),
        ("linux64", {"cr0": 1 << 32 | 0x8000_0011}),
        ("linux64", {"cr0": 0x8000_0051}),
        ("linux64", {"cr4": 0x8020}),
        ("linux64", {"es": Segment(0x18), "fs": Segment(0x18, base=4096)}),
        ("arm64", {"pstate": 0x40_03C5}),
        ("riscv64", {"x": (3, *(0,) * 31)}),
    ],
)
def test_registers_that_no_guest_can_have_are_refused_as_by_run(
    protocol: str,
    changes: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    right = next(item for item in EXHIBITS if item.setting.protocol == protocol)
    image = right.write(tmp_path, fixed=True)
    registers: Any = image.cpus[0]
    if "x" in changes:
        changes = {"x": (3, *registers.x[1:])}
    bootimage.save(replace(image, cpus=(replace(registers, **changes),)), tmp_path)
    assert cli.main(["check", str(tmp_path)]) == exitcode.USAGE
    refused = capsys.readouterr()
    assert refused.err.startswith(f"bootproof: {tmp_path}/boot.json: {[*changes][-1]}")
    assert cli.main(["run", str(tmp_path), "--out", str(tmp_path / "out")]) == exitcode.USAGE
    assert capsys.readouterr().err == refused.err
    with pytest.raises(StubError):
        conformance.check(tmp_path)


def test_a_broken_rule_comes_before_what_no_guest_can_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = exhibit("cmdline-upper-half-of-ones").write(tmp_path, fixed=False)
    wrong = replace(image.cpus[0], cr0=0x8000_0051)
    bootimage.save(replace(image, cpus=(wrong,)), tmp_path)
    assert cli.main(["check", str(tmp_path)]) == exitcode.NOT_AS_EXPECTED
    assert capsys.readouterr().out.startswith("violation cmdline:")


def test_no_boot_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", str(tmp_path)]) == 2
    assert f"{tmp_path}/boot.json: no boot image" in capsys.readouterr().err


def test_nothing_is_left_behind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checked("entry-in-nothing", tmp_path, capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boot.json", "ram.img"]


def test_another_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A museum's kernel is a few bytes, which are no file's."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(images.elf(images.load(16 << 20, b"\1" * 0x4000), entry=16 << 20))
    image = tmp_path / "image"
    image.mkdir()
    code, said, _ = checked(
        *("entry-in-nothing", image, capsys, "--kernel", str(kernel)), fixed=True
    )
    assert code == 1
    assert f"violation kernel-file: the kernel in RAM is not {kernel}" in said


def test_an_image_of_ours_says_what_its_kernel_forbids(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel that is not relocatable, and elsewhere: it moves itself to where it runs."""
    kernel = tmp_path / "bzImage"
    kernel.write_bytes(images.bzimage(images.LINUX * 64, relocatable_kernel=0, xloadflags=3))
    out = str(tmp_path / "image")
    words = ["--no-proof", "--protocol", "linux64", "--offset", "32M", "--out", out]
    assert cli.main(["image", str(kernel), *words]) == 0
    assert "\ntolerated not-relocatable: relocatable_kernel is 0" in capsys.readouterr().out
