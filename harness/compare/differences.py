"""Where two boots of one kernel differ: what was handed over, what the guest said, what it logged.

Pure: two `Side`s in, a list of contrasts out, in a fixed order. Explains nothing
(bootproof.harness.compare.reasons does), and leaves out what differs by its nature: time stamps,
addresses, counters in log lines.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bootproof.harness import evidence
from bootproof.harness.compare.handover import Handed
from bootproof.harness.guest import memory_map
from bootproof.harness.guest.memory_map import MapEntry
from bootproof.harness.qemu.probe import compare_registers
from bootproof.harness.text import printable
from bootproof.loader.address import Range
from bootproof.loader.arch import Registers


class Section(enum.Enum):
    """What differs. The values are stable: they stand in JSON."""

    VERDICT = "verdict"
    REGISTERS = "registers at the entry"
    KERNEL = "kernel in RAM"
    PARAMETERS = "parameters"
    DEVICE_TREE = "device tree"
    MEMORY_MAP = "memory map"
    EVIDENCE = "evidence"
    MEMORY = "memory figures"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Side:
    """One boot. `registers` is None when the entry was not reached."""

    verdict: str
    reason: str
    protocol: str
    registers: Registers | None
    handed: Handed
    transcript: bytes


@dataclass(frozen=True, slots=True)
class Contrast:
    """One difference; a side that has nothing there is "". `range` is guest-physical."""

    section: Section
    name: str
    ours: str
    reference: str
    range: Range | None = None


BOOTED: Final = "booted"
_ABSENT: Final = ""


def contrasts(ours: Side, reference: Side) -> list[Contrast]:
    """Every difference between two boots."""
    return [
        *_verdicts(ours, reference),
        *_registers(ours, reference),
        *_kernel(ours.handed, reference.handed),
        *_parameters(ours, reference),
        *_maps(ours, reference),
        *_by_name(Section.EVIDENCE, _evidence(ours), _evidence(reference)),
        *_by_name(Section.MEMORY, _memory(ours.transcript), _memory(reference.transcript)),
        *_log(ours.transcript, reference.transcript),
    ]


def _verdicts(ours: Side, reference: Side) -> Iterator[Contrast]:
    if BOOTED == ours.verdict == reference.verdict:
        return
    left, right = (f"{side.verdict}: {side.reason}" for side in (ours, reference))
    yield Contrast(Section.VERDICT, "verdict", left, right)


def _registers(ours: Side, reference: Side) -> Iterator[Contrast]:
    if ours.protocol != reference.protocol:
        yield Contrast(Section.REGISTERS, "protocol", ours.protocol, reference.protocol)
        return
    if ours.registers is None or reference.registers is None:
        left, right = ("reached" if side.registers else "not reached" for side in (ours, reference))
        yield Contrast(Section.REGISTERS, "entry", left, right)
        return
    for found in compare_registers(ours.registers, reference.registers):
        yield Contrast(Section.REGISTERS, found.what, found.expected, found.actual)


def _kernel(ours: Handed, reference: Handed) -> Iterator[Contrast]:
    if ours.kernel != reference.kernel:
        yield Contrast(Section.KERNEL, "place", str(ours.kernel), str(reference.kernel))
    pairs = zip(ours.pages, reference.pages, strict=False)
    changed = [number for number, (left, right) in enumerate(pairs) if left != right]
    if changed:
        text = f"{len(changed)} of {len(ours.pages)} pages differ, the first is {changed[0]}"
        yield Contrast(Section.KERNEL, "bytes", "", text)


def _parameters(ours: Side, reference: Side) -> Iterator[Contrast]:
    left, right = dict(ours.handed.values), dict(reference.handed.values)
    if ours.protocol != reference.protocol:
        shared = left.keys() & right.keys()
        left = {name: value for name, value in left.items() if name in shared}
        right = {name: value for name, value in right.items() if name in shared}
    for found in _by_name(Section.PARAMETERS, left, right):
        tree = found.name.startswith("/") or found.name.startswith("device tree")
        section = Section.DEVICE_TREE if tree else Section.PARAMETERS
        yield Contrast(section, found.name, found.ours, found.reference)


def _maps(ours: Side, reference: Side) -> Iterator[Contrast]:
    logged = (memory_map.logged(side.transcript) for side in (ours, reference))
    yield from _map("at the entry", ours.handed.map, reference.handed.map)
    yield from _map("in the log", *logged)


def _map(
    where: str, ours: tuple[MapEntry, ...], reference: tuple[MapEntry, ...]
) -> Iterator[Contrast]:
    for found in memory_map.differences(ours, reference):
        name = f"{where}, {found.range}"
        yield Contrast(Section.MEMORY_MAP, name, found.ours, found.theirs, found.range)


def _by_name(
    section: Section, ours: Mapping[str, str], reference: Mapping[str, str]
) -> Iterator[Contrast]:
    for name in dict.fromkeys((*ours, *reference)):
        left, right = ours.get(name, _ABSENT), reference.get(name, _ABSENT)
        if left != right or (name in ours) != (name in reference):
            yield Contrast(section, name, left, right)


def _evidence(side: Side) -> Mapping[str, str]:
    """The lines of the guest's init but for the proof, which is over all the others."""
    said = evidence.parse(side.transcript)
    keys = dict.fromkeys(line.partition(" ")[0] for line in said.text.splitlines())
    return {key: ", ".join(said.values(key)) for key in keys}


