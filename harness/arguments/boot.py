"""`bootproof boot`, `compare`, `image`: one kernel and what is asked of the loader."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bootproof.harness import places
from bootproof.harness.arguments import words

if TYPE_CHECKING:
    from bootproof.harness.commands import boot


def add_boot(commands: words.Commands) -> None:
    boot = words.command(
        commands,
        "boot",
        "boot one kernel, with live output",
        example="bootproof boot arch/x86/boot/bzImage --protocol linux32 --offset 32M",
        usage="bootproof boot [options] KERNEL",
    )
    _add_request(boot)
    boot.add_argument(
        "--placement",
        choices=("pieces", "mapped"),
        default="pieces",
        metavar="WAY",
        help="pieces: a generic loader device for each; mapped: ram.img itself is the RAM",
    )
    boot.add_argument(
        "--probe",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare CPU and RAM at the first instruction with what was asked (default: yes)",
    )
    boot.add_argument(
        "--realtime",
        action="store_true",
        help="the host's clock in the guest; then not reproducible",
    )
    boot.add_argument(
        "--twice",
        action="store_true",
        help="boot twice; transcripts and, with one CPU, instruction counts must be the same",
    )
    boot.add_argument(
        "--console", action="store_true", help="talk to the guest (real time, not reproducible)"
    )
    boot.add_argument("--out", type=Path, metavar="DIR", help="the run directory")
    boot.set_defaults(run=_boot)


def _boot(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import boot

    return boot.run(_request(arguments), places.output() / "boot")


def add_compare(commands: words.Commands) -> None:
    compare = words.command(
        commands,
        "compare",
        "boot a kernel our way and by QEMU's own -kernel",
        example="bootproof compare vmlinux --protocol pvh --json",
        usage="bootproof compare [options] KERNEL",
    )
    _add_kernel(compare)
    compare.add_argument("--json", action="store_true", help="every difference, as JSON")
    compare.add_argument("--out", type=Path, metavar="DIR", help="the run directories' place")
    compare.set_defaults(
        run=_compare,
        offset=...,
        placement="pieces",
        unsafe=False,
        pvh_relocate=False,
        smp=1,
        profile="default",
        realtime=False,
        twice=False,
        console=False,
        probe=True,
    )


def _compare(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import compare

    out = places.output() / "compare"
    return compare.run(_request(arguments), out, as_json=arguments.json)


def add_image(commands: words.Commands) -> None:
    image = words.command(
        commands,
        "image",
        "write a boot image without starting anything",
        example="bootproof image vmlinux --protocol linux64 --out build/image",
        usage="bootproof image [options] --out DIR KERNEL",
    )
    _add_request(image)
    image.add_argument("--out", type=Path, metavar="DIR", required=True, help="the boot image")
    image.set_defaults(
        run=_image, placement="pieces", probe=True, realtime=False, twice=False, console=False
    )


def _image(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import run as runimage

    return runimage.write_image(_request(arguments), arguments.out)


def _add_request(parser: words.Parser) -> None:
    """What is asked of the loader, whatever becomes of the boot image."""
    _add_kernel(parser)
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


def _add_kernel(parser: words.Parser) -> None:
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


def _request(arguments: argparse.Namespace) -> boot.Request:
    from bootproof.harness.commands import boot

    return boot.Request(
        kernel=arguments.kernel,
        protocol=arguments.protocol,
        format=arguments.format,
        offset=boot.DEFAULT if arguments.offset is ... else arguments.offset,
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
