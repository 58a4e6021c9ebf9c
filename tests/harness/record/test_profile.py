"""Where the instructions of recorded guests went: exact sums, the same each time, and names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.harness.arch.dump import FrameRecord
from bootproof.harness.errors import UserError
from bootproof.harness.inputs.symbols import Symbols
from bootproof.harness.record import playback, profile, replaylog, sampling
from bootproof.harness.record.sampling import Sample
from tests.builders.guests import boot, program

LOUD = b"x" * 400 + b"\n"


@given(st.integers(1, 1 << 40), st.integers(1, 3000))
def test_parts_are_all_of_a_run(instructions: int, count: int) -> None:
    parts = sampling.parts(instructions, count)
    assert len(parts) == min(count, instructions)
    assert sum(weight for _, weight in parts) == instructions
    assert all(end == parts[n + 1][0] for n, end in enumerate(s + w for s, w in parts[:-1]))
    assert max(w for _, w in parts) - min(w for _, w in parts) <= 1


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_profile_is_exact_and_the_same_each_time(arch: str, tmp_path: Path) -> None:
    """Also around the place where the run was stopped for its probe."""
    outcome = boot(program(arch).say(LOUD).reset(), tmp_path / "run")
    assert outcome.costs.instructions is not None
    first, second = (profile.profile(tmp_path / "run", 25, "a run") for _ in range(2))
    assert first == second
    assert first.samples == 25
    assert sum(part.instructions for part in first.parts) == outcome.costs.instructions
    assert sum(count for _, count in first.stages) == outcome.costs.instructions
    assert sum(first.functions.values()) == outcome.costs.instructions
    assert first.has_stacks is (arch == "aarch64")
    assert first.functions.keys() == {"[before the kernel]"}
    assert first.remark == "the run's kernel is not named in boot.json; name it (--symbols FILE)"


def test_every_instruction_of_a_short_run(tmp_path: Path) -> None:
    boot(program("x86_64").reset(), tmp_path / "run")
    found = profile.profile(tmp_path / "run", 10_000, "a run")
    assert found.samples == found.instructions < 100


def test_samples_are_where_the_guest_was(tmp_path: Path) -> None:
    """A loop that prints: nearly all samples lie in its few bytes, and code is read there."""
    code = program("x86_64").say(LOUD).reset()
    boot(code, tmp_path / "run")
    samples = sampling.take(playback.open_recorded(tmp_path / "run"), 40)
    inside = [s for s in samples if code.entry <= s.pc < code.entry + len(code.code)]
    assert len(inside) > 30
    for sample in inside:
        at = sample.pc - code.entry
        assert sample.at.startswith(bytes(code.code[at : at + 4]))


def test_initcalls_are_counted_exactly(tmp_path: Path) -> None:
    """From the line that one is called to the line that it returned, by the record's log."""
    said = (
        b"calling  slow_init+0x0/0x10 @ 1\n",
        LOUD,
        b"initcall slow_init+0x0/0x10 returned 0 after 5 usecs\n",
        b"calling  cut+0x0/0x10 @ 1\n",
    )
    code = program("x86_64")
    for text in said:
        code.say(text)
    boot(code.reset(), tmp_path / "run")
    starts = [0, len(said[0]) + len(said[1])]
    first, last = replaylog.read(tmp_path / "run" / "replay.bin", starts).at
    found = profile.profile(tmp_path / "run", 50, "a run")
    assert found.initcalls == (("slow_init", last - first),)
    inside = [part for part in found.parts if "initcall slow_init" in part.stack]
    assert sum(part.instructions for part in inside) == pytest.approx(last - first, rel=0.1)


def test_what_has_no_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the directory of a run"):
        profile.profile(tmp_path, 10, "a run")


def test_symbols_that_are_none(tmp_path: Path) -> None:
    for path, words in (
        (tmp_path / "no", "no such file"),
        (tmp_path / "x", "is no uncompressed kernel"),
    ):
        (tmp_path / "x").write_bytes(b"text")
        with pytest.raises(UserError, match=f"{words}.*--symbols"):
            profile.names_in(path)


# --- names ---------------------------------------------------------------------------------------

CODE = bytes((n * 37 + n // 7) % 251 for n in range(0x400))
KNOWN = Symbols(((0, CODE),), (0x000, 0x100, 0x200), ("start", "work", "leaf"))
HIGH = 0xFFFFFFC008000000


def sample(place: int, base: int, start: int = 0, *callers: int, at: bytes | None = None) -> Sample:
    code = CODE[place : place + 16] if at is None else at
    return Sample(start, 10, base + place, CODE[place - 16 : place], code, callers)


def test_names_of_a_kernel_wherever_it_runs() -> None:
    """First where it was loaded, then in its own half; where its code cannot be read, by that."""
    early = sample(0x120, 0x40200000)
    deep = sample(0x240, HIGH, 10, HIGH + 0x140, HIGH + 0x80)
    unread = sample(0x160, HIGH, 20, at=b"")
    module, user = Sample(30, 10, HIGH + 0x900000, b"", b""), Sample(40, 10, 0x400000, b"", b"")
    samples = [Sample(0, 10, 0x1000, b"", b""), early, deep, unread, module, user]
    named = profile._Named(KNOWN, [samples[0], *samples[1:]])
    assert [named.frames(s) for s in samples] == [
        ("[user space]",),  # of the same time as the first with a name
        ("work",),
        ("start", "work", "leaf"),
        ("work",),
        ("[kernel, no name]",),
        ("[user space]",),
    ]
    later = profile._Named(KNOWN, [samples[0], deep])
    assert later.frames(samples[0]) == ("[before the kernel]",)


def test_without_names_a_stack_is_still_one() -> None:
    named = profile._Named(None, [sample(0x240, HIGH, 0, HIGH + 0x140)])
    assert named.frames(sample(0x240, HIGH, 0, HIGH + 0x140)) == ("[kernel, no name]",) * 2


class Words(sampling._Stack):
    """A stack of so many words."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def word(self, address: int) -> int | None:
        return self.words.get(address)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({0: 64, 8: HIGH, 64: 128, 72: HIGH + 4, 128: 0, 136: HIGH + 8}, [0, 4, 8]),
        ({0: 64, 8: HIGH}, [0]),  # the next record cannot be read
        ({0: 64, 8: 0x400000}, []),  # of a program
        ({0: 0, 8: HIGH}, [0]),  # its own caller
        ({64: 0, 72: HIGH, 0: 64, 8: HIGH + 4}, [4, 0]),
        ({n * 8: HIGH if n % 2 else n * 8 + 16 for n in range(198)}, [0] * 64),
    ],
)  # fmt: skip
def test_callers(words: dict[int, int], wanted: list[int]) -> None:
    layout = FrameRecord(re.compile("unused"), 0, 8)
    found = sampling._callers(Words(words), layout, 0)
    assert [address - HIGH for address in found] == wanted


def test_growth() -> None:
    rows = profile.growth({"a": 5, "b": 7, "gone": 3}, {"a": 9, "b": 7, "new": 2})
    assert [(row.what, row.change) for row in rows] == [
        ("a", 4),
        ("new", 2),
        ("b", 0),
        ("gone", -3),
    ]
