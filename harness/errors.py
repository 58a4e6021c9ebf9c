"""Mistakes and lacks of the user's side: one line, exit code 2, never a traceback."""

from __future__ import annotations


class UserError(Exception):
    """What is wrong, where, and what to do, in one line."""


class UsageError(UserError):
    """The words of a command line or a file of ours are wrong, whatever kernel they are about."""
