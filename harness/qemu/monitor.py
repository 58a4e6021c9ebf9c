"""QMP: QEMU's events and state, small and synchronous.

Owns an inherited socket; it is only read while a caller waits here, so there is no thread. Judges
nothing.

Source: "QEMU Machine Protocol Specification" (docs/interop/qmp-spec.rst of QEMU): a greeting, then
messages of one line each, answers in order and events in between.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.host.incoming import Incoming

# A starved host may take long to answer; only a QEMU that hangs takes longer than this.
_ANSWER_SECONDS = 300.0
LOOK_SECONDS = 0.5  # between looks at whether to go on waiting
_CHUNK: Final = 64 << 10  # bytes
_MOST: Final = 16 << 20  # bytes without an end of a message

# While it keeps a log, QEMU answers nobody before the guest comes to its next timer; a guest that
# has set none (early, or stuck) would run for 2^31 ns of guest time at a stretch. Timers of QEMU's
# own on the host's clock bound that too, and no guest can see them: here, announcing the network
# cards that the machine has not got, every 100 ms, as often as QEMU lets one ask for.
_WAKING = {"initial": 100, "max": 100, "rounds": 1000, "step": 0}
_WAKING_SECONDS = 50.0  # half of what was asked for


class MonitorError(Exception):
    """QEMU closed the monitor or refused a command; it has usually ended, with a word on stderr."""


@dataclass(frozen=True, slots=True)
class Event:
    """A QMP event."""

    name: str
    data: Mapping[str, Any]


class Monitor:
    """A connection to one QEMU. Use as a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._incoming = Incoming(sock)
        self._text = bytearray()
        self._received: list[Event] = []
        # The number of the last command, and QEMU's answer; its greeting answers none.
        self._asked: int | None = None
        self._answered: Mapping[str, Any] | None = None
        # Why nothing more will be heard of QEMU.
        self._broken: str | None = None
        self._hopeless: Callable[[bool], bool] = lambda _waiting: False
        self.connected = False
        # Whether QEMU has said that it is going to end, and that the guest is not the reason.
        self.told_to_end = False
        self._wakes = False
        self._waking_since = 0.0

    def give_up_when(self, hopeless: Callable[[bool], bool]) -> None:
        """Asks `hopeless` while it waits; when that says so, waiting ends with a MonitorError.

        It is told whether an answer is waited for, and not for the first time.
        """
        self._hopeless = hopeless

    def connect(self, seconds: float | None = None) -> None:
        """Waits for QEMU's greeting, as `execute` does for an answer. Raises MonitorError."""
        try:
            greeting = self._answer(_limit(seconds))
            if not isinstance(greeting.get("QMP"), dict):
                raise MonitorError("something else was said")
            self._ask("qmp_capabilities", None, _limit(seconds))
        except MonitorError as error:
            raise MonitorError(f"QMP: no greeting from QEMU: {error}") from error
        self.connected = True

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        *,
        seconds: float | None = None,
    ) -> Any:
        """Runs a command and gives its return value. Raises MonitorError.

        `seconds` of wall time are waited for the answer instead of as long as any host may need.
        """
        try:
            return self._ask(command, arguments, _limit(seconds))
        except MonitorError as error:
            raise MonitorError(f"QMP {command}: {error}") from error

    def _ask(self, command: str, arguments: Mapping[str, object] | None, seconds: float) -> Any:
        self._asked, self._answered = (self._asked or 0) + 1, None
        request = {"execute": command, "id": self._asked, "arguments": arguments or {}}
        try:
            self._sock.sendall(json.dumps(request).encode())
        except OSError as error:
            raise MonitorError(str(error.strerror)) from error
        answer = self._answer(seconds)
        if "return" not in answer:
            why = answer.get("error")
            raise MonitorError(str(why.get("desc")) if isinstance(why, dict) else "no answer")
        return answer["return"]

    def _answer(self, seconds: float) -> Mapping[str, Any]:
        """The answer to the last command."""
        until = time.monotonic() + seconds
        self._hopeless(False)
        while self._answered is None:
            if self._broken is not None:
                raise MonitorError(self._broken)
            left = max(0.0, until - time.monotonic())
            self._listen(min(left, LOOK_SECONDS))
            if self._answered is None and (not left or self._hopeless(True)):
                raise MonitorError("no answer")
        answer, self._answered = self._answered, None
        return answer

    def wait(self, seconds: float) -> None:
        """Lets `seconds` pass while events are received. Raises MonitorError when given up."""
        until = time.monotonic() + seconds
        self._go_on()
        while (left := until - time.monotonic()) > 0:
            self._listen(left)

    def listen(self, seconds: float) -> bool:
        """Waits for QEMU to say something by itself, `seconds` at most: whether there are events.

        Raises MonitorError when given up.
        """
        self._go_on()
        if not self._received:
            self._listen(seconds)
        return bool(self._received)

    def _go_on(self) -> None:
        if self._hopeless(False):
            raise MonitorError("QMP: QEMU is not waited for any longer")

    def events(self) -> list[Event]:
        """The events received since the last call."""
        if self._broken is None:
            self._listen(0)
        events, self._received = self._received, []
        return events

    def _listen(self, seconds: float) -> None:
        """Takes what QEMU says next, within `seconds`."""
        if self._broken is not None:
            time.sleep(seconds)
        elif self._incoming.within(seconds):
            try:
                self._take(self._sock.recv(_CHUNK))
            except (OSError, ValueError, RecursionError) as error:
                self._broken = str(error)

    def _take(self, data: bytes) -> None:
        """Raises ValueError for the end, and for what is no QMP."""
        if not data:
            raise ValueError("the connection was closed")
        self._text += data
        if len(self._text) > _MOST:
            raise ValueError(f"{len(self._text)} bytes that are no message")
        if b"\n" in data:
            *lines, self._text = self._text.split(b"\n")
            for line in lines:
                self._note(json.loads(line.decode()))

    def _note(self, message: object) -> None:
        if not isinstance(message, dict):
            raise ValueError("a message that is no object")
        if "event" not in message:
            if message.get("id") == self._asked:  # not of one that nobody waits for any longer
                self._answered = message
            return
        data = message.get("data")
        event = Event(str(message["event"]), data if isinstance(data, dict) else {})
        self._received.append(event)
        if event.name == "SHUTDOWN" and not event.data.get("guest"):
            self.told_to_end = True

    def instructions(self) -> int | None:
        """Executed guest instructions, or None without icount (and before the first one)."""
        if self._wakes and time.monotonic() - self._waking_since > _WAKING_SECONDS:
            self.keep_waking()
        return int(self.execute("query-replay").get("icount", 0)) or None

    def keep_waking(self) -> None:
        """Has QEMU look at its monitor every 100 ms, for the next 100 s and as long as it is asked
        for `instructions`. Raises MonitorError.

        The timers are on the host's clock. They end the stretch of instructions that a CPU runs,
        which nothing can tell when it is the only one; of several the next one's turn comes then,
        and the guest takes another course each time.
        """
        self._wakes, self._waking_since = True, time.monotonic()
        self.execute("announce-self", _WAKING)

    def registers(self) -> str:
        """What the human monitor says about the CPUs' registers."""
        return self._human("info registers -a")

    def bytes_at(self, address: int, size: int) -> bytes:
        """Bytes at a guest-virtual address of CPU 0; fewer, or none, where nothing is mapped."""
        dump = self._human(f"x /{size}xb {address:#x}")
        rows = re.findall(r"^[0-9a-f]+:((?: 0x[0-9a-f]{2})+)$", dump, re.MULTILINE)
        return bytes(int(byte, 16) for row in rows for byte in row.split())

    def instructions_at(self, address: int, count: int) -> tuple[str, ...]:
        """Disassembled code at a guest-virtual address of CPU 0; empty where nothing is mapped."""
        lines = self._human(f"x /{count}i {address:#x}").splitlines()
        return tuple(" ".join(line.split()) for line in lines if line.startswith("0x"))

    def _human(self, command: str) -> str:
        said = self.execute("human-monitor-command", {"command-line": command})
        return str(said).replace("\r", "")

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._sock.close()


def _limit(seconds: float | None) -> float:
    return _ANSWER_SECONDS if seconds is None else seconds
