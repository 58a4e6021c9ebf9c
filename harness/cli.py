"""The `bootproof` command: arguments in, exit code out. bootproof.harness.arguments has the
sub-commands.

Exit codes: 0 as expected, 1 a case is not as expected, 2 usage or environment, 130 interrupted
(143 by SIGTERM, 129 by SIGHUP). A reader of standard output that goes away changes none of them.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from typing import Final

from bootproof.harness import VERSION
from bootproof.harness.arguments import boot, matrix, reports, runs, tools
from bootproof.harness.arguments.words import INTERRUPTED, USAGE, Parser
from bootproof.harness.errors import UserError
from bootproof.harness.host import signals
from bootproof.harness.host.stdout import StandardOutput
from bootproof.loader.errors import one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Mistakes of the user's side are one line on stderr and exit code 2."""
    handlers = signals.obey_signals()
    output = StandardOutput()
    output.install()
    try:
        code = _carry_out(_parser().parse_args(argv))
    finally:
        output.finish()
        signals.obey_no_more(handlers)
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


def _parser() -> Parser:
    parser = Parser(
        prog="bootproof",
        description="Proves that a kernel image boots: every offset, every boot protocol.",
        epilog="`bootproof --no-setup COMMAND` never installs anything."
        " Exit codes: 0 as expected, 1 not, 2 usage or environment, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"bootproof {VERSION}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    tools.add_own(commands, parser)
    return parser


_COMMANDS: Final = (  # in the order of `bootproof --help`
    *(matrix.add_matrix, boot.add_boot, boot.add_compare, boot.add_image),
    *(runs.add_run, runs.add_replay, runs.add_pack),
    *(tools.add_initramfs, tools.add_inspect),
    *(reports.add_report, reports.add_history, tools.add_fetch, tools.add_fuzz),
)

if __name__ == "__main__":
    sys.exit(main())
