"""`bootproof inspect`, `initramfs`, `fetch`, and what looks after bootproof itself."""

from __future__ import annotations

import argparse
import functools
from pathlib import Path

from bootproof.harness import places
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.arguments import words
from bootproof.harness.errors import UserError


def add_inspect(commands: words.Commands) -> None:
    inspect = words.command(
        commands,
        "inspect",
        "what a kernel file is and how it would load",
        example="bootproof inspect vmlinux --offset 16M",
    )
    inspect.add_argument("kernel", metavar="KERNEL", help="a file, or a name of the catalogue")
    inspect.add_argument(
        "--offset", type=words.offset, metavar="SIZE", help="show what would change"
    )
    inspect.add_argument("--json", action="store_true", help="as JSON")
    inspect.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from bootproof.harness.inputs import images
    from bootproof.harness.report import inspection
    from bootproof.loader.inspect import inspect

    found = inspect(images.kernel_path(arguments.kernel), offset=arguments.offset)
    if arguments.json:
        print(json.dumps(asdict(found), indent=2, default=str))
    else:
        print(inspection.render(found), end="")
    return words.OK


def add_initramfs(commands: words.Commands) -> None:
    initramfs = words.command(
        commands,
        "initramfs",
        "write the initramfs whose init proves a boot",
        example="bootproof initramfs build/proof.cpio",
    )
    initramfs.add_argument("file", metavar="FILE", type=Path, help="a cpio archive; not compressed")
    initramfs.add_argument(
        "--arch", choices=tuple(ARCHES), default=next(iter(ARCHES)), help="default: %(default)s"
    )
    initramfs.set_defaults(run=_initramfs)


def _initramfs(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import run as runimage

    return runimage.write_initramfs(arguments.arch, arguments.file)


def add_fetch(commands: words.Commands) -> None:
    fetch = words.command(
        commands,
        "fetch",
        "get kernels of the catalogue into the cache",
        example="bootproof fetch 6.1-amd64 --mirror http://mirror.example/debian",
    )
    fetch.add_argument("names", metavar="NAME", nargs="*", help="default: the default set")
    fetch.add_argument("--list", action="store_true", help="only show the catalogue")
    fetch.add_argument("--mirror", help="a Debian mirror (default: the one apt uses)")
    group = fetch.add_mutually_exclusive_group()
    group.add_argument("--locked", action="store_true", help="only what the lock file says")
    group.add_argument("--update", action="store_true", help="move the lock file to the newest")
    fetch.set_defaults(run=_fetch)


def _fetch(arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import fetching
    from bootproof.kernels import LockMode

    mode = LockMode.USE
    if arguments.locked:
        mode = LockMode.LOCKED
    elif arguments.update:
        places.need_clone("fetch --update")
        mode = LockMode.UPDATE
    if arguments.list:
        return fetching.show_catalogue(arguments.mirror, mode)
    return fetching.fetch(arguments.names, arguments.mirror, mode)


def add_fuzz(commands: words.Commands) -> None:
    fuzz = words.command(
        commands,
        "fuzz",
        "feed damaged files to every parser",
        example="bootproof fuzz --target elf --seconds 600",
    )
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


def add_own(commands: words.Commands, parser: words.Parser) -> None:
    """What looks after bootproof; `parser` is the one that has them all."""
    setup = words.command(
        commands, "setup", "set everything up: QEMU, packages, kernels", example="bootproof setup"
    )
    setup.set_defaults(run=_setup)
    doctor = words.command(
        commands,
        "doctor",
        "what is installed, what is missing, how to get it",
        example="bootproof doctor",
    )
    doctor.set_defaults(run=_doctor)
    test = words.command(commands, "test", "bootproof's own tests", example="bootproof test")
    test.set_defaults(run=_test)
    completion = words.command(
        commands,
        "completion",
        "print completion for a shell",
        example='eval "$(bootproof completion bash)"',
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell")
    completion.set_defaults(run=functools.partial(_completion, parser))


def _test(_arguments: argparse.Namespace) -> int:
    from bootproof.harness.suite import selftest

    places.need_clone("test")
    return selftest.run(places.PACKAGES)


def _setup(_arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import fetching

    return fetching.fetch_default_set()


def _doctor(_arguments: argparse.Namespace) -> int:
    from bootproof.harness.commands import doctor

    report = doctor.examine()
    doctor.render(report)
    return words.OK if report.complete else words.USAGE


def _completion(parser: words.Parser, arguments: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(parser, shell=arguments.shell))
    return words.OK
