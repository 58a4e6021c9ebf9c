"""qemu.sh: the shell script in every run directory that starts the same guest again without us."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bootproof.harness.host.files import write_whole
from bootproof.harness.host.rundir import DEVICES_DIRECTORY, SCRIPT
from bootproof.harness.qemu.argv import Channels, DirectKernel, RamFile, argv
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.qemu.placement import PlacedImage
from bootproof.loader import bootimage
from bootproof.loader.bootimage import Backing
from bootproof.loader.memory import GuestMemory

_HEAD: Final = """\
#!/bin/sh
# Starts the guest of this directory again, made by bootproof.
#   ./qemu.sh          console on this terminal (the guest's timing then depends on the terminal)
#   ./qemu.sh FILE     console into FILE: {promise}
set -eu
console=/dev/stdout
[ $# -eq 0 ] || console=$(realpath -- "$1" | sed 's/,/,,/g')
"""
_ENTER: Final = 'cd "$(dirname "$0")"\n'
_REALTIME: Final = "the guest's time is the host's, and no two runs are the same"
_NEARLY: Final = "nearly always the same bytes"
_VERY_SAME: Final = "the very same run as before, byte for byte"
_PROBED: Final = """\
the same bytes each time, those of a run with --no-probe
# The run before was stopped at the kernel's first instruction, which this one is not: some time
# stamps may differ from those in console.log."""
# An interrupted shell only runs the trap for EXIT when the signal has a trap of its own.
_TRAPS: Final = """\
qemu=
end() {
    [ -z "$qemu" ] || kill "$qemu" 2>/dev/null || :
    wait
    exit "$1"
}
trap 'end 129' HUP
trap 'end 130' INT
trap 'end 143' TERM
"""
_CLEAN_UP: Final = f"""\
mkdir -p {DEVICES_DIRECTORY}
trap 'rm -rf {DEVICES_DIRECTORY}' EXIT
"""
# A shell that waits for a program in the foreground obeys a signal of its own only at its end.
_WAIT: Final = """\
qemu=$!
wait "$qemu"
"""
_CONSOLE_OPTION: Final = "file,id=console,path="
_VARIABLE: Final = "$console"


def write_script(
    machine: Machine, placed: PlacedImage, memory: GuestMemory, directory: Path, *, probed: bool
) -> None:
    """Writes qemu.sh into the run directory; `probed`: the run was stopped at its entry."""
    lines = [_head(machine, probed=probed), _TRAPS]
    if placed.files:
        lines.append(_CLEAN_UP)
    for file in placed.files:
        lines.append(
            f"dd if={bootimage.RAM} of={shlex.quote(file.path)} bs=1M status=none"
            " iflag=skip_bytes,count_bytes"
            f" skip={memory.file_offset(file.source)} count={file.size}\n"
        )
    ram = RamFile(bootimage.RAM) if placed.launch.mapped else None
    channels = Channels(console=_VARIABLE, ram=ram, after_shutdown="poweroff")
    words = argv(machine, placed.launch, channels)
    _write("".join([*lines, _command(words)]), directory)


def restore_first(directory: Path, memory: GuestMemory, backing: Sequence[Backing]) -> None:
    """Has qemu.sh put the parts of RAM that are in files of their own back into ram.img.

    Which changes nothing of what the boot image says.
    """
    script = (directory / SCRIPT).read_text("utf-8")
    restoring = "".join(
        f"dd if={part.file} of={bootimage.RAM} bs=1M conv=notrunc,sparse oflag=seek_bytes"
        f" seek={memory.file_offset(part.address)} status=none\n"
        for part in backing
    )
    _write(script.replace(_ENTER, f"{_ENTER}{restoring}", 1), directory)


def write_reference_script(machine: Machine, kernel: DirectKernel, directory: Path) -> None:
    """Writes qemu.sh for a boot by QEMU's own loader."""
    channels = Channels(console=_VARIABLE, after_shutdown="poweroff")
    _write(
        _head(machine, probed=True) + _TRAPS + _command(argv(machine, kernel, channels)), directory
    )


def _head(machine: Machine, *, probed: bool) -> str:
    promise = _PROBED if probed else _VERY_SAME
    if not machine.deterministic:
        promise = _REALTIME if machine.realtime else _NEARLY
    return _HEAD.replace("{promise}", promise) + _ENTER


def _write(script: str, directory: Path) -> None:
    write_whole(directory / SCRIPT, script.encode(), mode=0o755)


def _command(words: list[str]) -> str:
    """One option a line, so that people can read and change it; and waiting for the end."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("-") or not groups:
            groups.append([])
        groups[-1].append(word)
    lines = " \\\n    ".join(" ".join(map(_quoted, group)) for group in groups)
    return f"{lines} &\n{_WAIT}"


def _quoted(word: str) -> str:
    # Only this very word is ours: another one with a dollar sign may be a stranger's.
    ours = word == f"{_CONSOLE_OPTION}{_VARIABLE}"
    return f'"{word}"' if ours else shlex.quote(word)
