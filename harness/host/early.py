"""Ctrl-C while we are being imported: the process ends at once, without a traceback.

To be imported before anything else, and imports nothing that is not in the interpreter: the module
`signal` itself takes some milliseconds. Nothing has been begun by then that would have to be ended.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # in C, and in no stub

_before = _signal.getsignal(_signal.SIGINT)
_ours = _before is _signal.default_int_handler


def _set(handler: object) -> None:
    try:  # noqa: SIM105 # contextlib is not imported yet
        _signal.signal(_signal.SIGINT, handler)
    except ValueError:
        pass  # imported by a thread: signals are the main one's


if _ours:
    _set(_signal.SIG_DFL)


def over() -> None:
    """Puts back what was there: all is imported."""
    if _ours and _signal.getsignal(_signal.SIGINT) == _signal.SIG_DFL:
        _set(_before)
