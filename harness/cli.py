"""The `bootproof` command: arguments in, exit code out. Every sub-command is a few calls.

Exit codes: 0 as expected, 1 a case is not as expected, 2 usage or environment, 130 interrupted
(143 by SIGTERM, 129 by SIGHUP). A reader of standard output that goes away changes none of them.
Modules are imported where they are needed, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from harness import VERSION, places
from harness.commands.output import StandardOutput
from harness.errors import UserError
from harness.host import ending
from loader.address import parse_size
from loader.errors import one_line

if TYPE_CHECKING:
    from harness.commands import boot

_MOST_GUESTS: Final = 256
OK, NOT_AS_EXPECTED, USAGE, INTERRUPTED = 0, 1, 2, 130

_EXAMPLES: Final = {
    "matrix": "example: bootproof matrix --kernel arch/x86/boot/bzImage --dry-run",
    "boot": "example: bootproof boot arch/x86/boot/bzImage --protocol linux32 --offset 32M",
    "image": "example: bootproof image vmlinux --protocol linux64 --out build/image",
    "run": "example: bootproof run build/image",
    "pack": "example: bootproof pack build/boot/RUN --out failure.tar.zst",
    "unpack": "example: bootproof unpack failure.tar.zst --out failure",
    "replay": "example: bootproof replay build/boot/x86_64-vmlinux-elf-auto-none --gdb",
    "initramfs": "example: bootproof initramfs build/proof.cpio",
    "compare": "example: bootproof compare vmlinux --protocol pvh --json",
    "fetch": "example: bootproof fetch 6.1-amd64 --mirror http://mirror.example/debian",
    "fuzz": "example: bootproof fuzz --target elf --seconds 600",
    "report": "example: bootproof report old/results.json build/matrix",
    "history": "example: bootproof history nightly-results/",
    "inspect": "example: bootproof inspect vmlinux --offset 16M",
    "completion": 'example: eval "$(bootproof completion bash)"',
    "setup": "example: bootproof setup",
    "doctor": "example: bootproof doctor",
    "test": "example: bootproof test",
}
_USAGES: Final = {  # where all options would fill half a screen
    "boot": "bootproof boot [options] KERNEL",
    "compare": "bootproof compare [options] KERNEL",
    "image": "bootproof image [options] --out DIR KERNEL",
    "run": "bootproof run [options] DIR",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Mistakes of the user's side are one line on stderr and exit code 2."""
    handlers = ending.obey_signals()
    output = StandardOutput()
    output.install()
    try:
        code = _carry_out(_parser().parse_args(argv))
    finally:
        output.finish()
        ending.obey_no_more(handlers)
    if output.error is not None:
        _complain(f"standard output: {output.error.strerror}")
        return code or USAGE
    return code


def _carry_out(arguments: argparse.Namespace) -> int:
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if not _is_users(error):
            raise
        _complain(str(error))
        return USAGE
    if code == INTERRUPTED:
        code = ending.exit_code(INTERRUPTED)
        if code == INTERRUPTED:
            _complain("interrupted")
    return code


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"bootproof: {one_line(text)}", file=sys.stderr, flush=True)


def _is_users(error: Exception) -> bool:
    from kernels.errors import FetchError, FetchErrors
    from loader.errors import LoaderError

    return isinstance(error, UserError | FetchError | FetchErrors | LoaderError)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all of ours are."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="bootproof",
        description="Proves that a kernel image boots: every offset, every boot protocol.",
        epilog="`bootproof --no-setup COMMAND` never installs anything."
        " Exit codes: 0 as expected, 1 not, 2 usage or environment, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"bootproof {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_matrix(commands)
    _add_boot(commands)
    _add_compare(commands)
    _add_image(commands)
    _add_run(commands)
    _add_replay(commands)
    _add_pack(commands)
    _add_initramfs(commands)
    _add_inspect(commands)
    _add_report(commands)
    _add_history(commands)
    _add_fetch(commands)
    _add_fuzz(commands)
    setup = _command(commands, "setup", "set everything up: QEMU, packages, kernels")
    setup.set_defaults(run=_setup)
    _command(commands, "doctor", "what is installed, what is missing, how to get it").set_defaults(
        run=_doctor
    )
    _command(commands, "test", "bootproof's own tests").set_defaults(run=_test)
    completion = _command(commands, "completion", "print completion for a shell")
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    completion.set_defaults(run=_completion)
    return parser


def _command(commands: argparse._SubParsersAction[_Parser], name: str, summary: str) -> _Parser:
    return commands.add_parser(
        name,
        usage=_USAGES.get(name),
        help=summary,
        description=summary,
        epilog=_EXAMPLES.get(name),
        allow_abbrev=False,
    )


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text) <= _MOST_GUESTS:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {_MOST_GUESTS}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _cpus(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) < 10**8):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of CPUs")
    return int(text)


