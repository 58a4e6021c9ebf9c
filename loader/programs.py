"""Whether a kernel can start a program out of an initramfs, and what is in the way.

Owns what a tree of files comes of an archive's members, and what the kernel asks of a program. Must
not know how an archive is read (loader/cpio.py). What a kernel has built in is not seen, so that a
program which lacks something here may start all the same.

Source: init/initramfs.c (do_name, maybe_link), fs/exec.c, fs/binfmt_script.c and fs/binfmt_elf.c of
the kernel; System V ABI, chapter 5 (PT_INTERP).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.elfheader import (
    EI_CLASS,
    EI_DATA,
    ELF_MACHINES,
    ELF_MAGIC,
    ELFCLASS64,
    ELFDATA2LSB,
)

HEAD: Final = 1024  # bytes of a program: its program headers, and the name of its loader
_LINE: Final = 256  # of a script: BINPRM_BUF_SIZE
_MOST_LINKS: Final = 40  # MAXSYMLINKS
_DEEPEST: Final = 5  # scripts that run scripts (fs/exec.c, exec_binprm)
_PT_INTERP: Final = 3
_ELF_HEADER: Final = 64  # bytes; 52 with 32 bits


@dataclass(frozen=True, slots=True)
class Item:
    """What becomes of one member of an archive."""

    path: bytes
    mode: int
    size: int
    # Its first bytes; the target of a link.
    head: bytes
    # The same for all names of one file; None where it has one name.
    inode: tuple[object, ...] | None = None

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


def why_not(items: Iterable[Item], program: bytes, machines: Sequence[int]) -> str:
    """Why `program` cannot be started by a kernel that runs programs of these e_machine; "" where
    nothing is known to be in the way. Later items replace earlier ones.
    """
    return _Root(items, machines).why_not(program, 0)


class _Root:
    """The root directory after all members were unpacked."""

    def __init__(self, items: Iterable[Item], machines: Sequence[int]) -> None:
        self._machines = machines
        self._files: dict[bytes, Item] = {}
        self._names: dict[tuple[object, ...], list[bytes]] = {}
        self._homeless: dict[bytes, bytes] = {}  # and the directory that was not there
        for item in items:
            self._add(item)

    def _add(self, item: Item) -> None:
        *above, name = _parts(item.path) or [b""]
        home = self._resolved(b"/".join(above))
        if home is None or (home and not self._files[home].is_directory):
            self._homeless[b"/".join([*above, name])] = b"/".join(above)
            return
        path = b"/".join([home, name]) if home else name
        self._files[path] = item
        if item.inode is None:
            return
        names = self._names.setdefault(item.inode, [])
        whole = item if item.size or not names else self._files[names[0]]
        names.append(path)
        self._files |= dict.fromkeys(names, whole)

    def _resolved(self, path: bytes) -> bytes | None:
        """The name of what a path leads to, links followed; None where there is nothing."""
        wanted, found, links = _parts(path), list[bytes](), 0
        while wanted:
            part = wanted.pop(0)
            if part == b"..":
                found = found[:-1]
                continue
            item = self._files.get(b"/".join([*found, part]))
            if item is None:
                return None
            if not item.is_link:
                found.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                return None
            wanted = [*_parts(item.head), *wanted]
            found = [] if item.head.startswith(b"/") else found
        return b"/".join(found)

    def why_not(self, path: bytes, depth: int) -> str:
        shown = path.decode("utf-8", "backslashreplace")
        where = self._resolved(path)
        if not where:
            return f"{shown} is not in the initrd{self._why_missing(path)}"
        item = self._files[where]
        if not stat.S_ISREG(item.mode):
            return f"{shown} is {'a directory' if item.is_directory else 'no file'}"
        if not item.mode & 0o111:
            mode = stat.S_IMODE(item.mode)
            return f"{shown} is not executable (its mode is {mode:04o}; chmod +x it)"
        if item.head.startswith(b"#!"):
            return self._script(shown, item.head[:_LINE], depth)
        if item.head.startswith(ELF_MAGIC):
            return self._elf(shown, item.head, depth)
        if not item.size:
            return f"{shown} is empty"
        return f"{shown} is no program: it begins with neither #! nor an ELF header"

    def _why_missing(self, path: bytes) -> str:
        name = b"/".join(_parts(path))
        item, home = self._files.get(name), self._homeless.get(name)
        if item is not None and item.is_link:
            return f" (a link to {item.head.decode('utf-8', 'backslashreplace')} is)"
        if home is not None:
            directory = home.decode("utf-8", "backslashreplace")
            return f": its directory /{directory} is no member before it, and kernels make none"
        return "; put it there, or take a static program"

    def _script(self, shown: str, head: bytes, depth: int) -> str:
        line = head[2:].partition(b"\n")[0]
        if line.endswith(b"\r"):
            return f"the first line of {shown} ends in CR LF; kernels want LF"
        words = line.replace(b"\0", b" ").split()
        if not words:
            return f"{shown} is a script whose first line names no interpreter"
        if depth >= _DEEPEST:
            return f"{shown} is a script of a script, and so on"
        return self._by(shown, "a script for", words[0], depth)

    def _elf(self, shown: str, head: bytes, depth: int) -> str:
        order = "<" if head[EI_DATA : EI_DATA + 1] == bytes([ELFDATA2LSB]) else ">"
        if len(head) < _ELF_HEADER:
            return f"{shown} is cut off: it has {len(head)} bytes"
        machine = struct.unpack_from(f"{order}H", head, 18)[0]
        if machine not in self._machines:
            name = ELF_MACHINES.get(machine, f"machine {machine}")
            return f"{shown} is a program for {name}, not for {ELF_MACHINES[self._machines[0]]}"
        loader = _loader(head, order)
        return self._by(shown, "a dynamic program with the loader", loader, depth) if loader else ""

    def _by(self, shown: str, kind: str, other: bytes, depth: int) -> str:
        """What is in the way of a program that another one starts."""
        why = self.why_not(other, depth + 1)
        named = other.decode("utf-8", "backslashreplace")
        return f"{shown} is {kind} {named}; {why}" if why else ""


def _loader(head: bytes, order: str) -> bytes:
    """The dynamic loader that a program names, as far as its head tells."""
    if head[EI_CLASS] == ELFCLASS64:
        start, entry, count = struct.unpack_from(f"{order}Q", head, 32)[0], 56, 56
        of_file, layout = 8, "Q"
    else:
        start, entry, count = struct.unpack_from(f"{order}I", head, 28)[0], 32, 44
        of_file, layout = 4, "I"
    number = struct.unpack_from(f"{order}H", head, count)[0]
    for at in range(start, start + entry * number, entry):
        if at + entry > len(head):
            break
        if struct.unpack_from(f"{order}I", head, at)[0] == _PT_INTERP:
            offset = struct.unpack_from(f"{order}{layout}", head, at + of_file)[0]
            name, end, _ = head[offset:].partition(b"\0")
            return name if end else b""
    return b""


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]
