"""What the guest said about itself: the lines its init printed, and whether they are genuine.

The last line is a SHA-256 over the nonce and every line before it, so that neither the kernel's
echo of its command line nor a transcript of another boot can pass for a proof. Judges nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bootproof.loader.address import Range

_LINE = re.compile(rb"^bootproof: (\w+) ([^\r\n]*)\r?\n", re.MULTILINE)
_PROOF = "proof"
PROOF = re.compile(rb"^bootproof: proof [0-9a-f]{64}\r?\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class GuestEvidence:
    """What init printed."""

    text: str  # what the proof is over
    proof: str | None  # None when init did not get to its last line

    @property
    def by_key(self) -> Mapping[str, Sequence[str]]:
        """Every value that init printed under each key, in order."""
        values: dict[str, list[str]] = {}
        # Not splitlines(), which also ends a line at \x0b, \x85 and others: a value may hold them.
        for line in filter(None, self.text.split("\n")):
            key, _, value = line.partition(" ")
            values.setdefault(key, []).append(value)
        return values

    def values(self, key: str) -> tuple[str, ...]:
        """Every value init printed under `key`, in order."""
        return tuple(self.by_key.get(key, ()))

    def value(self, key: str) -> str | None:
        return next(iter(self.values(key)), None)

    def number(self, key: str, base: int = 10) -> int | None:
        """The first number of a value, or None when there is none."""
        try:
            return int((self.value(key) or "").split()[0], base)
        except (ValueError, IndexError):
            return None

    @property
    def ram(self) -> tuple[Range, ...]:
        """The System RAM of /proc/iomem, guest-physical."""
        return tuple(bank for bank in map(_iomem_range, self.values("ram")) if bank)

    @property
    def code(self) -> Range | None:
        """The kernel code of /proc/iomem, guest-physical."""
        return _iomem_range(self.value("code") or "")

    def proves(self, nonce: str) -> bool:
        """Whether the proof is the right one for this nonce and this evidence."""
        return self.proof == proof_for(nonce, self.text)

    def to_json(self) -> Mapping[str, object]:
        return {**self.by_key, _PROOF: self.proof}


def proof_for(nonce: str, text: str) -> str:
    """The digest init prints: SHA-256 over the nonce, a newline, and its evidence lines."""
    return hashlib.sha256(f"{nonce}\n{text}".encode()).hexdigest()


def nonce_for(case_id: str, kernel_digest: str) -> str:
    """The nonce of a case: the same in every run, another one for another case or kernel."""
    return hashlib.sha256(f"{case_id}\n{kernel_digest}".encode()).hexdigest()[:32]


def proof_start(transcript: bytes) -> int:
    """Where the first proof line begins; the transcript's end when there is none."""
    line = re.search(rb"^bootproof: proof ", transcript, re.MULTILINE)
    return line.start() if line else len(transcript)


def parse(transcript: bytes) -> GuestEvidence:
    """Reads the evidence out of a console transcript, up to the first proof line."""
    text, proof = [], None
    for match in _LINE.finditer(transcript):
        key, value = (group.decode("utf-8", "backslashreplace") for group in match.groups())
        if key == _PROOF:
            proof = value
            break
        text.append(f"{key} {value}\n")
    return GuestEvidence("".join(text), proof)


def _iomem_range(text: str) -> Range | None:
    match = re.fullmatch(r"([0-9a-f]+)-([0-9a-f]+)", text)
    if match is None:
        return None
    first, last = (int(part, 16) for part in match.groups())
    return Range.between(first, last + 1) if last >= first else None
