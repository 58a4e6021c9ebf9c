"""The `bootproof` command: arguments in, exit code out; bootproof.harness.commands does the rest.

Exit codes: 0 as expected, 1 a case is not as expected, 2 usage or environment, 130 interrupted
(143 by SIGTERM, 129 by SIGHUP). A reader of standard output that goes away changes none of them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from bootproof.harness import VERSION, commands
from bootproof.harness.commands import INTERRUPTED, USAGE, Command
from bootproof.harness.commands.parser import Parser
from bootproof.harness.errors import UserError
from bootproof.harness.host import signals
from bootproof.harness.host.stdout import StandardOutput
from bootproof.loader.errors import one_line

# In the order of `bootproof --help`.
_NAMES: Final = (
    *("matrix", "boot", "compare", "image", "run", "replay", "pack", "unpack", "initramfs"),
    *("inspect", "report", "history", "fetch", "fuzz", "setup", "doctor", "test", "completion"),
)
COMMANDS: Final[Mapping[str, Command]] = {
    name: importlib.import_module(f"{commands.__name__}.{name}").COMMAND for name in _NAMES
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Mistakes of the user's side are one line on stderr and exit code 2."""
    handlers = signals.obey_signals()
    output = StandardOutput()
    output.install()
    try:
        code = _run(argv)
    finally:
        output.finish()
        signals.obey_no_more(handlers)
    if output.error is not None:
        _complain(f"standard output: {output.error.strerror}")
        return code or USAGE
    return code


def _run(argv: Sequence[str] | None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    arguments = whole_parser(argv).parse_args(argv)
    try:
        code = COMMANDS[arguments.command].run(arguments)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if not _is_users(error):
            raise
        _complain(str(error))
        return USAGE
    if code == INTERRUPTED:
        code = signals.exit_code(INTERRUPTED)
        if code == INTERRUPTED:
            _complain("interrupted")
    return code


def _complain(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"bootproof: {one_line(text)}", file=sys.stderr, flush=True)


def _is_users(error: Exception) -> bool:
    from bootproof.kernels.errors import FetchError
    from bootproof.loader.errors import LoaderError

    return isinstance(error, UserError | FetchError | LoaderError)


def whole_parser(complete: Collection[str] = tuple(COMMANDS)) -> Parser:
    """The parser of the command line; only commands that are named in `complete` have options."""
    parser = Parser(
        prog="bootproof",
        description="Proves that a kernel image boots: every offset, every boot protocol.",
        epilog="`bootproof --no-setup COMMAND` never installs anything."
        " Exit codes: 0 as expected, 1 not, 2 usage or environment, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"bootproof {VERSION}")
    parser.set_defaults(whole_parser=whole_parser)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
    for name, command in COMMANDS.items():
        added = commands.add_parser(
            name,
            usage=command.usage and f"bootproof {name} {command.usage}",
            help=command.summary,
            description=command.summary,
            epilog=f"example: bootproof {command.example}",
            allow_abbrev=False,
        )
        if name in complete:
            command.add_options(added)
    return parser


if __name__ == "__main__":
    sys.exit(main())