def _offset(text: str) -> int | None:
    return None if text == "none" else _size(text)


# --- matrix and test ---------------------------------------------------------------------------


def _add_matrix(commands: argparse._SubParsersAction[_Parser]) -> None:
    matrix = _command(commands, "matrix", "boot the matrix of kernels, protocols and offsets")
    matrix.usage = "bootproof matrix [--scenarios FILE | --kernel WHAT] [options]"
    which = matrix.add_argument_group("which cases")
    which.add_argument(
        "--scenarios",
        action="append",
        type=Path,
        default=[],
        metavar="FILE",
        help="your own claims instead of the default matrix (docs/scenarios.md)",
    )
    which.add_argument(
        "--kernel",
        action="append",
        default=[],
        metavar="WHAT",
        help="all that applies to your own kernel instead: bzImage, vmlinux, Image (also packed), a"
        " .deb, .rpm, build directory, URL#sha256=…, or catalogue name; may be repeated",
    )
    which.add_argument("-k", metavar="EXPR", help="only cases whose id matches, as in pytest")
    for option, key in _FILTERS.items():
        which.add_argument(
            option, action="append", default=[], metavar="VALUE", help=f"only this {key}"
        )
    which.add_argument("--lf", action="store_true", help="only what failed the last time")
    which.add_argument("--shard", metavar="N/OF", help="one of several equal parts: 1/4")
    which.add_argument(
        "--costs", type=Path, metavar="FILE", help="results.json that shards are balanced by"
    )
    which.add_argument(
        *("--list", "--dry-run"),
        action="store_true",
        help="only print the cases, what each must end as, and why",
    )
    how = matrix.add_argument_group("how they run")
    how.add_argument("--cmdline", help="with --kernel: kernel command line instead of the default")
    how.add_argument(
        "--initrd", type=Path, metavar="FILE", help="with --kernel: its /init runs after the proof"
    )
    how.add_argument(
        "-n", metavar="N", type=_count, default=2, help="how many guests at once (%(default)s)"
    )
    how.add_argument("-x", action="store_true", help="stop at the first case not as expected")
    how.add_argument(
        "--qemu",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="a QEMU that scenarios may name",
    )
    how.add_argument("--out", type=Path, default=places.output() / "matrix", help="run directories")
    how.add_argument(
        "--keep",
        choices=("all", "failed"),
        default="all",
        help="of which cases guest RAM is kept, 50 MiB each (%(default)s)",
    )
    how.add_argument("--ktap", action="store_true", help="KTAP on stdout, all else on stderr")
    how.add_argument("--quiet", action="store_true", help="only failures and the last line")
    how.add_argument(
        "--baseline", type=Path, metavar="FILE", help="compare with an earlier results.json"
    )
    _add_threshold(how)
    matrix.set_defaults(run=_matrix)


def _add_threshold(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--threshold",
        type=_ratio,
        default=0.005,
        metavar="PERCENT",
        help="change of instruction counts that is still the same (default: 0.5%%)",
    )


def _ratio(text: str) -> float:
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage; write it like 0.5%")
    return percent / 100


_FILTERS: Final = {
    "--arch": "arch",
    "--kernel-name": "kernel",
    "--protocol": "protocol",
    "--offset": "offset",
}


