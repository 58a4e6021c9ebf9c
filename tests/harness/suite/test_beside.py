"""Test functions in threads: as pytest would run them, and none has another wait."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from bootproof.harness.case import Case, Expectation
from bootproof.harness.results import results
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, bootproof_matrix, started, vmlinux

BESIDE = """
import threading
import time

import pytest

pytestmark = pytest.mark.beside
MEET = threading.Barrier(3, timeout=60)

@pytest.mark.parametrize("word", ["one", "other"])
def test_meets(word, run_directory, tmp_path, pytestconfig, record_property):
    run_directory("word").mkdir(exist_ok=True)
    (run_directory("word") / word).write_text(word)
    (tmp_path / "made").touch()
    record_property("bootproof-reference", {
        "case": f"case-{word}", "reference": {"instructions": len(word), "stages": []}
    })
    assert pytestconfig.rootpath
    MEET.wait()
    time.sleep(0.2)

def test_meets_them_too():
    MEET.wait()
"""
ENDS = """
import pytest

@pytest.mark.beside
class TestEnds:
    def test_fails(self):
        assert "this" == "that"

    def test_skips(self):
        pytest.skip("no such thing")

    def test_breaks(self):
        raise OSError("broken")

    def test_asks_for_more(self, capsys):
        pass

    @pytest.mark.parametrize("number", [1])
    def test_passes(self, number):
        assert number == 1
"""
RUNS_ON = """
import time
from functools import partial
from pathlib import Path

import pytest

from bootproof.harness.host.process import QemuProcess
from bootproof.harness.host.together import together

def guest(directory):
    directory.mkdir(parents=True)
    with QemuProcess(["sleep", "600"], directory) as process:
        (directory / "pid").write_text(str(process.pid))
        while not process.ended():
            time.sleep(0.01)

@pytest.mark.beside
def test_two_guests(run_directory):
    together(*(partial(guest, run_directory(name)) for name in ("one", "other")))
"""


def run(tmp_path: Path, tests: str, jobs: int = 2) -> tuple[int, str]:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    resets = Expectation(Verdict.CPU_RESET, why="a test")
    words = {"memory": 32 * MIB, "kernel_path": str(kernel), "expect": resets}
    cases = [Case("x86_64", f"k{n}", "elf", "linux64", **words) for n in range(2)]  # type: ignore[arg-type]
    (tmp_path / "test_some.py").write_text(tests)
    command = [*bootproof_matrix(tmp_path, cases, jobs=jobs), str(tmp_path / "test_some.py")]
    process = started(command, tmp_path)
    said = process.communicate(timeout=300)[0]
    return process.returncode, re.sub(r"\s+", " ", said)


def test_they_run_at_once_and_are_given_what_they_ask_for(tmp_path: Path) -> None:
    code, said = run(tmp_path, BESIDE)
    assert code == 0, said
    assert "2 of 2 cases and 3 of 3 other tests as expected" in said
    assert {path.name for path in (tmp_path / "out" / "word").iterdir()} == {"one", "other"}
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {name: each["instructions"] for name, each in found["references"].items()} == {
        "case-one": 3,
        "case-other": 5,
    }
    seconds = [each["seconds"] for each in found["checks"] if "test_meets[" in each["name"]]
    assert len(seconds) == 2 and min(seconds) >= 0.2


@pytest.mark.parametrize("jobs", [1, 2])
def test_they_end_as_any_test_does(jobs: int, tmp_path: Path) -> None:
    code, said = run(tmp_path, ENDS, jobs)
    assert code != 0, said
    found = results.read(tmp_path / "out" / "results.json")
    ends = {
        check.name.partition("test_")[2].rpartition("::test_")[2]: check for check in found.checks
    }
    assert {name: check.outcome for name, check in ends.items()} == {
        "fails": "failed",
        "skips": "skipped",
        "breaks": "error",
        "asks_for_more": "error" if jobs > 1 else "passed",
        "passes[1]": "passed",
    }
    assert "assert 'this' == 'that'" in ends["fails"].text
    assert ends["skips"].text.endswith("no such thing")
    assert "OSError: broken" in ends["breaks"].text
    if jobs > 1:
        assert "is marked beside, and asks for capsys" in ends["asks_for_more"].text


def test_one_that_has_guests_ends_when_its_user_has_had_enough(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(RUNS_ON)
    command = [*bootproof_matrix(tmp_path, [], jobs=2), str(tmp_path / "test_some.py")]
    process = started(command, tmp_path)
    pids = [tmp_path / "out" / name / "pid" for name in ("one", "other")]
    while not all(path.exists() and path.read_text() for path in pids):
        assert process.poll() is None, process.communicate()[0]
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    for path in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)
