"""Guests that are no Linux, as Debian has them: their entry is proved, and their console heard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bootproof.dataclass import dataclass
from bootproof.harness import cli

RunDirectory = Callable[[str], Path]


@dataclass(frozen=True)
class Guest:
    """A name of the catalogue, how it is entered, and what it says for certain."""

    kernel: str
    protocol: str
    says: str
    cmdline: str
    memory: str = "128M"
    machine: str | None = None


MEMTEST = "console=ttyS0,115200 nosmp nomch nopause"
XEN = "console=dtuart dtuart=/pl011@9000000"
GUESTS = {
    "memtest86+-linux64": Guest("memtest86+", "linux64", "Memtest86+ v", MEMTEST),
    "memtest86+-linux32": Guest("memtest86+", "linux32", "Memtest86+ v", MEMTEST),
    "xen-arm64": Guest(
        *("xen-arm64", "arm64", "(XEN) Generic Timer", XEN), machine="virt,virtualization=on"
    ),
}


@pytest.mark.parametrize("name", GUESTS)
def test_a_guest_that_is_no_linux(name: str, run_directory: RunDirectory) -> None:
    guest, directory = GUESTS[name], run_directory(f"other-{name}")
    shutil.rmtree(directory, ignore_errors=True)
    image, machine = directory / "image", ["--machine", guest.machine] if guest.machine else []
    words = ["--protocol", guest.protocol, "--memory", guest.memory, "--cmdline", guest.cmdline]
    assert (
        cli.main(["image", guest.kernel, "--no-proof", *words, *machine, "--out", str(image)]) == 0
    )
    assert cli.main(["check", str(image)]) == 0
    for until, code in ((guest.says, 0), ("no guest says this", 1)):
        out = directory / f"run-{code}"
        asked = ["--until", until, "--budget-seconds", "2", "--out", str(out)]
        assert cli.main(["run", str(image), *machine, *asked]) == code
        result = json.loads((out / "result.json").read_text())
        assert (result["verdict"] == "handed-over") is (code == 0)
        assert result["probe"]["reached"] and not result["probe"]["differences"]