def _matrix(arguments: argparse.Namespace) -> int:
    from harness.suite import matrix, own_kernel

    only = [
        f"{key}={value}"
        for option, key in _FILTERS.items()
        for value in getattr(arguments, option[2:].replace("-", "_"))
    ]
    selection = matrix.Selection(
        scenarios=tuple(path.absolute() for path in arguments.scenarios),
        expression=arguments.k,
        only=tuple(only),
        shard=arguments.shard,
        costs=arguments.costs and arguments.costs.absolute(),
        qemus=tuple(arguments.qemu),
        jobs=arguments.n,
        stop_at_first=arguments.x,
        only_list=arguments.list,
        last_failed=arguments.lf,
        out=arguments.out.absolute(),
        keep=arguments.keep,
        quiet=arguments.quiet,
        ktap=arguments.ktap,
        baseline=arguments.baseline and arguments.baseline.absolute(),
        threshold=arguments.threshold,
        command=_again(arguments),
    )
    if not arguments.kernel:
        if arguments.cmdline is not None or arguments.initrd is not None:
            raise UserError("--cmdline and --initrd are for your own kernel: give --kernel")
        return matrix.run(selection)
    if arguments.scenarios:
        raise UserError("--kernel derives its own cases: leave out --scenarios")
    wish = own_kernel.Wish(tuple(arguments.kernel), arguments.cmdline, arguments.initrd)
    return own_kernel.run(wish, selection)


def _again(arguments: argparse.Namespace) -> str:
    """How the same matrix is started again."""
    import shlex

    from harness.suite.options import MATRIX_COMMAND

    options = [("--scenarios", path) for path in arguments.scenarios]
    options += [("--kernel", what) for what in arguments.kernel]
    options += [("--qemu", word) for word in arguments.qemu]
    options += [("--initrd", arguments.initrd)] if arguments.initrd else []
    options += [("--cmdline", arguments.cmdline)] if arguments.cmdline is not None else []
    return MATRIX_COMMAND + "".join(f" {name} {shlex.quote(str(v))}" for name, v in options)


def _test(_arguments: argparse.Namespace) -> int:
    from harness.commands import selftest

    places.need_clone("test")
    return selftest.run(places.PACKAGES)


# --- boot --------------------------------------------------------------------------------------


def _add_boot(commands: argparse._SubParsersAction[_Parser]) -> None:
    boot = _command(commands, "boot", "boot one kernel, with live output")
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


def _add_request(parser: _Parser) -> None:
    """What is asked of the loader, whatever becomes of the boot image."""
    _add_kernel(parser)
    parser.add_argument(
        "--offset",
        type=_offset,
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
    parser.add_argument("--smp", type=_cpus, default=1, metavar="N", help="CPUs (default: 1)")
    parser.add_argument(
        "--profile",
        choices=("default", "fast"),
        default="default",
        metavar="NAME",
        help="default or fast, a command line without the kernel's self-tests and mitigations",
    )


def _add_kernel(parser: _Parser) -> None:
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
        "--memory", type=_size, default=512 << 20, metavar="SIZE", help="guest RAM (512M)"
    )
    parser.add_argument("--cmdline", help="kernel command line instead of the default")
    parser.add_argument(
        "--initrd", type=Path, metavar="FILE", help="its /init runs after the proof"
    )
    parser.add_argument("--machine", help="QEMU machine type (q35, pc, microvm; virt)")
    parser.add_argument("--cpu", help="QEMU CPU model")


def _boot(arguments: argparse.Namespace) -> int:
    from harness.commands import boot

    return boot.run(_request(arguments), places.output() / "boot")


def _request(arguments: argparse.Namespace) -> boot.Request:
    from harness.commands import boot

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


def _add_compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    compare = _command(commands, "compare", "boot a kernel our way and by QEMU's own -kernel")
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
    from harness.compare import compare

    out = places.output() / "compare"
    return compare.run(_request(arguments), out, as_json=arguments.json)


# --- boot images -------------------------------------------------------------------------------


def _add_image(commands: argparse._SubParsersAction[_Parser]) -> None:
    image = _command(commands, "image", "write a boot image without starting anything")
    _add_request(image)
    image.add_argument("--out", type=Path, metavar="DIR", required=True, help="the boot image")
    image.set_defaults(
        run=_image, placement="pieces", probe=True, realtime=False, twice=False, console=False
    )


