"""What came after a guest's proof: how the program that it ran then ended, or its kernel. Pure."""

from __future__ import annotations

from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.guest import kernellog
from bootproof.harness.guest.complaints import Kind


@dataclass(frozen=True, slots=True)
class Aftermath:
    """An end that has to be told; `failure` is None for that of a program with exit code 0."""

    sentence: str
    failure: Kind | None


_NOT_STARTED: Final = (126, 127)  # POSIX.1-2017, Shell Command Language 2.8.2


def not_started(transcript: bytes) -> bool:
    """Whether init ended as a shell does that cannot execute what it is to become."""
    end = kernellog.init_end(transcript, None)
    return end is not None and end.status >> 8 in _NOT_STARTED


def after(program: str | None, said: bytes) -> Aftermath | None:
    """What `said`, the console after the proof, tells of an end; None when all went in order.

    `program` is the guest's, None where our own init ends the machine.
    """
    said = kernellog.without_echoes(said)
    end = kernellog.init_end(said, 0)
    if end is not None and not end.status and kernellog.orderly_end(said):
        return None
    if end is not None:
        sentence = f"{program or 'init'} {end.how}"
        if not end.status:
            return Aftermath(sentence, None)
        return Aftermath(f"{sentence}{end.last_words} ({end.reason})", Kind.INIT)
    panic, oops = kernellog.panic(said), kernellog.oops(said)
    if panic is not None:
        cause = f"; {oops}" if oops else ""
        return Aftermath(f"kernel panic: {panic}{cause}", Kind.PANIC)
    if oops is not None:
        return Aftermath(str(oops), Kind.OOPS)
    return None
