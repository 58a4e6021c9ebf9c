"""What a kernel complains about and goes on: warnings, lockups, stalls, an initramfs it cannot use.

Pure: a console transcript, or the log buffer's records, in; a short list out. Only whole messages
of the kernel count, where one can begin, and what a kernel that stamps its messages says without a
stamp is somebody else's. Every pattern is bounded, so that the cost grows with the text only.

Sources: __warn() of kernel/panic.c, kernel/watchdog.c, kernel/rcu/tree_stall.h, kernel/hung_task.c,
kernel/workqueue.c, lib/ubsan.c, mm/kasan/report.c, init/initramfs.c, init/main.c.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from itertools import islice
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.guest import kernellog
from bootproof.harness.text import printable


class Kind(StrEnum):
    """What a complaint is about. The values stand in JSON files."""

    PANIC = "panic"
    OOPS = "oops"
    LOCKUP = "lockup"
    STALL = "stall"
    HUNG_TASK = "hung-task"
    BUG = "bug"
    WARNING = "warning"
    INITRAMFS = "initramfs"
    INIT = "init"
    MEMORY = "out-of-memory"


@dataclass(frozen=True, slots=True)
class Complaint:
    """A complaint, and how often it came: a repetition differs in numbers only.

    `text` is the kernel's own line, the last one for a lockup, which says how long it has lasted;
    `frame` the function that it was in, where the lines behind it tell.
    """

    kind: Kind
    text: str
    frame: str | None = None
    count: int = 1
    after_proof: bool = False

    @property
    def words(self) -> str:
        return f"{self.text}, in {self.frame}" if self.frame else self.text

    def __str__(self) -> str:
        return f"{self.words}{f' ({self.count} times)' if self.count > 1 else ''}"

    def to_json(self) -> Mapping[str, object]:
        return {
            "kind": self.kind.value,
            "text": self.words,
            "count": self.count,
            "after_proof": self.after_proof,
        }


MOST: Final = 50
"""Complaints that are told apart; what else comes is counted with the last."""

_MOST_LOOKED_AT: Final = 10_000  # one that says more than that is not told apart from any other
_LONGEST: Final = 300
_FRAME_WITHIN: Final = 2500  # bytes from a lockup's line to the registers behind it
_REST: Final = rb"[^\r\n]{0,%d}" % _LONGEST
_MESSAGES: Final = (
    (Kind.PANIC, rb"Kernel panic - not syncing: "),
    (Kind.OOPS, kernellog.DIED),
    (Kind.LOCKUP, rb"(?:watchdog: |NMI watchdog: )?BUG: soft lockup "),
    (Kind.LOCKUP, rb"(?:watchdog: |NMI watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP "),
    (Kind.LOCKUP, rb"BUG: workqueue lockup "),
    (Kind.STALL, rb"(?:rcu: )?INFO: \w{1,40} (?:self-)?detected (?:expedited )?stalls? on "),
    (Kind.HUNG_TASK, rb"INFO: task [^\r\n]{1,60} blocked (?:in I/O wait )?for more than "),
    (Kind.BUG, rb"(?:BUG: |kernel BUG at |UBSAN: |KASAN: |Unable to handle kernel )"),
    (Kind.BUG, rb"INFO: (?:trying to register non-static key|possible recursive locking)"),
    (Kind.WARNING, rb"WARNING: "),
    (Kind.INITRAMFS, rb"Initramfs unpacking failed: "),
    (Kind.INITRAMFS, rb"rootfs image is not initramfs "),
    (Kind.INITRAMFS, rb"(?:INITRD: |initrd )[^\r\n]{0,120}? disabling (?:initrd|it)"),
    (Kind.INIT, rb"Failed to execute /"),
    (Kind.INIT, rb"Starting init: [^\r\n]{0,120}? exists but couldn't execute it"),
    (Kind.MEMORY, rb"(?:Out of memory|Memory cgroup out of memory): Killed process "),
)
# One of them is in each of those: to look for words first costs next to nothing.
_WORDS: Final = (
    *(b"anic - not", b" [#", b"BUG", b"LOCKUP", b"lockup", b"INFO: ", b"UBSAN: ", b"KASAN: "),
    *(b"Unable to handle", b"WARNING: ", b"Initramfs unpacking", b"is not initramfs"),
    *(b"disabling i", b"Failed to execute", b"Starting init: ", b"Killed process"),
)


@functools.cache
def _pattern(begin: bytes) -> re.Pattern[bytes]:
    """Of all messages, behind `begin`. Most kernels have no complaint, and no use for one."""
    kinds = b"|".join(
        rb"(?P<k%d>%s)" % (number, start) for number, (_, start) in enumerate(_MESSAGES)
    )
    return re.compile(begin + rb"(?P<text>(?:" + kinds + rb")" + _REST + rb")", re.MULTILINE)


_BEHIND_STAMP: Final = rb"(?P<stamp>" + kernellog.STAMP + rb")"
_AT_LINE_START: Final = rb"^(?P<stamp>)"
# Of a program that ended with exit code 0 after the proof: the kernel has nothing else to say then.
_ENDED_WELL: Final = b"Attempted to kill init! exitcode=0x00000000"
_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|\d+")


def find(text: bytes, proof_end: int | None = None) -> tuple[Complaint, ...]:
    """The complaints in a text, in the order in which they first came.

    `proof_end` is where the proof of the guest ends in it; None where there is none. A message that
    comes twice with the same time stamp is one: a program of the guest says the log again.
    """
    text = kernellog.without_echoes(text)
    found: dict[tuple[Kind, str, bool], Complaint] = {}
    seen: set[tuple[bytes, bytes]] = set()
    for match in islice(_matches(text), _MOST_LOOKED_AT):
        said = (match["stamp"], match["text"])
        if match["stamp"] and said in seen:
            continue
        seen.add(said)
        after = proof_end is not None and match.start() >= proof_end
        if after and _ENDED_WELL in match["text"]:
            continue
        _add(found, _complaint(text, match, after))
    return tuple(found.values())


def merged(heard: tuple[Complaint, ...], logged: tuple[Complaint, ...]) -> tuple[Complaint, ...]:
    """What the console shows, and what only the log buffer has."""
    known = {_key(item) for item in heard}
    return (*heard, *(item for item in logged if _key(item) not in known))


def _matches(text: bytes) -> Iterator[re.Match[bytes]]:
    if not any(word in text for word in _WORDS):
        return iter(())
    return _pattern(_BEHIND_STAMP if kernellog.stamped(text) else _AT_LINE_START).finditer(text)


def _add(found: dict[tuple[Kind, str, bool], Complaint], new: Complaint) -> None:
    key = _key(new)
    known = found.get(key)
    if known is None and len(found) < MOST:
        found[key] = new
        return
    if known is None:
        key, known = next(reversed(found.items()))
        new = known
    latest = new if new.kind in LASTING else known
    found[key] = replace(latest, count=known.count + 1, frame=known.frame or new.frame)


LASTING: Final = (Kind.LOCKUP, Kind.STALL, Kind.HUNG_TASK)
"""What the kernel says again and again while it lasts."""


def _key(complaint: Complaint) -> tuple[Kind, str, bool]:
    return complaint.kind, _NUMBERS.sub("#", complaint.text), complaint.after_proof


def _complaint(text: bytes, match: re.Match[bytes], after_proof: bool) -> Complaint:
    number = next(n for n in range(len(_MESSAGES)) if match[f"k{n}"] is not None)
    kind = _MESSAGES[number][0]
    frame = None
    if kind in (Kind.LOCKUP, Kind.STALL, Kind.OOPS):
        end = match.end()
        frame = kernellog.faulting_function(text, end, end + _FRAME_WITHIN)
    said = printable(match["text"].rstrip())
    return Complaint(kind, said, frame, after_proof=after_proof)
