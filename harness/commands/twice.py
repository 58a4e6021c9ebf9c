"""Whether two runs of one case were the same boot: transcript and guest instructions. Pure.

With several CPUs only the transcript is asked for: when one of them ends the machine, the others
run on until QEMU has stopped them, and those instructions are counted too.
"""

from __future__ import annotations

from bootproof.harness.run import Outcome
from bootproof.harness.text import printable


def difference(first: Outcome, second: Outcome, cpus: int) -> str | None:
    """The first thing that is not the same in both runs, in one sentence; None when all is."""
    transcripts = first.observation.transcript, second.observation.transcript
    found = first_line_that_differs(*transcripts)
    if found is not None:
        return found
    if cpus > 1:
        return None
    counts = first.costs.instructions, second.costs.instructions
    if counts[0] != counts[1] or counts[0] is None:
        text = [f"{count:,}" if count is not None else "an unknown number of" for count in counts]
        return f"{text[0]} guest instructions the first time, {text[1]} the second time"
    return None


def first_line_that_differs(first: bytes, second: bytes) -> str | None:
    """Number and both texts of the first transcript line that is not the same; None if all are."""
    if first == second:
        return None
    lines, others = first.split(b"\n"), second.split(b"\n")
    same = (left == right for left, right in zip(lines, others, strict=False))
    at = next((n for n, equal in enumerate(same) if not equal), min(len(lines), len(others)))
    left, right = (_line(side, at) for side in (lines, others))
    return f"transcript line {at + 1} is {left} the first time, {right} the second time"


def _line(lines: list[bytes], at: int) -> str:
    return repr(printable(lines[at])) if at < len(lines) else "missing"
