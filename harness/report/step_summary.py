"""A matrix run as Markdown for the summary page of a GitHub job. Pure.

What a guest or a stranger's file says stands in fenced blocks or is escaped: it makes no mark-up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from bootproof.harness.report import columns
from bootproof.harness.results.results import CaseResult, Results

_LIMIT: Final = 900_000  # bytes; a step's summary may have 1 MiB
_MARKUP: Final = re.compile(r"([\\`*_{}\[\]()#+!|~<>&@-])")


def render(results: Results) -> str:
    """The summary; failures first, then a table for each architecture."""
    wrong = results.unexpected
    bad = [check for check in results.checks if check.bad]
    total = len(results.cases)
    headline = (
        f"✗ {len(wrong) + len(bad)} not as expected"
        if wrong or bad
        else f"✓ All {total} cases as expected"
    )
    parts = [
        f"## bootproof: {headline}\n",
        f"{total - len(wrong)} of {total} cases as expected in {results.seconds:.0f} s."
        + ("" if results.complete else " **The run did not come to its end.**")
        + "\n",
    ]
    parts += [_failure(case) for case in wrong]
    parts += [f"### ✗ {_plain(check.name)}\n\n{_fenced(check.text)}\n" for check in bad]
    for arch in sorted({case.arch for case in results.cases}, reverse=True):
        parts.append(_table(arch, [case for case in results.cases if case.arch == arch]))
    return _cut(parts)


def _cut(parts: Sequence[str]) -> str:
    """As many parts as there is room for."""
    kept, size = [], 0
    for part in parts:
        size += len(part.encode()) + 1
        if size > _LIMIT:
            kept.append("… and more, in report.html\n")
            break
        kept.append(part)
    return "\n".join(kept)


def _failure(case: CaseResult) -> str:
    lines = [f"### ✗ {_plain(case.case)}\n", f"{_plain(case.problem or '')}\n"]
    lines += [f"{_fenced(chr(10).join(case.tail))}\n"] if case.tail else []
    lines += [f"Again:\n\n{_fenced(case.reproduce)}\n"]
    return "\n".join(lines)


def _table(arch: str, cases: Sequence[CaseResult]) -> str:
    kernels = columns.kernels(cases)
    rows: dict[str, dict[str, CaseResult]] = {}
    for case in sorted(cases, key=lambda case: case.claim):
        rows.setdefault(case.claim, {})[case.kernel.name] = case
    lines = [
        f"<details><summary>{_plain(arch)}</summary>\n",
        "| case | " + " | ".join(map(_plain, kernels)) + " |",
        "|---" * (len(kernels) + 1) + "|",
    ]
    for claim, cells in rows.items():
        found = (_cell(cells.get(kernel)) for kernel in kernels)
        lines.append(f"| {_plain(claim)} | " + " | ".join(found) + " |")
    return "\n".join([*lines, "\n</details>\n"])


def _cell(case: CaseResult | None) -> str:
    if case is None:
        return ""
    mark = "✓" if case.as_expected else "✗ **not as expected**"
    return f"{mark} {_plain(case.verdict)} {case.seconds:.1f} s"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _plain(text: str) -> str:
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
