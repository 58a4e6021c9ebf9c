"""What keeps a kernel from starting a program of an initramfs."""

from __future__ import annotations

import struct

import pytest

from bootproof.loader import cpio
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.initramfs import Entry, archive, directory, file
from bootproof.loader.programs import why_not
from tests.builders import packings

LOADER = b"/lib/ld.so.1"
DYNAMIC = "/init is a dynamic program with the loader /lib/ld.so.1"
HOMELESS = " is no member before it, and kernels make none"
STATIC = "; put it there, or take a static program"


def program(machine: int = 62, loader: bytes = b"", *, bits: int = 64) -> bytes:
    """An ELF program with a PT_LOAD and, where it has a loader, a PT_INTERP."""
    wide = bits == 64
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]).ljust(12, b"\0")
    entry, first = (56, 64) if wide else (32, 52)
    count = 2 if loader else 1
    at = first + entry * count
    layout = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
    header = struct.pack(layout, 2, machine, 1, 0, first, 0, 0, first, entry, count, 0, 0, 0)
    where = struct.pack("<IIQ" if wide else "<II", *((3, 4, at) if wide else (3, at)))
    return ident + header + bytes(entry) + where.ljust(entry, b"\0") + loader + b"\0" + bytes(64)


def link(path: str, target: str) -> Entry:
    return Entry(path, 0o120777, target.encode())


def names(*paths: str, data: bytes) -> bytes:
    """An archive with one executable file of several names, as cpio writes it: the last has it."""
    made = bytearray(archive([file(p, data if p == paths[-1] else b"", 0o755) for p in paths]))
    at = -1
    while (at := made.find(b"070701", at + 1)) >= 0:
        made[at + 6 : at + 14] = b"00000007"
        made[at + 38 : at + 46] = b"%08X" % len(paths)
    return bytes(made)


def reason(data: bytes, path: bytes = b"/init", arch: str = "x86_64") -> str:
    return why_not(cpio.items(data, "it"), path, ARCHITECTURES[arch].programs)


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([], f"/init is not in the initrd{STATIC}"),
        ([directory("init")], "/init is a directory"),
        ([Entry("init", 0o020755)], "/init is no file"),
        ([file("init", b"#!/x\n")], "/init is not executable (its mode is 0644; chmod +x it)"),
        ([file("init", b"", 0o755)], "/init is empty"),
        (
            [file("init", b"echo\n", 0o755)],
            "/init is no program: it begins with neither #! nor an ELF header",
        ),
        (
            [file("init", b"#! /bin/bash -e\necho\n", 0o755)],
            f"/init is a script for /bin/bash; /bin/bash is not in the initrd{STATIC}",
        ),
        (
            [file("init", b"#!/bin/sh\r\necho\r\n", 0o755), directory("bin"), file("bin/sh", b"")],
            "the first line of /init ends in CR LF; kernels want LF",
        ),
        ([file("init", b"#!\n", 0o755)], "/init is a script whose first line names no interpreter"),
        ([file("init", b"#!/init\n", 0o755)], "/init is a script for /init; " * 5),
        ([file("init", program(183), 0o755)], "/init is a program for aarch64, not for x86_64"),
        ([file("init", program()[:40], 0o755)], "/init is cut off: it has 40 bytes"),
        (
            [file("init", program(loader=LOADER), 0o755)],
            f"{DYNAMIC}; /lib/ld.so.1 is not in the initrd{STATIC}",
        ),
        (
            [file("init", program(3, LOADER, bits=32), 0o755), directory("lib")],
            f"{DYNAMIC}; /lib/ld.so.1 is not in the initrd{STATIC}",
        ),
        (
            [link("init", "sbin/init")],
            "/init is not in the initrd (a link to sbin/init is)",
        ),
        ([link("init", "/init")], "/init is not in the initrd (a link to /init is)"),
        (
            [file("init", b"#!/bin/sh\n", 0o755), file("bin/sh", program(), 0o755)],
            "/init is a script for /bin/sh; /bin/sh is not in the initrd: its directory /bin"
            + HOMELESS,
        ),
    ],
)
def test_what_is_in_the_way(entries: list[Entry], why: str) -> None:
    assert (
        reason(archive(entries)).startswith(why)
        if why.endswith("; ")
        else (reason(archive(entries)) == why)
    )


@pytest.mark.parametrize(
    "entries",
    [
        [file("init", program(), 0o755)],
        [file("./init", program(3, bits=32), 0o700)],
        [directory("bin"), file("bin/sh", program(), 0o755), file("init", b"#!/bin/sh\n", 0o755)],
        [directory("usr"), directory("usr/bin"), link("bin", "usr/bin"),
         file("usr/bin/busybox", program(), 0o755), link("usr/bin/sh", "busybox"),
         file("init", b"#!\t/bin/sh -e\necho\n", 0o755)],
        [directory("lib"), link("lib64", "/lib"), file("lib/ld.so.1", program(), 0o755),
         file("init", program(loader=b"/lib64/../lib/ld.so.1"), 0o755)],
        [file("init", b"", 0o644), file("init", program(), 0o755)],
        [file("init", program() + bytes(5000), 0o755)],
    ],
)  # fmt: skip
def test_what_starts(entries: list[Entry]) -> None:
    assert reason(archive(entries)) == ""
    assert reason(packings.lz4_legacy(archive(entries))) == ""


def test_a_file_of_several_names() -> None:
    """Within an archive; another one may use the number again."""
    assert reason(names("init", "sbin", data=program())) == ""
    both = names("other", "another", data=b"") + names("init", "sbin", data=program())
    assert reason(both) == "" and reason(both, b"/other") == "/other is empty"


def test_a_later_archive_brings_what_an_earlier_one_lacks() -> None:
    script = archive([file("init", b"#!/bin/sh\n", 0o755)])
    assert reason(script + archive([directory("bin"), file("bin/sh", program(), 0o755)])) == ""


def test_programs_of_the_architecture() -> None:
    for arch, machine in (("aarch64", 183), ("riscv64", 243)):
        right = archive([file("init", program(machine), 0o755)])
        assert reason(right, arch=arch) == ""
        assert reason(right) == f"/init is a program for {arch}, not for x86_64"
