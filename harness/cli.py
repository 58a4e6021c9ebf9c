"""The `bootproof` command: arguments in, exit code out; bootproof.harness.commands does the rest.

Its exit codes are in bootproof.harness.exitcode, those of a bisection in bootproof.harness.marks; a
reader of standard output that goes away changes none.
"""

from __future__ import annotations

from bootproof.harness.host import early  # isort: split

import argparse
import atexit
import errno
import gc
import keyword
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from bootproof.harness import VERSION, commands, marks
from bootproof.harness.commands import Command
from bootproof.harness.commands.parser import Parser
from bootproof.harness.errors import UsageError, UserError, lack_of
from bootproof.harness.exitcode import CANNOT_TELL, INTERRUPTED, OK, TABLE, USAGE
from bootproof.harness.host import signals
from bootproof.harness.host.stdout import StandardOutput, say
from bootproof.loader.ondemand import OnDemand

# In the order of `bootproof --help`.
_NAMES: Final = (
    *("matrix", "boot", "bisect", "compare", "image", "import", "check", "run", "replay"),
    *("profile", "pack", "unpack", "initramfs", "inspect", "report", "history", "fetch", "cache"),
    *("fuzz", "setup", "doctor", "test", "completion"),
)
_LONG: Final = 80  # characters of what is too long to be shown
# No mistake of ours, wherever it comes: rights, a full or damaged disk, a limit.
_OF_THE_SYSTEM: Final = {
    *(errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE),
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE),
}
_LOOKED_FOR_GARBAGE: Final = 10_000  # things made, not 700: that takes 4 % of what a boot waits for


def _module(name: str) -> str:
    """The module of a command; a word of Python's own has a stroke behind it."""
    return f"{name}_" if keyword.iskeyword(name) else name


COMMANDS: Final[Mapping[str, Command]] = OnDemand(
    commands.__name__, {name: f"{_module(name)}.COMMAND" for name in _NAMES}
)
early.over()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Mistakes of the user's side are one line on stderr and exit code 2.

    Raises KeyboardInterrupt where it is a part of another command, which is to end with it.
    """
    part = signals.obeyed()
    try:
        code = _main(argv)
    except KeyboardInterrupt:  # before the command began, or when it had ended
        code = signals.exit_code(INTERRUPTED)
    if part:
        signals.tell_again()
    return code


def _main(argv: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # this process is ours, and makes modules first of all: no garbage
        gc.set_threshold(_LOOKED_FOR_GARBAGE)
    handlers = signals.obey_signals()
    try:
        return written(lambda: _run(words), words)
    finally:
        signals.obey_no_more(handlers)


def written(work: Callable[[], int], words: Sequence[str]) -> int:
    """The exit code of `work`, or that of output which it could not write."""
    output = StandardOutput()
    output.install()
    try:
        code = work()
    finally:
        output.finish()
    if output.error is not None:
        say(f"standard output: {output.error.strerror}")
        return code or marks.code_of_environment(words, USAGE)
    return code


def _run(words: Sequence[str]) -> int:
    try:
        arguments = understood(words)
        if isinstance(arguments, int):
            return arguments
        code = COMMANDS[arguments.command].run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        return _code_of_error(error, words)
    if code == INTERRUPTED:
        code = signals.exit_code(INTERRUPTED)
        if code == INTERRUPTED:
            say("interrupted")
    return code


def understood(words: Sequence[str]) -> argparse.Namespace | int:
    """What the words ask for; the exit code of what was a mistake, or --help, and has been told."""
    try:
        arguments, rest = whole_parser(words, words[:1]).parse_known_args(words)
        if rest:
            arguments.parser.refuse(rest)
        return arguments
    except SystemExit as end:
        return marks.code_of_mistake(words, USAGE) if end.code == USAGE else OK


def _code_of_error(error: Exception, words: Sequence[str]) -> int:
    """Tells what is the user's to mend; anything else is a mistake of ours, with its traceback,
    and says nothing of a guest.
    """
    lines = _lines_of(error)
    if not lines:
        import traceback

        traceback.print_exception(error)
        return marks.code_of_mistake(words, CANNOT_TELL)
    say(*lines)
    if isinstance(error, UsageError):
        return marks.code_of_mistake(words, USAGE)
    return marks.code_of_environment(words, USAGE)


def _lines_of(error: Exception) -> Sequence[str]:
    """What is said of a mistake or a lack on the user's side; nothing of one of ours."""
    from bootproof.kernels.errors import FetchError
    from bootproof.loader.errors import LoaderError

    if isinstance(error, FetchError):
        return error.lines
    if lack := lack_of(error):
        return (lack,)
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        return (_refused_by_system(error),)
    if isinstance(error, FileNotFoundError) and not _somewhere():
        return ("the current directory was removed; go to one that is there",)
    return (str(error),) if isinstance(error, UserError | LoaderError) else ()


def _refused_by_system(error: OSError) -> str:
    """What the system refuses anywhere: what is told of it where more is known says more."""
    import tempfile

    from bootproof.kernels import scratch

    told = error.strerror or str(error)
    if error.filename is None:
        return told
    named = scratch.subject(error, Path(tempfile.gettempdir()))
    if error.errno == errno.ENAMETOOLONG:
        named = f"{named[:_LONG]}…"
    return f"{named}: {told}"


def _somewhere() -> bool:
    """Whether there is a current directory."""
    try:
        return Path.cwd().is_absolute()
    except FileNotFoundError:
        return False


def whole_parser(
    complete: Collection[str] = tuple(COMMANDS), first: Collection[str] = ()
) -> Parser:
    """The parser of the command line; only commands that are named in `complete` have options.

    `first` is the word that it is for: where that is a command, no other is asked for.
    """
    parser = Parser(
        prog="bootproof",
        description="Proves that a kernel image boots: every offset, every boot protocol.",
        epilog="`bootproof --no-setup COMMAND` never installs anything."
        f" Exit codes (docs/ci.md): {', '.join(f'{code} {said}' for code, said in TABLE.items())}.",
    )
    parser.add_argument("--version", action="version", version=f"bootproof {VERSION}")
    parser.set_defaults(whole_parser=whole_parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name in [name for name in COMMANDS if name in first] or COMMANDS:
        command = COMMANDS[name]
        added = commands.add_parser(
            name,
            usage=command.usage and f"bootproof {name} {command.usage}",
            help=command.summary,
            description=command.summary,
            epilog=f"example: bootproof {command.example}",
            allow_abbrev=False,
        )
        added.set_defaults(parser=added)
        if name in complete:
            command.add_options(added)
    return parser


def program() -> NoReturn:
    """`main` as a whole process."""
    codes: list[int] = []
    if not atexit._ncallbacks():  # who was there before us (coverage is one) is to be called
        atexit.register(_leave, codes)
    codes.append(main())
    sys.exit(codes[0])


def _leave(codes: Sequence[int]) -> None:
    """Ends the process without taking Python apart, which takes a tenth of a refusal's time.

    It was the first to be registered, and is called last: all threads have ended, and what others
    do at the end is done.
    """
    if codes:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    program()
