"""Where two boots of one kernel differ: what was handed over, what the guest said, what it logged.

Pure: two `ComparedBoot`s in, a list of differences out, in a fixed order. Explains nothing
(bootproof.harness.compare.reasons does), and leaves out what differs by its nature: time stamps,
addresses, counters in log lines.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, replace
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.compare.memory_at_entry import MemoryAtEntry
from bootproof.harness.guest import evidence, memory_map
from bootproof.harness.guest.memory_map import MapEntry
from bootproof.harness.registers import compare_registers
from bootproof.harness.text import printable
from bootproof.harness.verdict import Verdict
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
class ComparedBoot:
    """What is compared of one boot."""

    verdict: Verdict
    reason: str
    protocol: str  # that it was entered through
    registers: Registers | None  # at the entry; None when it was not reached
    memory: MemoryAtEntry
    transcript: bytes


@dataclass(frozen=True, slots=True)
class BootDifference:
    """One difference of two boots."""

    section: Section
    name: str
    ours: str  # "" for nothing there
    reference: str
    range: Range | None = None  # guest-physical


_ABSENT: Final = ""


def boot_differences(ours: ComparedBoot, reference: ComparedBoot) -> list[BootDifference]:
    """Every difference between two boots."""
    return [
        *_verdicts(ours, reference),
        *_registers(ours, reference),
        *_kernel(ours.memory, reference.memory),
        *_parameters(ours, reference),
        *_maps(ours, reference),
        *_by_name(Section.EVIDENCE, _evidence(ours), _evidence(reference)),
        *_by_name(Section.MEMORY, _memory(ours.transcript), _memory(reference.transcript)),
        *_log(ours.transcript, reference.transcript),
    ]


def _verdicts(ours: ComparedBoot, reference: ComparedBoot) -> Iterator[BootDifference]:
    if ours.verdict.passed and reference.verdict.passed:
        return
    left, right = (f"{boot.verdict.value}: {boot.reason}" for boot in (ours, reference))
    yield BootDifference(Section.VERDICT, "verdict", left, right)


def _registers(ours: ComparedBoot, reference: ComparedBoot) -> Iterator[BootDifference]:
    if ours.protocol != reference.protocol:
        yield BootDifference(Section.REGISTERS, "protocol", ours.protocol, reference.protocol)
        return
    if ours.registers is None or reference.registers is None:
        left, right = ("reached" if boot.registers else "not reached" for boot in (ours, reference))
        yield BootDifference(Section.REGISTERS, "entry", left, right)
        return
    for register in compare_registers(ours.registers, reference.registers):
        yield BootDifference(Section.REGISTERS, *astuple(register))


def _kernel(ours: MemoryAtEntry, reference: MemoryAtEntry) -> Iterator[BootDifference]:
    if ours.kernel != reference.kernel:
        yield BootDifference(Section.KERNEL, "place", str(ours.kernel), str(reference.kernel))
    pairs = zip(ours.pages, reference.pages, strict=False)
    changed = [number for number, (left, right) in enumerate(pairs) if left != right]
    if changed:
        text = f"{len(changed)} of {len(ours.pages)} pages differ, the first is {changed[0]}"
        yield BootDifference(Section.KERNEL, "bytes", "", text)


def _parameters(ours: ComparedBoot, reference: ComparedBoot) -> Iterator[BootDifference]:
    left, right = dict(ours.memory.values), dict(reference.memory.values)
    if ours.protocol != reference.protocol:
        shared = left.keys() & right.keys()
        left = {name: value for name, value in left.items() if name in shared}
        right = {name: value for name, value in right.items() if name in shared}
    for item in _by_name(Section.PARAMETERS, left, right):
        tree = item.name.startswith(("/", "device tree"))
        yield replace(item, section=Section.DEVICE_TREE) if tree else item


def _maps(ours: ComparedBoot, reference: ComparedBoot) -> Iterator[BootDifference]:
    logged = (memory_map.logged(boot.transcript) for boot in (ours, reference))
    yield from _map("at the entry", ours.memory.map, reference.memory.map)
    yield from _map("in the log", *logged)


def _map(
    where: str, ours: tuple[MapEntry, ...], reference: tuple[MapEntry, ...]
) -> Iterator[BootDifference]:
    for part in memory_map.differences(ours, reference):
        name = f"{where}, {part.range}"
        yield BootDifference(Section.MEMORY_MAP, name, part.ours, part.theirs, part.range)


def _by_name(
    section: Section, ours: Mapping[str, str], reference: Mapping[str, str]
) -> Iterator[BootDifference]:
    for name in dict.fromkeys((*ours, *reference)):
        left, right = ours.get(name, _ABSENT), reference.get(name, _ABSENT)
        if left != right or (name in ours) != (name in reference):
            yield BootDifference(section, name, left, right)


def _evidence(boot: ComparedBoot) -> Mapping[str, str]:
    """The lines of the guest's init but for the proof, which is over all the others."""
    said = evidence.parse(boot.transcript).by_key
    return {key: ", ".join(values) for key, values in said.items()}