def _image(arguments: argparse.Namespace) -> int:
    from harness.commands import runimage

    return runimage.write_image(_request(arguments), arguments.out)


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    run = _command(commands, "run", "start a boot image that any program wrote, and judge it")
    run.add_argument("directory", metavar="DIR", type=Path, help="holds boot.json and ram.img")
    run.add_argument("--machine", help="QEMU machine type (q35, pc, microvm; virt)")
    run.add_argument("--cpu", help="QEMU CPU model")
    run.add_argument(
        "--memory", type=_size, metavar="SIZE", help="checked: the banks must be as large"
    )
    run.add_argument(
        "--smp",
        type=_cpus,
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
        "--budget-seconds", type=_seconds, metavar="N", help="CPU seconds of QEMU (default: 300)"
    )
    run.add_argument("--out", type=Path, metavar="DIR", help="the run directory")
    run.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from harness.commands import runimage

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


def _add_replay(commands: argparse._SubParsersAction[_Parser]) -> None:
    replay = _command(commands, "replay", "play back a recorded run and compare, or debug it")
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
    from harness.record import pack, replay, reverse

    wanted = (arguments.at, arguments.symbols)
    if arguments.gdb is None and wanted != (None, None):
        raise UserError("--at and --symbols go with --gdb")
    with pack.run_directory(arguments.directory) as directory:
        if arguments.gdb is not None:
            return reverse.run(directory, arguments.gdb, *wanted)
        return replay.run(directory)


def _add_pack(commands: argparse._SubParsersAction[_Parser]) -> None:
    pack = _command(commands, "pack", "put a recorded run into one file, to be replayed elsewhere")
    pack.add_argument("directory", metavar="RUN", type=Path, help="the directory of a run")
    pack.add_argument("--out", type=Path, metavar="FILE", help="default: RUN.tar.zst")
    pack.set_defaults(run=_pack)
    unpack = _command(commands, "unpack", "make a run's directory from a packed run")
    unpack.add_argument("file", metavar="FILE", type=Path, help="what `bootproof pack` wrote")
    unpack.add_argument("--out", type=Path, metavar="DIR", required=True, help="must not exist")
    unpack.set_defaults(run=_unpack)


def _pack(arguments: argparse.Namespace) -> int:
    from harness.record import pack

    directory = arguments.directory.absolute()
    out = arguments.out or directory.with_name(f"{directory.name}{pack.SUFFIX}")
    size = pack.pack(arguments.directory, out)
    print(f"packed    {out}: {size:,} bytes; replay it with: bootproof replay {out}")
    return OK


def _unpack(arguments: argparse.Namespace) -> int:
    from harness.record import pack

    pack.unpack(arguments.file, arguments.out)
    print(f"unpacked  {arguments.out}; replay it with: bootproof replay {arguments.out}")
    return OK


def _add_initramfs(commands: argparse._SubParsersAction[_Parser]) -> None:
    initramfs = _command(commands, "initramfs", "write the initramfs whose init proves a boot")
    initramfs.add_argument("file", metavar="FILE", type=Path, help="a cpio archive; not compressed")
    initramfs.add_argument(
        "--arch", choices=("x86_64", "aarch64"), default="x86_64", help="default: %(default)s"
    )
    initramfs.set_defaults(run=_initramfs)


def _initramfs(arguments: argparse.Namespace) -> int:
    from harness.commands import runimage

    return runimage.write_initramfs(arguments.arch, arguments.file)


# --- inspect, fetch, setup, doctor -------------------------------------------------------------


def _add_inspect(commands: argparse._SubParsersAction[_Parser]) -> None:
    inspect = _command(commands, "inspect", "what a kernel file is and how it would load")
    inspect.add_argument("kernel", metavar="KERNEL", help="a file, or a name of the catalogue")
    inspect.add_argument("--offset", type=_offset, metavar="SIZE", help="show what would change")
    inspect.add_argument("--json", action="store_true", help="as JSON")
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from harness.commands import inspect_view
    from harness.inputs import images
    from loader.inspect import inspect

    found = inspect(images.kernel_path(arguments.kernel), offset=arguments.offset)
    if arguments.json:
        print(json.dumps(asdict(found), indent=2, default=str))
    else:
        print(inspect_view.render(found), end="")
    return OK


