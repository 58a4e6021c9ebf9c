"""`bootproof import`: a boot image made of what another program has prepared."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named, seconds
from bootproof.harness.exitcode import OK

if TYPE_CHECKING:
    from bootproof.harness.imports import Imported
    from bootproof.loader.address import Range


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.loader.arch.table import IMPORTING
    from bootproof.loader.protocols.table import PROTOCOLS

    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        type=named,
        help="an ELF core of a whole machine, or a file with nothing but RAM",
    )
    parser.add_argument("--out", type=named, metavar="IMAGE", required=True, help="the boot image")
    live = parser.add_argument_group("instead of SOURCE, a guest that stands still")
    live.add_argument("--gdb", metavar="WHERE", help="its gdb stub: HOST:PORT or unix:PATH")
    live.add_argument(
        "--break",
        dest="break_at",
        metavar="ADDRESS",
        type=_read(_number),
        help="let it run to this address first",
    )
    live.add_argument(
        "--break-seconds", metavar="N", type=seconds, help="for at most (default: 60)"
    )
    live.add_argument("--resume", action="store_true", help="let it run on afterwards")
    live.add_argument("--remote", action="store_true", help="HOST may be another one than this")
    known = parser.add_argument_group("what SOURCE or stub do not tell")
    known.add_argument(
        "--ram", metavar="SIZE|START-END,…", type=_read(_ranges), help="where its RAM is"
    )
    known.add_argument(
        "--registers",
        metavar="FILE",
        type=named,
        help="registers as in boot.json, some or all: they are taken to be seen",
    )
    known.add_argument("--protocol", choices=(*PROTOCOLS, "none"), help="the boot protocol")
    known.add_argument("--entry", metavar="ADDRESS", type=_read(_number), help="the first pc")
    known.add_argument("--arch", choices=tuple(IMPORTING), help="the architecture")


def _read(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of an option's value whose ValueError is told in its own words."""

    def value(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return value


def _number(text: str) -> int:
    from bootproof.loader.address import parse_size

    return parse_size(text)


def _ranges(text: str) -> tuple[Range, ...]:
    """A size, which begins where RAM does; or ranges, ends included, as messages show them."""
    from bootproof.loader.address import Range, parse_size

    found = []
    for part in text.split(","):
        start, dash, end = part.partition("-")
        first, last = (parse_size(start), parse_size(end)) if dash else (0, parse_size(part) - 1)
        if last < first:
            raise ValueError(f"{part!r}: ends before it begins")
        found.append(Range.between(first, last + 1))
    for area, following in pairwise(sorted(found)):
        if area.overlaps(following):
            raise ValueError(f"{area} and {following} overlap")
    return tuple(found)


def _run(arguments: argparse.Namespace) -> int:
    """Writes it, and says what was seen and what was not."""
    from bootproof.harness.imports import Request, import_image

    words = {name: getattr(arguments, name) for name in Request.__dataclass_fields__}
    imported = import_image(Request(**words | {"out": arguments.out.absolute()}))
    _print(imported, arguments.out)
    return OK


def _print(imported: Imported, out: Path) -> None:
    from bootproof.harness.report import rules
    from bootproof.loader.address import format_size
    from bootproof.printable import one_line

    image = imported.image
    cpus = f", {imported.cpus} CPUs" if imported.cpus > 1 else ""
    if len(image.cpus) < imported.cpus:
        cpus += ", of which the first is seen whole"
    print(f"source    {one_line(str(imported.source))}: {image.arch}{cpus}")
    print(f"protocol  {image.protocol}, entered at {image.entry:#x} in {image.cpus[0].mode}")
    for area in image.ram:
        print(f"memory    {area!s:<24} {format_size(area.size)}")
    for area in imported.left_out:
        print(f"left out  {area!s:<24} no RAM of the kernel's")
    rules.print_marks(image)
    print(f"image     {one_line(str(out))}")
    print(f"run it    {places.COMMAND} run {shlex.quote(one_line(str(out)))}")


COMMAND: Final = Command(
    "make a boot image of a VMM's core dump, gdb stub or RAM file",
    "import vm.core --out build/image",
    _run,
    _add_options,
    "[options] --out IMAGE [SOURCE | --gdb WHERE]",
)
