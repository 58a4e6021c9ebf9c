"""QMP: QEMU's events and state, small and synchronous.

Owns one qemu.qmp client on an inherited socket and the event loop it needs; the loop only runs
while a caller waits here, so there is no thread. Judges nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import socket
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar

from qemu.qmp import ConnectError, EventListener, Message, QMPClient, QMPError

from bootproof.dataclass import dataclass
from bootproof.harness.host import signals

P = ParamSpec("P")
T = TypeVar("T")

# A starved host may take long to answer; only a QEMU that hangs takes longer than this.
_ANSWER_SECONDS = 300.0
LOOK_SECONDS = 0.5  # between looks at whether to go on waiting

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


class _Client(QMPClient):
    """One that keeps no log: every message was put into words for it, whether it was on or not."""

    def _cb_outbound(self, msg: Message) -> Message:
        return msg

    def _cb_inbound(self, msg: Message) -> Message:
        return msg


class Monitor:
    """A connection to one QEMU. Use as a context manager."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._incoming = select.poll()
        self._incoming.register(sock, select.POLLIN)
        self._loop = asyncio.new_event_loop()
        self._client = _Client("bootproof")
        self._client.logger.disabled = True
        self._listener = EventListener()
        self._client.register_listener(self._listener)
        self._hopeless: Callable[[bool], bool] = lambda _waiting: False
        self._received: list[Event] = []
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
            self._run(self._client.connect, _limit(seconds), self._sock)
        except (ConnectError, OSError, TimeoutError) as error:
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
            return self._run(self._client.execute, _limit(seconds), command, arguments)
        except (QMPError, OSError, TimeoutError) as error:
            raise MonitorError(f"QMP {command}: {error}") from error

    def wait(self, seconds: float) -> None:
        """Lets `seconds` pass while events are received. Raises MonitorError when given up."""
        if self._hopeless(False):
            raise MonitorError("QMP: QEMU is not waited for any longer")
        self._run(asyncio.sleep, None, seconds)

    def listen(self, seconds: float) -> bool:
        """Waits for QEMU to say something by itself, `seconds` at most: whether there are events.

        Raises MonitorError when given up.
        """
        if self._hopeless(False):
            raise MonitorError("QMP: QEMU is not waited for any longer")
        if not self._received and self._is_spoken_to(seconds):
            with signals.held():
                self._loop.run_until_complete(self._listen(seconds))
        return bool(self._received)

    def _is_spoken_to(self, seconds: float) -> bool:
        """Whether there is something for the loop, which is not run for nothing: that takes many
        times as long as a look at the socket.
        """
        return not self._listener.empty() or bool(self._incoming.poll(seconds * 1000))

    async def _listen(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                self._note(await self._listener.get())

    def events(self) -> list[Event]:
        """The events received since the last call."""
        if not self._listener.empty():
            self._run(self._receive, None)
        events, self._received = self._received, []
        return events

    async def _receive(self) -> None:
        while not self._listener.empty():
            self._note(await self._listener.get())

    def _note(self, message: Message) -> None:
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

    def _run(
        self,
        step: Callable[P, Coroutine[Any, Any, T]],
        timeout: float | None,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Lets the loop run until `step` is done, or the user interrupts it."""

        async def limited() -> T:
            self._hopeless(False)
            task = asyncio.ensure_future(step(*args, **kwargs))
            left = timeout
            while left is None or left > 0:
                slice_ = LOOK_SECONDS if left is None else min(left, LOOK_SECONDS)
                done, _ = await asyncio.wait({task}, timeout=slice_)
                await self._receive()
                if done or signals.waits() or self._hopeless(True):
                    break
                left = None if left is None else left - slice_
            if task.done():
                return task.result()
            task.cancel()
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
            raise TimeoutError("no answer")

        with signals.held():  # a loop that is interrupted where it stops counts as running
            return self._loop.run_until_complete(limited())

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and the event loop."""
        with signals.held():
            self._close()

    def _close(self) -> None:
        # What an interruption has left unfinished is nobody's news.
        self._loop.set_exception_handler(lambda _loop, _context: None)
        # A client that was never connected, or whose QEMU died, has nothing left to say goodbye to.
        with contextlib.suppress(QMPError, OSError, TimeoutError, EOFError):
            self._run(self._client.disconnect, 2)
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:  # after an interruption one of them may never come to its end
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=1))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        self._sock.close()


def _limit(seconds: float | None) -> float:
    return _ANSWER_SECONDS if seconds is None else seconds
