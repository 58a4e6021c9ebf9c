"""Mistakes and lacks of the user's side: one line, exit code 2, never a traceback."""

from __future__ import annotations


class UserError(Exception):
    """What is wrong, where, and what to do, in one line."""


class UsageError(UserError):
    """The words of a command line or a file of ours are wrong, whatever kernel they are about."""


def lack_of(error: BaseException) -> str | None:
    """What this process may not have more of, in one line; None for what says nothing of that."""
    if isinstance(error, MemoryError):
        return "this process has no memory left"
    import threading

    # Known by where it comes from: Python has no class for it, and its words are not promised.
    at = error.__traceback__ if isinstance(error, RuntimeError) else None
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    if at is not None and at.tb_frame.f_code is threading.Thread.start.__code__:
        return "there may be no more threads here (ulimit -u, pids.max)"
    return None
