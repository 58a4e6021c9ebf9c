"""Why a file of tests could not be collected, in one line: pytest tells that in a traceback."""

from __future__ import annotations

import re

import pytest


def reason(report: pytest.CollectReport) -> str:
    """`scenarios/test_x.py:3: SyntaxError: invalid syntax`, of a report that failed."""
    name = re.escape(report.nodeid.rpartition("/")[2])
    text = report.longreprtext
    lines = re.findall(rf'{name}(?:", line |:)([0-9]+)', text)
    errors = re.findall(r"^E +(.+)$", text, re.MULTILINE)
    where = f"{report.nodeid}:{lines[-1]}" if lines else report.nodeid
    return f"{where}: {(errors or text.splitlines() or ['cannot be collected'])[-1]}"
