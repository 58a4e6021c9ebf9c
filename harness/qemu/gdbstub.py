"""QEMU's gdbstub: a breakpoint at the entry, and system registers.

Owns the remote protocol on an inherited socket. All other registers and memory are read by other
means, since the protocol shows neither segment caches nor sparse RAM.

Source: "GDB Remote Serial Protocol" (packets, Z1, c, bs, bc, D) in the GDB manual.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Collection, Iterator
from typing import Self

from bootproof.harness.host.incoming import Incoming

_BREAKPOINT_SIZE = 1
_PIECE = 0x800  # of a feature description
_MOST = 1 << 20  # bytes that nobody has asked for
_ANSWER_SECONDS = 0.01  # for an answer, before anything else is looked at
_INCLUDE = re.compile(r'<xi:include href="([^"]+)"')
_REGISTER = re.compile(r'<reg name="(\w+)" bitsize="\d+"[^>]*?(?: regnum="(\d+)"[^>]*)?/>')


class GdbError(Exception):
    """The stub did not take a command, or closed the connection."""


class GdbStub:
    """A connection to one QEMU; `wait(seconds)` is called while nothing comes."""

    def __init__(self, sock: socket.socket, wait: Callable[[float], None]) -> None:
        self._sock = sock
        self._incoming = Incoming(sock)
        self._wait = wait
        self._received = b""
        self._numbers: dict[str, int] = {}

    def run_to(self, address: int, given_up: Callable[[], bool]) -> bool:
        """Lets the guest run to its first arrival at guest-virtual `address`; then it is stopped.

        False when `given_up()` said so before: the guest runs on then. Raises GdbError.
        """
        self._command(f"Z1,{address:x},{_BREAKPOINT_SIZE}")
        self._send("c")
        while not self._packet_comes():
            if given_up():
                return False
            self._wait(0.002)
        self._take_packet()
        self._command(f"z1,{address:x},{_BREAKPOINT_SIZE}")
        return True

    def break_at(self, address: int) -> None:
        """Sets a breakpoint at guest-virtual `address`. Raises GdbError."""
        self._command(f"Z1,{address:x},{_BREAKPOINT_SIZE}")

    def step_back(self) -> None:
        """Undoes one instruction; only while a record is played back. Raises GdbError."""
        self._reverse("bs")

    def continue_back(self) -> None:
        """Goes back to the last arrival at a breakpoint, else to the first snapshot.

        Only while a record is played back. Raises GdbError.
        """
        self._reverse("bc")

    def _reverse(self, packet: str) -> None:
        answer = self._ask(packet)
        if not answer.startswith(b"T05"):  # SIGTRAP
            raise GdbError(f"gdbstub: {packet} was answered with {answer!r}")

    def detach(self) -> None:
        """Lets go of the guest, which QEMU continues by itself. Raises GdbError."""
        self._command("D")

    def system_registers(self, names: Collection[str]) -> dict[str, int]:
        """The values of those of the named system registers that the stub knows of."""
        if names and not self._numbers:
            self._numbers.update(self._numbered())
        known = self._numbers
        return {name: self._register(known[name]) for name in names if name in known}

    def _numbered(self) -> Iterator[tuple[str, int]]:
        """Every register of the target description with its number: one that has none follows the
        one before (GDB manual, "Target Description Format").
        """
        number = 0
        for feature in _INCLUDE.findall(self._feature("target.xml")):
            for name, own in _REGISTER.findall(self._feature(feature)):
                number = int(own) if own else number
                yield name, number
                number += 1

    def _feature(self, name: str) -> str:
        text = b""
        while True:
            answer = self._ask(f"qXfer:features:read:{name}:{len(text):x},{_PIECE:x}")
            text += answer[1:]
            if answer[:1] != b"m":  # "l" is the last piece, anything else is an error
                return text.decode("ascii", "replace")

    def _register(self, number: int) -> int:
        answer = self._ask(f"p{number:x}")
        try:
            return int.from_bytes(bytes.fromhex(answer.decode("ascii")), "little")
        except ValueError as error:
            raise GdbError(f"gdbstub: register {number} was answered with {answer!r}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def _ask(self, packet: str) -> bytes:
        self._send(packet)
        while not self._packet_comes():
            self._wait(0.001)
        return self._take_packet()

    def _command(self, packet: str) -> None:
        answer = self._ask(packet)
        if answer != b"OK":
            raise GdbError(
                f"gdbstub: {packet} was answered with {answer.decode('ascii', 'replace')}"
            )

    def _send(self, packet: str) -> None:
        self._say(framed(packet))

    def _say(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise GdbError(f"gdbstub: {error.strerror}") from error

    def _packet_comes(self) -> bool:
        """Whether there is a whole packet; without one, waits for more, but not for long."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not self._has_packet():  # QEMU says first, and apart, that it has heard
            if not self._incoming.within(max(0.0, deadline - time.monotonic())):
                return False
            self._receive()
        return True

    def _receive(self) -> None:
        try:
            data = self._sock.recv(1 << 16)
        except OSError as error:
            raise GdbError(f"gdbstub: {error.strerror}") from error
        if not data:
            raise GdbError("gdbstub: the connection was closed")
        self._received += data
        if len(self._received) > _MOST:
            raise GdbError(f"gdbstub: sent {len(self._received)} bytes that are no answer")

    def _has_packet(self) -> bool:
        end = self._received.find(b"#")
        return end >= 0 and len(self._received) >= end + 3

    def _take_packet(self) -> bytes:
        packet, _, rest = self._received.partition(b"#")
        self._received = rest[2:]
        self._say(b"+")
        return packet.rpartition(b"$")[2]


def framed(packet: str) -> bytes:
    """A packet with its checksum."""
    data = packet.encode()
    return b"$%s#%02x" % (data, sum(data) & 0xFF)
