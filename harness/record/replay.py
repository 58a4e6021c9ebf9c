"""`bootproof replay`: plays a record back and holds it against the run that was recorded."""

from __future__ import annotations

from pathlib import Path

from bootproof.dataclass import dataclass
from bootproof.harness.record import playback
from bootproof.harness.record.playback import Recorded
from bootproof.harness.text import first_difference
from bootproof.printable import safe


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a playback did: console bytes, executed instructions."""

    transcript: bytes
    instructions: int


def run(directory: Path, binary: str | None = None) -> int:
    """Plays back and prints; 0 when everything was the same, else 1. Raises UserError."""
    recorded = playback.open_recorded(directory, binary)
    machine = recorded.machine
    print(f"record    {safe(str(directory))}")
    print(f"machine   {machine.qemu}, {machine.board}, {machine.cpu}, {machine.mode}")
    print(f"recorded  {_extent(recorded.transcript, recorded.instructions)}", flush=True)
    replayed = play(recorded)
    print(f"replayed  {_extent(replayed.transcript, replayed.instructions)}")
    differs = difference(recorded, replayed)
    print(f"result    {differs or 'identical: every byte of the transcript and the instructions'}")
    return 1 if differs else 0


def play(recorded: Recorded) -> Replayed:
    """Plays a record back to its end. Raises UserError."""
    with playback.started(recorded) as running:
        running.run_to_the_end(recorded)
        return Replayed(running.transcript(), running.instructions)


def difference(recorded: Recorded, replayed: Replayed) -> str | None:
    """What was not the same, in one line: the first differing line of the transcript, the count."""
    line = first_difference(recorded.transcript, replayed.transcript)
    if line is not None:
        number, was, now = line
        return f"different: line {number} of the transcript was {was}, now it is {now}"
    if replayed.instructions != recorded.instructions:
        return f"different: {recorded.instructions:,} instructions were recorded"
    return None


def _extent(transcript: bytes, instructions: int) -> str:
    return f"{len(transcript):,} bytes of transcript, {instructions:,} guest instructions"
