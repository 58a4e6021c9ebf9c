"""Our programs in processes of their own, as users start them, and tiny kernels to boot there.

No guest here gets as far as running busybox, which is a placeholder: nothing is fetched.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bootproof.harness.case import Case
from bootproof.harness.cases import case_file
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
from bootproof.loader.address import MIB
from tests import ROOT
from tests.builders import images
from tests.builders.guests import TEXT_DISTANCE, X86Program

LOAD: Final = 16 * MIB
CLI: Final = ("-P", "-m", "bootproof.harness.cli")

_NO_BUSYBOX: Final = """
from bootproof.harness.inputs import images
images.busybox = lambda arch: b"no busybox"
"""
_WITHOUT_BUSYBOX: Final = f"""
import sys
from bootproof.harness import cli
{_NO_BUSYBOX}
sys.exit(cli.main(sys.argv[1:]))
"""
_MATRIX: Final = """
import sys
from bootproof.harness import cli
from bootproof.harness.commands import Command
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
selection = matrix.Selection(MatrixOptions())
run = lambda arguments: matrix._pytest(sys.argv[1:], selection)
cli.COMMANDS = {"matrix": Command("", "", run)}
sys.exit(cli.main(["matrix"]))
"""


def vmlinux(program: X86Program, memsz: int = 0x2000) -> bytes:
    """An ELF kernel of these instructions, linked to 16 MiB."""
    code = bytes(program.code).ljust(0x1000 - len(images.LINUX), b"\x90")
    return images.elf(images.load(LOAD, code + images.LINUX, memsz=memsz))


def vmlinux_with_text(program: X86Program) -> bytes:
    """An ELF kernel of these instructions and of the strings they print."""
    data = bytes(program.code).ljust(TEXT_DISTANCE, b"\x90") + bytes(program.text) + images.LINUX
    return images.elf(images.load(LOAD, data, memsz=0x20000))


def environment(*path: Path, **variables: str) -> dict[str, str]:
    """This environment, where bootproof and what is in `path` can be imported.

    A pytest there has the plugins that it names, and none that happens to be installed beside us.
    """
    modules = os.pathsep.join(map(str, (ROOT / "src", *path)))
    pytests = {"PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return {**os.environ, "PYTHONPATH": modules} | pytests | variables


def python(
    *words: str | Path,
    cwd: Path = ROOT,
    path: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs Python to its end, with `env` over this environment; the caller judges how it ended."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=environment(*path, **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def bootproof(*words: str | bytes | Path) -> list[str | bytes | Path]:
    """A command line of `bootproof`, with a placeholder for busybox."""
    return [sys.executable, "-c", _WITHOUT_BUSYBOX, *words]


def bootproof_matrix(directory: Path, cases: Sequence[Case], **options: Any) -> list[str]:
    """The command line of a matrix of these cases in `directory`, which must be in `path`."""
    case_file.write_cases(directory / "a.cases.json", cases)
    (directory / "no_busybox.py").write_text(_NO_BUSYBOX)
    chosen = MatrixOptions(out=directory / "out", **options)
    words = matrix.arguments(matrix.Selection(chosen), directory / "a.cases.json")
    return [sys.executable, "-c", _MATRIX, *words, "-p", "no_busybox"]


def started(words: Sequence[Any], directory: Path, **variables: str) -> subprocess.Popen[str]:
    """A matrix under way, in a session of its own; all that it says is on its stdout."""
    return subprocess.Popen(
        words,
        cwd=ROOT,
        env=environment(directory, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
