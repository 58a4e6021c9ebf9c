"""`bootproof profile`: where the instructions of a recorded boot went, or what grew between two."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.harness import places
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import named, path_of_qemu
from bootproof.harness.errors import UsageError, UserError
from bootproof.harness.exitcode import OK
from bootproof.printable import one_line

if TYPE_CHECKING:
    from bootproof.harness.case import Case

_SAMPLES: Final = 1000


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    parser.add_argument(
        "what",
        nargs="+",
        metavar="RUN|KERNEL",
        help="a run's directory or pack, or a kernel, which is booted first; of two, the"
        " difference: what grew from the first to the second",
    )
    parser.add_argument(
        "--samples",
        type=_samples,
        default=_SAMPLES,
        metavar="N",
        help="how often to look where the guest is (default: %(default)s)",
    )
    parser.add_argument(
        "--symbols", type=named, metavar="VMLINUX", help="a kernel with symbols, for its names"
    )
    parser.add_argument(
        "--out",
        type=named,
        default=places.output() / "profile",
        metavar="DIR",
        help="where profile.html and profile.folded go",
    )
    case_options.add_brief_options(parser, "for a KERNEL", "boot")


def _samples(text: str) -> int:
    from bootproof.harness.record.sampling import MOST

    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:20]) <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST}")
    return int(text)


def _run(arguments: argparse.Namespace) -> int:
    from bootproof.harness.host import files
    from bootproof.harness.record.profile import names_in, profile
    from bootproof.harness.report import profile_page, profile_text
    from bootproof.harness.report.files import OURS_PAGE
    from bootproof.harness.results.results import write_text

    if len(arguments.what) > 2:
        raise UsageError("profile: of one run, or the difference of two")
    out = arguments.out.absolute()
    files.refuse_foreign(html := out / "profile.html", OURS_PAGE)
    if not html.exists() and (folded := out / "profile.folded").exists():
        raise files.foreign(folded)  # stacks look alike, whoever folded them
    files.refuse_unwritable(out)
    _check_options(arguments)
    given = None if arguments.symbols is None else names_in(arguments.symbols)
    with ExitStack() as stack:
        recorded = [
            stack.enter_context(_looked_at(what, arguments, number))
            for number, what in enumerate(arguments.what)
        ]
        first, *rest = (
            profile(run(), arguments.samples, one_line(what), given, _binary(arguments))
            for run, what in zip(recorded, arguments.what, strict=True)
        )
    if rest:
        page = profile_page.render_difference(first, rest[0])
        print(profile_text.difference(first, rest[0]), end="")
    else:
        page = profile_page.render(first)
        print(profile_text.summary(first), end="")
        write_text(out / "profile.folded", profile_text.folded(first), bool)
    write_text(html, page, OURS_PAGE)
    print(f"page      {one_line(str(html))}")
    return OK


def _check_options(arguments: argparse.Namespace) -> None:
    """Raises UserError for what a kernel would be booted with, where there is none."""
    from bootproof.harness.cases import schema
    from bootproof.harness.commands import case_options

    asked = [name for name in case_options.words(arguments, "boot") if name != "qemu"]
    if asked and all(_is_run(Path(what)) for what in arguments.what):
        option = schema.option(asked[0])
        raise UserError(f"{option}: for a kernel, which is booted first; a run is as it was")


def _is_run(path: Path) -> bool:
    from bootproof.harness.record import pack
    from bootproof.loader import bootimage

    packed = path.name.endswith(pack.SUFFIX) and path.is_file()
    return packed or (path / bootimage.DESCRIPTION).exists()


def _binary(arguments: argparse.Namespace) -> str | None:
    """The QEMU of --qemu, which is one for the runs and for what is booted."""
    return path_of_qemu(getattr(arguments, "qemu", None))


@contextmanager
def _looked_at(
    what: str, arguments: argparse.Namespace, number: int
) -> Iterator[Callable[[], Path]]:
    """What gives the directory of a run: of one that there is, or of a kernel, which it boots for
    that. Whatever can be refused before that is.
    """
    from bootproof.harness.cases import qemus
    from bootproof.harness.cases.from_kernel import case_of
    from bootproof.harness.commands import case_options
    from bootproof.harness.record import pack, playback

    path = Path(what)
    if _is_run(path):
        with pack.run_directory(path) as directory:
            playback.open_recorded(directory, _binary(arguments))
            yield lambda: directory
        return
    asked, paths = qemus.of_words(case_options.words(arguments, "boot"))
    case = case_of(what, asked, "boot")
    run = Path(arguments.out / f"run-{number + 1}").absolute()
    yield lambda: _booted(case, run, paths)


def _booted(case: Case, directory: Path, qemus: Mapping[str, str]) -> Path:
    from bootproof.harness.prepare import Options
    from bootproof.harness.prove import prove

    proven = prove(case, directory, Options(qemus=qemus))
    print(f"verdict   {proven.verdict.value}: {proven.reason}", flush=True)
    if proven.outcome is None or proven.outcome.not_recorded is not None:
        why = proven.outcome.not_recorded if proven.outcome else proven.reason
        raise UserError(f"{case.kernel}: there is no record to profile: {why}")
    return directory


COMMAND: Final = Command(
    "show where the instructions of a boot went, or what grew",
    "profile build/boot/x86_64-vmlinux-elf-auto-none",
    _run,
    _add_options,
    "[options] RUN|KERNEL [RUN|KERNEL]",
)
