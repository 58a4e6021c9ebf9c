"""The gdb stub of somebody else's guest: its registers and its RAM, read and left as they are.

QEMU's, Firecracker's, Cloud Hypervisor's and crosvm's speak the same protocol, and each shows
another part of a CPU. The other side is not trusted: every answer has a deadline and a size, and
what is no number is refused. Judges nothing.

Source: "GDB Remote Serial Protocol" (Overview: run-length encoding and escapes; packets ?, c, g, m,
qSupported, qXfer:features:read, qRcmd, Z, z, D) and "Target Descriptions" in the GDB manual.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Final, Self

from bootproof.harness.errors import UserError
from bootproof.harness.qemu.gdbstub import GdbError, GdbStub, framed

ANSWER_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 10.0
_PORT: Final = re.compile(r"[0-9]{1,5}", re.ASCII)
_CHUNKS: Final = (2048, 512, 64)  # bytes in one packet: as many as the stub takes
_AT_ONCE: Final = 32  # packets that are asked for before an answer is waited for
_MOST_DESCRIPTION: Final = 1 << 20
_MOST_INCLUDES: Final = 32
_INCLUDE: Final = re.compile(r'<xi:include\s+href="([\w.-]{1,64})"')
_REGISTER: Final = re.compile(r"<reg\s([^>]{1,400})/?>")
_ATTRIBUTE: Final = re.compile(r'(\w+)="([^"]{0,64})"')
_REPEATED, _ESCAPE = 0x2A, 0x7D


class RemoteStub(GdbStub):
    """A connection to a stub that listens. Use as a context manager: it closes, no more."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, self._pause)
        sock.setblocking(True)
        self._deadline = time.monotonic() + ANSWER_SECONDS
        self._features = b""

    @classmethod
    def connect(cls, where: str, *, remote: bool = False) -> Self:
        """A connection to HOST:PORT, :PORT or unix:PATH; another host only if `remote`.

        Raises UserError.
        """
        if where.startswith("unix:"):
            return cls(_unix(where.removeprefix("unix:")))
        host, _, port = where.rpartition(":")
        if not _PORT.fullmatch(port) or not 0 < int(port) < 1 << 16:
            raise UserError(f"--gdb {where!r}: neither HOST:PORT nor unix:PATH")
        return cls(_tcp(host.strip("[]") or "127.0.0.1", int(port), remote=remote))

    def _pause(self, _seconds: float) -> None:
        """Waits for more of an answer. Raises GdbError when there was none for too long."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise GdbError("the stub does not answer; is another debugger connected to it?")
        self._incoming.within(min(left, 1.0))

    def _ask(self, packet: str) -> bytes:
        self._deadline = time.monotonic() + ANSWER_SECONDS
        answer = super()._ask(packet)
        while answer[:1] == b"O" and answer != b"OK":  # what a program prints
            answer = self._next()
        return _expanded(answer)

    def _next(self) -> bytes:
        while not self._packet_comes():
            self._pause(0)
        return self._take_packet()

    def halt(self) -> None:
        """Takes the guest, which stands still as long as the connection lasts. Raises GdbError."""
        self._features = self._ask("qSupported:swbreak+;hwbreak+;xmlRegisters=i386")
        answer = self._ask("?")
        if answer[:1] not in b"TS" or not answer:
            raise GdbError(f"the stub says that there is no guest to look at: {answer[:40]!r}")

    def run_on_to(self, address: int, seconds: float) -> None:
        """Lets the guest run to guest-virtual `address`; no breakpoint stays. Raises GdbError."""
        kind = next((kind for kind in "10" if self._ask(f"Z{kind},{address:x},1") == b"OK"), None)
        if kind is None:
            raise GdbError(f"the stub sets no breakpoint at {address:#x}")
        self._deadline = time.monotonic() + seconds
        try:
            self._send("c")
            answer = self._next()
            while answer[:1] == b"O":
                answer = self._next()
        except GdbError:
            self._say(b"\x03")  # stop where it is: it must not run into a breakpoint of ours
            self._deadline = time.monotonic() + ANSWER_SECONDS
            self._next()
            self._ask(f"z{kind},{address:x},1")
            raise GdbError(
                f"the guest did not come to {address:#x} within {seconds:.0f} s"
            ) from None
        self._ask(f"z{kind},{address:x},1")
        if answer[:1] not in b"TS":
            raise GdbError(f"the guest ended before it came to {address:#x}: {answer[:40]!r}")

    def let_go(self) -> None:
        """Lets the guest run on. Raises GdbError."""
        self._command("D")

    # --- registers -------------------------------------------------------------------------------

    def registers(self, least: Sequence[tuple[str, int]]) -> dict[str, int]:
        """The registers by their names; `least` are those that every stub shows, with their bits.

        Raises GdbError.
        """
        raw = self._bytes(self._ask("g"), "registers")
        described = self._described()
        if sum(bits for _, bits in described) != 8 * len(raw):
            described = []  # QEMU 7.2 describes three registers more than it shows
        found, at = {}, 0
        for name, bits in described or least:
            size = bits // 8
            if at + size <= len(raw) and size <= 8:
                found[name] = int.from_bytes(raw[at : at + size], "little")
            at += size
        lacking = [name for name, _ in least if name not in found]
        if lacking:
            raise GdbError(f"the stub shows {len(raw)} bytes of registers, without {lacking[0]}")
        return found

    def _described(self) -> list[tuple[str, int]]:
        """Names and bits of all registers, in their order; none without a description."""
        if b"qXfer:features:read+" not in self._features:
            return []
        target = self._text("target.xml")
        texts = [self._text(name) for name in _INCLUDE.findall(target)[:_MOST_INCLUDES]] or [target]
        numbered: dict[int, tuple[str, int]] = {}
        following = 0
        for row in (row for text in texts for row in _REGISTER.findall(text)):
            told = dict(_ATTRIBUTE.findall(row))
            try:
                number, bits = int(told.get("regnum", following)), int(told["bitsize"])
                numbered[number] = told["name"], bits
            except (KeyError, ValueError):
                raise GdbError("the stub describes its registers in no way that is known") from None
            following = number + 1
        return [numbered[number] for number in sorted(numbered)]

    def _text(self, name: str) -> str:
        text = b""
        while len(text) < _MOST_DESCRIPTION:
            answer = self._ask(f"qXfer:features:read:{name}:{len(text):x},400")
            text += answer[1:]
            if answer[:1] != b"m" or len(answer) == 1:
                break
        return text.decode("ascii", "replace")

    def monitor(self, command: str) -> str | None:
        """What the program behind the stub answers to a command; None when it takes none."""
        self._deadline = time.monotonic() + ANSWER_SECONDS
        self._send(f"qRcmd,{command.encode().hex()}")
        answer, text = _expanded(self._next()), b""
        while answer[:1] == b"O" and answer != b"OK" and len(text) < _MOST_DESCRIPTION:
            text += self._bytes(answer[1:], "an answer")
            answer = _expanded(self._next())
        return text.decode("ascii", "replace") if answer == b"OK" else None

    # --- memory ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def by_physical_address(self) -> Iterator[None]:
        """Has memory read by guest-physical addresses meanwhile, where the stub can do that."""
        switched = self._ask("Qqemu.PhyMemMode:1") == b"OK"
        yield
        if switched:
            self._command("Qqemu.PhyMemMode:0")

    def memory(self, address: int, size: int) -> Iterator[bytes]:
        """The memory from `address` on, in pieces. Raises GdbError where it cannot be read."""
        end = address + size
        chunk = self._chunk(address, size)
        starts = range(address, end, chunk)
        for first in range(0, len(starts), _AT_ONCE):
            part = starts[first : first + _AT_ONCE]
            self._deadline = time.monotonic() + ANSWER_SECONDS
            asked = [f"m{start:x},{min(chunk, end - start):x}" for start in part]
            self._say(b"".join(map(framed, asked)))
            pieces = []
            for start in part:
                wanted = min(chunk, end - start)
                data = self._bytes(_expanded(self._next()), f"the memory at {start:#x}")
                if len(data) != wanted:
                    raise GdbError(
                        f"the stub gives {len(data)} of {wanted} bytes at {start:#x}; the guest may"
                        " not map them"
                    )
                pieces.append(data)
            yield b"".join(pieces)

    def _chunk(self, address: int, size: int) -> int:
        for chunk in _CHUNKS:
            asked = min(chunk, size)
            answer = self._ask(f"m{address:x},{asked:x}")
            if answer[:1] != b"E" and len(answer) == 2 * asked:
                return chunk
        raise GdbError(f"the stub cannot read the memory at {address:#x}")

    @staticmethod
    def _bytes(answer: bytes, what: str) -> bytes:
        try:
            return bytes.fromhex(answer.decode("ascii"))
        except ValueError:
            raise GdbError(f"the stub answers {answer[:40]!r} for {what}") from None


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(_CONNECT_SECONDS)
        sock.connect(path)
    except (OSError, ValueError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--gdb unix:{path}: cannot be connected to: {reason}") from error
    return sock


def _tcp(host: str, port: int, *, remote: bool) -> socket.socket:
    try:
        places = {str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        if not remote and not all(ipaddress.ip_address(place).is_loopback for place in places):
            raise UserError(
                f"--gdb {host}:{port}: is another host; say --remote if it may be trusted with what"
                " is written here, or forward its port to this one"
            )
        sock = socket.create_connection((host, port), _CONNECT_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer takes 40 ms
        return sock
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--gdb {host}:{port}: cannot be connected to: {reason}") from error


def _expanded(packet: bytes) -> bytes:
    """The content of a packet: what is repeated or escaped in it, as it is meant."""
    if _REPEATED not in packet and _ESCAPE not in packet:
        return packet
    out, at = bytearray(), 0
    while at < len(packet):
        byte = packet[at]
        if byte == _ESCAPE and at + 1 < len(packet):
            out.append(packet[at + 1] ^ 0x20)
            at += 1
        elif byte == _REPEATED and out and at + 1 < len(packet):
            out += bytes([out[-1]]) * max(0, packet[at + 1] - 29)
            at += 1
        else:
            out.append(byte)
        at += 1
    return bytes(out)
