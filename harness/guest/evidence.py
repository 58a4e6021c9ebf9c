"""What the guest said about itself: the lines its init printed, and whether they are genuine.

    bootproof: NUMBER CHECK KEY VALUE
    bootproof: proof DIGEST

CHECK is the beginning of the SHA-256 of "KEY VALUE" and a newline. All lines are printed twice: a
kernel message may stand in the middle of one. The last line is a SHA-256 over the nonce and every
line before it, so that neither the kernel's echo of its command line nor a transcript of another
boot can pass for a proof. Judges nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import count, takewhile

from bootproof.dataclass import dataclass
from bootproof.harness.guest import kernellog
from bootproof.loader.address import Range

_BEGIN = rb"^(?:" + kernellog.STAMP + rb")?bootproof: "  # it may come by way of the kernel's log
_LINE = re.compile(
    _BEGIN + rb"(\d{1,3}) ([0-9a-f]{8}) (\w{1,32} [^\r\n]{0,8192})\r?\n", re.MULTILINE
)
_PROOF = "proof"
_PROOF_BEGINS = re.compile(_BEGIN + rb"proof ", re.MULTILINE)
PROOF = re.compile(_BEGIN + rb"proof ([0-9a-f]{64})\r?\n", re.MULTILINE)
PROOF_WORDS = b"bootproof: proof "
"""What is in every line that is one."""
_KERNEL_MESSAGE = re.compile(kernellog.STAMP + rb"[^\n]*\n?")


@dataclass(frozen=True, slots=True)
class GuestEvidence:
    """What init printed."""

    text: str  # what is no UTF-8 reads \xe9
    proof: str | None  # None when init did not get to its last line
    raw: bytes = b""  # the text as it was printed: what the proof is over

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
        return self.proof == proof_for(nonce, self.raw or self.text.encode())

    def to_json(self) -> Mapping[str, object]:
        return {**self.by_key, _PROOF: self.proof}


def proof_for(nonce: str, text: bytes) -> str:
    """The digest init prints: SHA-256 over the nonce, a newline, and its evidence lines."""
    return hashlib.sha256(nonce.encode() + b"\n" + text).hexdigest()


def proof_start(transcript: bytes) -> int:
    """Where the first proof line begins; the transcript's end when there is none."""
    line = _PROOF_BEGINS.search(transcript)
    return line.start() if line else len(transcript)


def proof_end(transcript: bytes) -> int:
    """Where what follows the proof begins, which may be said more than once."""
    found = PROOF.search(transcript)
    if found is None:
        return proof_start(transcript)
    return transcript.rfind(found[1]) + len(found[1])


def parse(transcript: bytes) -> GuestEvidence:
    """Reads the evidence out of a console transcript.

    Of each line, the first that is whole counts, up to the last time that the first proof is said;
    also one that is whole only without the kernel messages in it.
    """
    texts = (transcript, _KERNEL_MESSAGE.sub(b"", transcript))
    proof = next(filter(None, map(PROOF.search, texts)), None)
    lines: dict[int, bytes] = {}
    for text in texts:
        for match in _LINE.finditer(text, 0, _end(text, proof)):
            number, check, line = int(match[1]), match[2].decode(), match[3] + b"\n"
            if hashlib.sha256(line).hexdigest().startswith(check):
                lines.setdefault(number, line)
    numbers = takewhile(lines.__contains__, count(1))
    whole = b"".join(lines[number] for number in numbers)
    return GuestEvidence(
        whole.decode("utf-8", "backslashreplace"),
        None if proof is None else proof[1].decode(),
        whole,
    )


def _end(text: bytes, proof: re.Match[bytes] | None) -> int:
    """Where the evidence ends: behind it all may say what it likes."""
    return len(text) if proof is None else max(text.rfind(proof[1]), 0)


def _iomem_range(text: str) -> Range | None:
    match = re.fullmatch(r"([0-9a-f]{1,16})-([0-9a-f]{1,16})", text)
    if match is None:
        return None
    first, last = (int(part, 16) for part in match.groups())
    return Range.between(first, last + 1) if last >= first else None
