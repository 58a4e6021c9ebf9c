"""docs/security.md promises nothing without a test that exists."""

from __future__ import annotations

import re

from tests import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text()
TESTS = {path: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}


def test_every_test_it_names_is_there() -> None:
    files = {path.name for path in TESTS}
    defined = set(re.findall(r"^def (test_\w+)", "\n".join(TESTS.values()), re.MULTILINE))
    named = set(re.findall(r"test_\w+(?:\.py)?", PAGE))
    assert len(named) > 30
    assert {name for name in named if name.endswith(".py")} <= files
    assert {name for name in named if not name.endswith(".py")} <= defined


def test_every_promise_in_a_table_names_a_test() -> None:
    promised = PAGE.partition("## What is promised")[2].partition("## What is not promised")[0]
    rows = [line for line in promised.splitlines() if line.startswith("| ") and "---" not in line]
    promises = [row for row in rows if not row.startswith("| promise")]
    assert len(promises) > 12
    assert [row for row in promises if "test_" not in row.rpartition(" | ")[2]] == []
