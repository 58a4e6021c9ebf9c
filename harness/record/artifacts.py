"""What is kept of a session in its run directory once QEMU is dead and the directory ours again."""

from __future__ import annotations

from dataclasses import replace

from bootproof.harness.host.files import write_whole
from bootproof.harness.host.rundir import DMESG, RUN_LOG, TRANSCRIPT
from bootproof.harness.observation import Observation
from bootproof.harness.qemu.session import Session
from bootproof.harness.record import recording
from bootproof.harness.record.recording import Logged
from bootproof.harness.text import printable


def keep(session: Session, seen: Observation, log: Logged) -> Observation:
    """Writes transcript and log buffer; what was seen, with what QEMU's log says of it.

    Raises UserError.
    """
    directory = session.directory
    write_whole(directory / TRANSCRIPT, session.timed_transcript().encode())
    if seen.log:
        write_whole(directory / DMESG, b"".join(map(_shown, seen.log.splitlines())))
    if not session.machine.recorded:
        return seen
    has_room = session.has_room
    seen = recording.counted(seen, log)
    lost = recording.console_lost(seen, log, directory / RUN_LOG, room_was_set_aside=has_room)
    return replace(seen, console_lost=lost or seen.console_lost)


def _shown(line: bytes) -> bytes:
    return f"{printable(line)}\n".encode()
