"""The options of `boot`, `compare` and `image`: one kernel and what is asked of the loader."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bootproof.harness.commands import parser as words

if TYPE_CHECKING:
    from bootproof.harness.cases import from_kernel


def add_request(parser: argparse.ArgumentParser) -> None:
    """What is asked of the loader, whatever becomes of the boot image."""
    add_kernel(parser)
    parser.add_argument(
        "--offset",
        type=words.offset,
        default=...,
        metavar="SIZE",
        help="added to a vmlinux's addresses, load address of a bzImage, base of an Image (default:"
        " none; for an Image RAM + 2M)",
    )
    parser.add_argument(
        "--pvh-relocate",
        action="store_true",
        help="with --offset: PVH where the kernel's relocation note allows it",
    )
    parser.add_argument("--unsafe", action="store_true", help="start what would be refused")
    parser.add_argument("--smp", type=words.cpus, default=1, metavar="N", help="CPUs (default: 1)")
    parser.add_argument(
        "--profile",
        choices=("default", "fast"),
        default="default",
        metavar="NAME",
        help="default or fast, a command line without the kernel's self-tests and mitigations",
    )


def add_kernel(parser: argparse.ArgumentParser) -> None:
    """A kernel, what goes with it, and the machine."""
    parser.add_argument("kernel", metavar="KERNEL", help="a file, or a name of the catalogue")
    parser.add_argument(
        "--protocol",
        choices=("auto", "linux64", "linux32", "pvh", "arm64"),
        default="auto",
        metavar="NAME",
        help="linux64, linux32, pvh or arm64 (default: PVH if offered, else Linux's own)",
    )
    parser.add_argument(
        "--format",
        choices=("elf", "bzimage", "image"),
        metavar="NAME",
        help="elf, bzimage or image: unpack to this first (default: as it is, elf for pvh)",
    )
    parser.add_argument(
        "--memory", type=words.size, default=512 << 20, metavar="SIZE", help="guest RAM (512M)"
    )
    parser.add_argument("--cmdline", help="kernel command line instead of the default")
    parser.add_argument(
        "--initrd", type=Path, metavar="FILE", help="its /init runs after the proof"
    )
    parser.add_argument("--machine", help="QEMU machine type (q35, pc, microvm; virt)")
    parser.add_argument("--cpu", help="QEMU CPU model")


def request_of(arguments: argparse.Namespace) -> from_kernel.Request:
    from bootproof.harness.cases import from_kernel

    return from_kernel.Request(
        kernel=arguments.kernel,
        protocol=arguments.protocol,
        format=arguments.format,
        offset=from_kernel.DEFAULT if arguments.offset is ... else arguments.offset,
        memory=arguments.memory,
        cmdline=arguments.cmdline,
        initrd=arguments.initrd,
        board=arguments.machine,
        cpu=arguments.cpu,
        placement=arguments.placement,
        unsafe=arguments.unsafe,
        pvh_relocate=arguments.pvh_relocate,
        smp=arguments.smp,
        profile=arguments.profile,
        realtime=arguments.realtime,
        twice=arguments.twice,
        console=arguments.console,
        probe=arguments.probe,
        out=arguments.out,
    )
