"""The fuzzing itself: seeds are fine, a planted bug is found, what is found can be replayed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bootproof.loader import LoaderError
from tests.fuzz import run
from tests.fuzz.child import last_input
from tests.fuzz.mutation import fuzz, mutated
from tests.fuzz.targets import MOST_BYTES, PLANTED, TARGETS, EscapedError, Target


class TwoLinesError(LoaderError):
    def __str__(self) -> str:
        return "two\nlines"


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_seeds_are_good_and_their_mutations_do_not_escape(target: Target) -> None:
    seeds = target.seeds()
    assert "" in {target.run(seed) for seed in seeds}, "no seed is accepted"
    chance = random.Random(1)
    outcomes = {target.run(mutated(chance, seeds)) for _ in range(200)}
    # Whatever a guest says, there is an answer.
    assert len(outcomes) > 1 or target.name == "guest", "no mutation is refused"
    target.run(b"")


def test_engine_finds_a_planted_bug() -> None:
    planted = PLANTED["planted-escape"]
    with pytest.raises(KeyError, match="planted"):
        fuzz(planted.run, planted.seeds(), seconds=20, seed=1)


def test_mutations_are_reproducible_and_bounded() -> None:
    seeds = [bytes(MOST_BYTES), b"", b"abc"]
    first, second = random.Random(3), random.Random(3)
    for _ in range(200):
        data = mutated(first, seeds)
        assert data == mutated(second, seeds)
        assert len(data) <= MOST_BYTES


@pytest.mark.parametrize("kind", ["escape", "crash"])
def test_finding_is_left_and_can_be_replayed(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"planted-{kind}"
    assert run.run([name], 5, tmp_path, seed=1, engine="mutation") == 1
    (finding,) = (tmp_path / name / "findings").iterdir()
    assert b"Q" in finding.read_bytes()
    printed = capfd.readouterr()
    assert f"./bootproof fuzz --target {name} --replay {finding}" in printed.out
    if kind == "escape":
        assert run.replay(name, finding) == 1
        assert "KeyError: 'planted'" in capfd.readouterr().err


def test_clean_run_leaves_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run.run(["image", "cmdline"], 1, tmp_path, seed=1, engine="mutation") == 0
    assert [list((tmp_path / name / "findings").iterdir()) for name in ("image", "cmdline")] == [
        [],
        [],
    ]
    assert "executions, mutation; nothing failed" in capfd.readouterr().out


def test_replay_of_something_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"\0no kernel")
    assert run.replay("elf", path) == 0
    assert "Elf::ReadElfHeader" in capfd.readouterr().out


def test_last_input_is_what_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "last-input"
    path.write_bytes(b"%016x" % 3 + b"abc" + bytes(100))
    assert last_input(path) == b"abc"


def test_refusal_of_more_than_one_line_escapes() -> None:
    def refuse(_data: bytes) -> None:
        raise TwoLinesError

    with pytest.raises(EscapedError, match="not one line"):
        Target("bad", refuse, list).run(b"")
