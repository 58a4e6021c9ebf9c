"""Ctrl-C while we are being imported: the process ends at once, without a traceback.

To be imported before anything else. Nothing has been begun by then that somebody would have to end.
"""

from __future__ import annotations

import contextlib
import signal

_before = signal.getsignal(signal.SIGINT)
_ours = _before is signal.default_int_handler


def _set(handler: signal._HANDLER) -> None:
    with contextlib.suppress(ValueError):  # imported by a thread: signals are the main one's
        signal.signal(signal.SIGINT, handler)


if _ours:
    _set(signal.SIG_DFL)


def over() -> None:
    """Puts back what was there: all is imported."""
    if _ours and signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        _set(_before)
