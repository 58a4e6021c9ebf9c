"""All fuzz targets, one after the other, for a bounded time: what `bootproof fuzz` does.

Owns choosing the engine, starting one process per target, and telling what it found. Every
finding is a file and a command that shows it again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bootproof.harness.host.files import read_given
from tests import ROOT
from tests.fuzz.child import EXECUTIONS, LAST_INPUT, last_input
from tests.fuzz.targets import PLANTED, TARGETS

_MOST_INPUT: Final = 1 << 30  # bytes
GRACE: Final = 30.0  # seconds that a target's process may need beside its share of the time
NO_ATHERIS: Final = (
    "atheris is not installed: inputs are mutated at random, without a look at coverage "
    "(.venv/bin/python -m pip install atheris; wheels exist for x86_64)"
)


@dataclass(frozen=True)
class Outcome:
    """What came of one target: executions, and the findings, as files."""

    target: str
    executions: int
    findings: tuple[Path, ...]
    log: str = ""


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def run(names: Sequence[str], seconds: float, out: Path, *, seed: int, engine: str) -> int:
    """Fuzzes each of the named targets for its share of `seconds` (host wall); 1 for findings."""
    if engine == "mutation":
        print(f"bootproof: {NO_ATHERIS}" if not has_atheris() else "bootproof: random mutation")
    total, failed = 0, 0
    for name in names:
        outcome = fuzz(name, seconds / len(names), out, seed=seed, engine=engine)
        print(f"{name:18} {outcome.executions:9} executions", flush=True)
        total += outcome.executions
        failed += bool(outcome.findings)
        _tell(outcome)
    print(f"{'all':18} {total:9} executions, {engine}; {failed or 'nothing'} failed")
    return 1 if failed else 0


def fuzz(name: str, seconds: float, out: Path, *, seed: int, engine: str) -> Outcome:
    """Fuzzes one target in a process of its own."""
    findings, corpus = out / name / "findings", out / name / "corpus"
    shutil.rmtree(findings, ignore_errors=True)
    for directory in (findings, corpus):
        directory.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz.child", name),
        *("--seconds", str(seconds), "--seed", str(seed), "--engine", engine),
        *("--findings", str(findings), "--corpus", str(corpus)),
    ]
    try:
        child = subprocess.run(
            command,
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds + GRACE,
        )
        log, code = child.stderr, child.returncode
    except subprocess.TimeoutExpired as expired:
        log, code = (expired.stderr or b"").decode(errors="replace"), -1
    _name_last_input(findings)
    found = tuple(sorted(findings.iterdir()))
    if code and not found:
        (findings / "log").write_text(log)
        found = (findings / "log",)
    executed = re.search(rf"{re.escape(EXECUTIONS)}\s*(\d+)", log)
    return Outcome(name, int(executed[1]) if executed else 0, found if code else (), log)


def replay(name: str, path: Path) -> int:
    """Runs one input; 1, and its traceback, when it escapes. Raises UserError."""
    data = read_given(path, _MOST_INPUT, "--replay")
    try:
        code = (TARGETS | PLANTED)[name].run(data)
    except Exception:
        traceback.print_exc()
        return 1
    print(f"{path}: {code or 'accepted'}")
    return 0


def _name_last_input(findings: Path) -> None:
    """Gives what a process left behind when it ended early a name of its own."""
    left = findings / LAST_INPUT
    if left.exists():
        data = last_input(left)
        left.unlink()
        (findings / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)


def _tell(outcome: Outcome) -> None:
    if not outcome.findings:
        return
    print(outcome.log[-4000:], file=sys.stderr)
    for path in outcome.findings:
        print(f"  {path}\n  ./bootproof fuzz --target {outcome.target} --replay {path}", flush=True)
