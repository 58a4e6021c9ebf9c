"""An option that would have no effect is refused: nobody should think that it had one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness import cli, exitcode
from tests.builders import images
from tests.builders import results as builder

CODE = images.LINUX.ljust(0x3000, b"\0")
START = 16 << 20
VMLINUX = images.elf(images.load(START, CODE), images.notes(images.pvh_entry(START)))
LEAVE_OUT = "or leave --pvh-relocate out"


def entered(protocol: str) -> str:
    return (
        f"the kernel is entered through {protocol}, and only a PVH entry is relocated; take"
        f" --protocol pvh, {LEAVE_OUT}"
    )


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("vmlinux").write_bytes(VMLINUX)
    Path("bzImage").write_bytes(images.bzimage(images.LINUX * 64))
    Path("Image").write_bytes(images.image() + images.LINUX)
    Path("ram").write_bytes(bytes(4096))
    Path("input").write_bytes(b"")
    builder.saved(tmp_path / "results.json", builder.case())
    return tmp_path


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            "image vmlinux --unsafe --pvh-relocate --out out",
            f"without an offset no PVH entry is relocated; give one (--offset), {LEAVE_OUT}",
        ),
        (
            "image vmlinux --unsafe --pvh-relocate --protocol linux64 --offset 16M --out out",
            entered("linux64"),
        ),
        (
            "image bzImage --no-proof --pvh-relocate --offset 16M --out out",
            entered("linux64"),
        ),
        (
            "image Image --no-proof --pvh-relocate --out out",
            entered("arm64"),
        ),
        (
            "fetch --list --locked",
            "--list: gets nothing: leave out --locked and --update",
        ),
        (
            "import ram --resume --out out",
            "--resume: of a live guest: give --gdb instead of a file",
        ),
        (
            "import ram --break 0x1000 --out out",
            "--break: of a live guest: give --gdb instead of a file",
        ),
        (
            "import --gdb unix:none --break-seconds 3 --out out",
            "--break-seconds: for which address? Name it with --break",
        ),
        (
            "fuzz --target elf --replay input --seed 3",
            "--replay: runs one input: leave out --seconds, --seed and --engine",
        ),
        (
            "report results.json --kcidb report.json --origin us --out out",
            "--out: with --kcidb no other report is written; leave one of them out",
        ),
    ],
)
def test_it_is_refused(
    words: str, why: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words.split()) == exitcode.USAGE
    said = capsys.readouterr().err
    assert said.startswith("bootproof: ") and said.endswith(f"{why}\n"), said
    assert not (files / "out").exists() and not (files / "report.json").exists()