# --- the log -----------------------------------------------------------------------------------

_MEMORY_LINE: Final = re.compile(rb"Memory: (\d+)K/(\d+)K available \(([^)]*)\)")
_FIGURE: Final = re.compile(r"(\d+)K ([a-z-]+(?: [a-z]+)?)")
_TIME: Final = re.compile(r"^\[ *\d+\.\d+\] ?")
# Compared by their meaning elsewhere.
_ELSEWHERE: Final = re.compile(r"BIOS-e820: |bootproof: |Memory: \d+K/")
# What differs from boot to boot by its nature, or counts instructions in disguise.
_NATURE: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x#"),
    (re.compile(r"audit\([0-9.]+:"), "audit(#:"),
    (re.compile(r"(Marking stable) .*"), r"\1 #"),
    (re.compile(r"(setting system clock to) .*"), r"\1 #"),
    (re.compile(r"(max_idle_ns:) \d+"), r"\1 #"),
    (re.compile(r"(initialised in) \d+ms"), r"\1 #ms"),
    (re.compile(r"[0-9.]+ (BogoMIPS) \(lpj=\d+\)"), r"# \1"),
    (re.compile(r"(calibration:|Detected) [0-9.]+ MHz"), r"\1 # MHz"),
)


def normalised(line: str) -> str:
    """A log line without time stamp, addresses and counters; white space at its end goes too."""
    text = _TIME.sub("", line)
    for pattern, replacement in _NATURE:
        text = pattern.sub(replacement, text)
    return text.rstrip()


def _log(ours: bytes, reference: bytes) -> Iterator[Contrast]:
    """Lines that one side has more often than the other; their order is not looked at."""
    left, right = _lines(ours), _lines(reference)
    for line in (left - right).elements():
        yield Contrast(Section.LOG, line, line, _ABSENT)
    for line in (right - left).elements():
        yield Contrast(Section.LOG, line, _ABSENT, line)


def _lines(transcript: bytes) -> Counter[str]:
    lines = (normalised(printable(line.rstrip(b"\r"))) for line in transcript.split(b"\n"))
    return Counter(line for line in lines if line and not _ELSEWHERE.match(line))


def _memory(transcript: bytes) -> Mapping[str, str]:
    """The figures of the kernel's "Memory:" line by name, in KiB."""
    found = _MEMORY_LINE.search(transcript)
    if found is None:
        return {}
    available, total, rest = (group.decode() for group in found.groups())
    figures = {name: number for number, name in _FIGURE.findall(rest)}
    return {"available": available, "total": total} | figures
