"""Writes an initial RAM file system: a cpio archive in "newc" format, and the guest's init.

The same input gives the same bytes: inode numbers count up, times are zero, everything is root's.
Several archives may be concatenated; later entries win.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass

TRAILER: Final = b"TRAILER!!!"
MAGIC: Final = b"070701"
_PROGRAMS: Final = Path(__file__).with_name("guest")
OURS = "bootproof"
"""The directory of the proof's files, below the root: nobody else may write there."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: `mode` with its type bits, `data` for files (content) and links (target)."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str, permissions: int = 0o755) -> Entry:
    return Entry(path, stat.S_IFDIR | permissions)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | permissions, data)


def character_device(path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The newc archive of `entries`, trailer included, padded to 512 bytes."""
    members = [*enumerate(entries, start=1), (0, Entry(TRAILER.decode(), 0))]
    parts = [part for number, entry in members for part in _member(number, entry)]
    return b"".join([*parts, _padding(sum(map(len, parts)), 512)])


def inits() -> tuple[str, ...]:
    """The programs that can be the guest's first process: ours, and those that misbehave."""
    names = (program.name for program in _PROGRAMS.iterdir())
    return tuple(sorted(name for name in names if name.startswith("init")))


# A line of its evidence more, before the one that it ends with.
_LAST_EVIDENCE: Final = b'$places$type"\n'
_VIRTUAL_START: Final = b"virtual_start $($b grep -m1 ' _text$' kallsyms)\n"

# Where the serial port is opened; and what makes it before that, where kernels choose its number.
# Without a driver it is a device that cannot be opened.
_OPENED: Final = b"if true > /bootproof/serial; then\n"
_MADE: Final = b"""\
/bootproof/busybox mount -t sysfs sysfs /bootproof/sys
IFS=: read -r major minor < /bootproof/sys/class/tty/%s/dev
/bootproof/busybox mknod /bootproof/serial c ${major:-0} ${minor:-0}
/bootproof/busybox umount /bootproof/sys
unset major minor
"""


def evidence_entries(
    busybox: bytes, serial: tuple[int, int] | str, init: str = "init", *, virtual: bool = False
) -> list[Entry]:
    """The init program that proves a boot, for `rdinit=/bootproof/init`.

    It lives in a directory of its own, so that it goes with anybody's initramfs. `serial` is the
    device number, major and minor, of the serial port that it speaks through, or the name of its
    tty, whose number init then asks for. `init` names another program of loader/guest in its place:
    one that misbehaves. With `virtual` it also says at which
    virtual address the kernel begins, which takes a while.
    """
    program = (_PROGRAMS / init).read_bytes()
    if virtual:
        program = program.replace(_LAST_EVIDENCE, _VIRTUAL_START + _LAST_EVIDENCE)
    port = []
    if isinstance(serial, str):
        program = program.replace(_OPENED, _MADE % serial.encode() + _OPENED)
    else:
        port = [character_device(f"{OURS}/serial", *serial)]
    return [
        directory("dev"),
        character_device("dev/console", 5, 1),
        directory(OURS),
        *port,
        character_device(f"{OURS}/kmsg", 1, 11),
        directory(f"{OURS}/proc"),
        directory(f"{OURS}/lines"),
        directory(f"{OURS}/sys"),
        file(f"{OURS}/busybox", busybox, 0o755),
        file(f"{OURS}/init", program, 0o755),
        _program("restart"),
        _program("shell"),
    ]


def dialogue_entries() -> list[Entry]:
    """The shell for a program to talk to, for `bootproof.next=/bootproof/dialogue`: goes behind
    `evidence_entries`.
    """
    return [_program("dialogue")]


_END: Final = b"exec /bootproof/restart\n"  # of a guest with tests


def test_entries(tests: Iterable[str], *, goes_on: bool = False) -> list[Entry]:
    """What runs these commands after the proof, for `bootproof.next=/bootproof/run-tests`: goes
    behind `evidence_entries`. Each test is the text of a shell script. With `goes_on` what
    `bootproof.then=` names runs after them.
    """
    program = _program("run-tests")
    if goes_on:
        program = replace(program, data=program.data.replace(_END, _program("then").data))
    return [
        program,
        directory(f"{OURS}/tests"),
        *(
            file(f"{OURS}/tests/{number:06}", f"{test}\n".encode())
            for number, test in enumerate(tests, start=1)
        ),
    ]


def module_entries(modules: Mapping[str, bytes]) -> list[Entry]:
    """The files of kernel modules, by their names; none of them is loaded by that."""
    files = [file(f"{OURS}/modules/{name}.ko", data) for name, data in modules.items()]
    return [directory(f"{OURS}/modules"), *files] if files else []


def _program(name: str) -> Entry:
    return file(f"{OURS}/{name}", (_PROGRAMS / name).read_bytes(), 0o755)


def _member(inode: int, entry: Entry) -> Iterator[bytes]:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    numbers = (
        *(inode, entry.mode, 0, 0, links, 0, len(entry.data)),
        *(0, 0, *entry.device, len(name), 0),
    )
    header = MAGIC + b"".join(b"%08X" % number for number in numbers) + name
    for part in (header, entry.data):  # which may be megabytes: nothing is copied but by `archive`
        yield part
        yield _padding(len(part), 4)


def _padding(size: int, unit: int) -> bytes:
    return bytes(-size % unit)