def _add_report(commands: argparse._SubParsersAction[_Parser]) -> None:
    report = _command(commands, "report", "what changed between two runs; reports of old runs")
    report.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        type=Path,
        help="results.json or its directory: two are compared, of one all reports are written",
    )
    report.add_argument("--merge", action="store_true", help="the runs are shards of one")
    report.add_argument("--out", type=Path, metavar="DIR", help="where reports are written")
    _add_threshold(report)
    report.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> int:
    from harness.commands import reporting

    return reporting.report(
        arguments.runs, arguments.out, merge=arguments.merge, threshold=arguments.threshold
    )


def _add_history(commands: argparse._SubParsersAction[_Parser]) -> None:
    history = _command(commands, "history", "how the cases changed over many runs")
    history.add_argument(
        "directory", metavar="DIR", type=Path, help="holds results.json files at any depth"
    )
    history.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: DIR/history.html)"
    )
    history.set_defaults(run=_history)


def _history(arguments: argparse.Namespace) -> int:
    from harness.commands import reporting

    return reporting.history(arguments.directory, arguments.out)


def _add_fetch(commands: argparse._SubParsersAction[_Parser]) -> None:
    fetch = _command(commands, "fetch", "get kernels of the catalogue into the cache")
    fetch.add_argument("names", metavar="NAME", nargs="*", help="default: the default set")
    fetch.add_argument("--list", action="store_true", help="only show the catalogue")
    fetch.add_argument("--mirror", help="a Debian mirror (default: the one apt uses)")
    group = fetch.add_mutually_exclusive_group()
    group.add_argument("--locked", action="store_true", help="only what the lock file says")
    group.add_argument("--update", action="store_true", help="move the lock file to the newest")
    fetch.set_defaults(run=_fetch)


def _fetch(arguments: argparse.Namespace) -> int:
    from harness.commands import fetching
    from kernels import LockMode

    mode = LockMode.USE
    if arguments.locked:
        mode = LockMode.LOCKED
    elif arguments.update:
        places.need_clone("fetch --update")
        mode = LockMode.UPDATE
    if arguments.list:
        return fetching.show_catalogue(arguments.mirror, mode)
    return fetching.fetch(arguments.names, arguments.mirror, mode)


def _add_fuzz(commands: argparse._SubParsersAction[_Parser]) -> None:
    fuzz = _command(commands, "fuzz", "feed damaged files to every parser")
    fuzz.add_argument("--seconds", type=float, default=60, help="for all targets (%(default)s)")
    fuzz.add_argument("--target", action="append", help="only this one; may be repeated")
    fuzz.add_argument("--replay", type=Path, metavar="FILE", help="run one input of --target")
    fuzz.add_argument("--engine", choices=("atheris", "mutation"), help="default: what is there")
    fuzz.add_argument("--seed", type=int, default=1, help="of the random numbers (%(default)s)")
    fuzz.set_defaults(run=_fuzz)


def _fuzz(arguments: argparse.Namespace) -> int:
    places.need_clone("fuzz")
    from tests.fuzz import run
    from tests.fuzz.targets import TARGETS

    names = arguments.target or list(TARGETS)
    if unknown := [name for name in names if name not in TARGETS]:
        raise UserError(f"no fuzz target is called {unknown[0]}; there are: {', '.join(TARGETS)}")
    engine = arguments.engine or ("atheris" if run.has_atheris() else "mutation")
    if engine == "atheris" and not run.has_atheris():
        raise UserError(run.NO_ATHERIS)
    if arguments.replay:
        if len(names) != 1:
            raise UserError("--replay needs the one --target that the file is for")
        return run.replay(names[0], arguments.replay)
    out = places.output() / "fuzz"
    return run.run(names, arguments.seconds, out, seed=arguments.seed, engine=engine)


def _setup(_arguments: argparse.Namespace) -> int:
    from harness.commands import fetching

    return fetching.fetch_default_set()


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(_parser(), shell=arguments.shell))
    return OK


def _doctor(_arguments: argparse.Namespace) -> int:
    from harness.commands import doctor

    report = doctor.examine()
    doctor.render(report)
    return OK if report.complete else USAGE


if __name__ == "__main__":
    sys.exit(main())
