"""`bootproof test`: a step that failed is named, and nothing hides it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness.suite import matrix, selftest


@pytest.mark.parametrize("broken", [None, "lint", "fast tests", "short matrix"])
def test_a_step_that_failed_is_the_end_of_it(
    broken: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(selftest, "_step", lambda _root, name, _command: name != broken)
    monkeypatch.setattr(matrix, "run", lambda _selection: 125 if broken == "short matrix" else 0)
    assert selftest.run(Path()) == (broken is not None)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"bootproof test: {f'failed: {broken}' if broken else 'all passed'}"


@pytest.mark.parametrize(("program", "passed"), [("", True), ("raise SystemExit(3)", False)])
def test_a_step_passes_with_the_exit_code_0_only(
    program: str, passed: bool, tmp_path: Path
) -> None:
    assert selftest._step(tmp_path, "a step", ["-c", program]) is passed