# --- the log -----------------------------------------------------------------------------------

_MOST_LINES: Final = 50_000  # of one boot; kernels say a hundredth of that
_MEMORY_LINE: Final = re.compile(rb"Memory: (\d{1,15})K/(\d{1,15})K available \(([^)]{0,2000})\)")
_FIGURE: Final = re.compile(r"(\d{1,15})K ([a-z-]{1,40}(?: [a-z]{1,40})?)")
_TAKEN_OVER_LATER: Final = 16  # a part of all RAM that no bookkeeping of a kernel comes to
_TIME: Final = re.compile(r"^\[ *\d+\.\d+\] ?")
# Compared by their meaning elsewhere.
_ELSEWHERE: Final = re.compile(r"BIOS-e820: |bootproof: |Memory: \d+K/")
_CUT_HERE: Final = "------------[ cut here ]------------"  # bug.h, kernel/panic.c
_END_OF_TRACE: Final = re.compile(r"---\[ end trace ")
_FUNCTION: Final = re.compile(r" *(?:\? )?([\w.]+)\+0x#/0x#")
_LONGEST_TRACE: Final = 300  # lines
# What differs from boot to boot by its nature, or counts instructions in disguise.
_NATURE: Final = (
    (re.compile(r"0x[0-9a-fA-F]+"), "0x#"),
    (re.compile(r"audit\([0-9.]+:"), "audit(#:"),
    (re.compile(r"(Marking stable) .*"), r"\1 #"),
    (re.compile(r"(setting system clock to) .*"), r"\1 #"),
    (re.compile(r"(max_idle_ns:) \d+"), r"\1 #"),
    (re.compile(r"(initialised in) \d+ms"), r"\1 #ms"),
    (re.compile(r"[0-9.]{1,20} (BogoMIPS) \(lpj=\d{1,20}\)"), r"# \1"),
    (re.compile(r"(unaligned word access(?: speed)? is) [0-9.]{1,20}"), r"\1 #"),
    (re.compile(r"(calibration:|Detected) [0-9.]+ MHz"), r"\1 # MHz"),
)


def normalised(line: str) -> str:
    """A log line without time stamp, addresses and counters; white space at its end goes too."""
    text = _TIME.sub("", line)
    for pattern, replacement in _NATURE:
        text = pattern.sub(replacement, text)
    return text.rstrip()


def _log(ours: bytes, reference: bytes) -> Iterator[BootDifference]:
    """Lines that one side has more often than the other; their order is not looked at."""
    left, right = _lines(ours), _lines(reference)
    for line in (left - right).elements():
        yield BootDifference(Section.LOG, line, line, _ABSENT)
    for line in (right - left).elements():
        yield BootDifference(Section.LOG, line, _ABSENT, line)


def _lines(transcript: bytes) -> Counter[str]:
    pieces = transcript.split(b"\n", _MOST_LINES)[:_MOST_LINES]  # the rest is in one piece
    lines = (normalised(printable(line.rstrip(b"\r"))) for line in pieces)
    return Counter(line for line in _whole(lines) if line and not _ELSEWHERE.match(line))


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """The lines, but for a warning with its registers and trace: it is one, and says through which
    functions the kernel came to it.
    """
    held: list[str] | None = None
    for line in lines:
        if line == _CUT_HERE:
            yield from held or ()
            held = []
        elif held is None:
            yield line
        elif _END_OF_TRACE.match(line):
            functions = (found[1] for each in held[1:] if (found := _FUNCTION.match(each)))
            yield " < ".join([*held[:1], *functions])
            held = None
        else:
            held.append(line)
            if len(held) > _LONGEST_TRACE:
                yield from held
                held = None
    yield from held or ()


def _memory(transcript: bytes) -> Mapping[str, str]:
    """The figures of the kernel's "Memory:" line by name, in KiB.

    "available" is another figure, "available so far", where much of the rest is not reserved
    either: the kernel takes over the struct pages of the other RAM later, in the background.
    """
    line = _MEMORY_LINE.search(transcript)
    if line is None:
        return {}
    available, total, rest = (printable(group) for group in line.groups())
    figures = {name: number for number, name in _FIGURE.findall(rest)}
    held = sum(int(figures.get(name, "0")) for name in ("reserved", "cma-reserved"))
    later = int(total) - int(available) - held
    name = "available so far" if later > int(total) // _TAKEN_OVER_LATER else "available"
    return {name: available, "total": total} | figures
