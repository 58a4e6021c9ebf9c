"""`bootproof run`, `replay`, `pack`, `unpack`: directories of a boot image or of a whole run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bootproof.harness import places
from bootproof.harness.arguments import words
from bootproof.harness.errors import UserError


def add_run(commands: words.Commands) -> None:
    run = words.command(
        commands,
        "run",
        "start a boot image that any program wrote, and judge it",
        example="bootproof run build/image",
        usage="bootproof run [options] DIR",
    )
    run.add_argument("directory", metavar="DIR", type=Path, help="holds boot.json and ram.img")
    run.add_argument("--machine", help="QEMU machine type (q35, pc, microvm; virt)")
    run.add_argument("--cpu", help="QEMU CPU model")
    run.add_argument(
        "--memory", type=words.size, metavar="SIZE", help="checked: the banks must be as large"
    )
    run.add_argument(
        "--smp",
        type=words.cpus,
        metavar="N",
        help="CPUs (default: as many as its ACPI tables or its device tree tell of)",
    )
    what = run.add_mutually_exclusive_group()
    what.add_argument(
        "--until",
        metavar="TEXT",
        type=os.fsencode,
        help="text the console must show, for a guest that cannot prove its boot",
    )
    what.add_argument(
        "--only-handover",
        action="store_true",
        help="stop at the first instruction: registers, RAM and the protocol's rules",
    )
    run.add_argument(
        "--budget-seconds",
        type=words.seconds,
        metavar="N",
        help="CPU seconds of QEMU (default: 300)",
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="the run directory")
    run.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import run as runimage

    return runimage.run(
        runimage.Request(
            directory=arguments.directory,
            board=arguments.machine,
            cpu=arguments.cpu,
            memory=arguments.memory,
            smp=arguments.smp,
            until=arguments.until or None,
            only_handover=arguments.only_handover,
            budget_seconds=arguments.budget_seconds,
            out=arguments.out,
        ),
        places.output() / "run",
    )


def add_replay(commands: words.Commands) -> None:
    replay = words.command(
        commands,
        "replay",
        "play back a recorded run and compare, or debug it",
        example="bootproof replay build/boot/x86_64-vmlinux-elf-auto-none --gdb",
    )
    replay.add_argument("directory", metavar="RUN", type=Path, help="a run's directory, or a pack")
    replay.add_argument(
        "--gdb",
        nargs="?",
        const="",
        metavar="SOCKET|PORT",
        help="wait for a debugger where the run failed, ready to go back; on a socket of its own,"
        " the path of a socket to make, or a port on loopback",
    )
    replay.add_argument(
        "--at",
        type=int,
        metavar="N",
        help="with --gdb: stop after N guest instructions (default: where the kernel says that it"
        " panics, else at the end)",
    )
    replay.add_argument(
        "--symbols", type=Path, metavar="VMLINUX", help="with --gdb: a kernel with symbols"
    )
    replay.set_defaults(run=_replay)


def _replay(arguments: argparse.Namespace) -> int:
    from bootproof.harness.record import pack, replay, reverse

    wanted = (arguments.at, arguments.symbols)
    if arguments.gdb is None and wanted != (None, None):
        raise UserError("--at and --symbols go with --gdb")
    with pack.run_directory(arguments.directory) as directory:
        if arguments.gdb is not None:
            return reverse.run(directory, arguments.gdb, *wanted)
        return replay.run(directory)


def add_pack(commands: words.Commands) -> None:
    pack = words.command(
        commands,
        "pack",
        "put a recorded run into one file, to be replayed elsewhere",
        example="bootproof pack build/boot/RUN --out failure.tar.zst",
    )
    pack.add_argument("directory", metavar="RUN", type=Path, help="the directory of a run")
    pack.add_argument("--out", type=Path, metavar="FILE", help="default: RUN.tar.zst")
    pack.set_defaults(run=_pack)
    unpack = words.command(
        commands,
        "unpack",
        "make a run's directory from a packed run",
        example="bootproof unpack failure.tar.zst --out failure",
    )
    unpack.add_argument("file", metavar="FILE", type=Path, help="what `bootproof pack` wrote")
    unpack.add_argument("--out", type=Path, metavar="DIR", required=True, help="must not exist")
    unpack.set_defaults(run=_unpack)


def _pack(arguments: argparse.Namespace) -> int:
    from bootproof.harness.record import pack

    directory = arguments.directory.absolute()
    out = arguments.out or directory.with_name(f"{directory.name}{pack.SUFFIX}")
    size = pack.pack(arguments.directory, out)
    print(f"packed    {out}: {size:,} bytes; replay it with: bootproof replay {out}")
    return words.OK


def _unpack(arguments: argparse.Namespace) -> int:
    from bootproof.harness.record import pack

    pack.unpack(arguments.file, arguments.out)
    print(f"unpacked  {arguments.out}; replay it with: bootproof replay {arguments.out}")
    return words.OK
