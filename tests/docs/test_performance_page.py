"""The page of measurements quotes only what a bench has printed, and every bench has its place."""

from __future__ import annotations

import json
import re
from importlib import util
from pathlib import Path

import pytest

from bench import all as benches
from bench import numbers
from bench.boot import Row
from tests import ROOT

PAGE = ROOT / "docs" / "performance.md"
NAMES = (*benches.BENCHES, benches.PEERS)
BLOCK = re.compile(r"<!-- bench\.(\w+) -->\n(.*?)<!-- end of bench\.\1 -->\n", re.DOTALL)
NUMBER = re.compile(r"\d+(\.\d+)?( |-)?(%|times|seconds|s\b|ms\b|MiB each)")


def test_every_bench_of_the_page_is_there_and_has_a_place() -> None:
    text = PAGE.read_text("utf-8")
    assert sorted(name for name, _ in BLOCK.findall(text)) == sorted(NAMES)
    for name in NAMES:
        assert util.find_spec(f"bench.{name}") is not None
        assert f"\nnew\n<!-- end of bench.{name} -->" in benches.placed(text, name, "new")


def test_numbers_are_where_a_bench_printed_them() -> None:
    """With machine, versions, date and command; and none beside that."""
    text = PAGE.read_text("utf-8")
    for name, block in BLOCK.findall(text):
        if block.strip():
            head, command = block.strip().split("\n\n```text\n$ .venv/bin/python -m ")
            assert re.match(r"\d{4}-\d\d-\d\d, load .* CPUs .* QEMU x86_64 \d", head), name
            assert command.startswith(f"bench.{name}") and command.endswith("\n```"), name
    assert not NUMBER.search(BLOCK.sub("", text).replace("less than 1 MiB", ""))


def test_every_bench_writes_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (ROOT / "bench").glob("[!_]*.py"):
        writes = "numbers.write(arguments.json, " in path.read_text("utf-8")
        assert writes == (path.stem not in ("all", "numbers")), path
    monkeypatch.setattr("sys.argv", ["bench/boot.py"])
    numbers.write(tmp_path / "numbers", {"6.1": [Row("boot", (1.5, 2.0))]})
    written = json.loads((tmp_path / "numbers").read_bytes())
    assert (written["bench"], written["machine"]) == ("boot", numbers.machine())
    assert written["measured"] == {"6.1": [{"way": "boot", "seconds": [1.5, 2.0]}]}


def test_a_page_without_the_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has no <!-- bench.boot -->"):
        benches.placed("a page", "boot", "new")


def test_the_machine_is_told_by_what_it_has() -> None:
    assert re.match(r"\d+ CPUs \(.+\), \d+ [MG]iB, Linux \d.*, Python 3\.\d+", numbers.machine())
