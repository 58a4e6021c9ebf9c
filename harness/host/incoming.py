"""Waiting until there is something to read."""

from __future__ import annotations

import select
import socket


class Incoming:
    """A socket, or another descriptor, that is waited for: many guests have many, and select(2)
    knows 1024 of them.
    """

    def __init__(self, source: socket.socket | int) -> None:
        self._waiting = select.poll()
        self._waiting.register(source, select.POLLIN)

    def within(self, seconds: float) -> bool:
        """Whether there is something to read, or its end, which may take so many seconds."""
        return bool(self._waiting.poll(seconds * 1000))
