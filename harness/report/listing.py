"""The cases of a matrix before they run: what each must end as, and why. Text only."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from itertools import groupby

from bootproof.dataclass import dataclass
from bootproof.harness.case import Case, Expectation

_WIDTH = 100


@dataclass(frozen=True, slots=True)
class Listed:
    """A case and the claim it belongs to; generated cases are grouped without a claim's reason."""

    case: Case
    claim: str = ""
    why: str = ""


def render(cases: Iterable[Listed]) -> str:
    """The cases by claim. A reason stands at a case only where it is not the claim's."""
    lines: list[str] = []
    for (claim, why), group in groupby(cases, key=lambda listed: (listed.claim, listed.why)):
        if claim:
            lines += ["", *textwrap.wrap(f"{claim}: {why}" if why else claim, _WIDTH)]
        members = list(group)
        width = max(len(listed.case.id) for listed in members)
        for listed in members:
            expected = expected_text(listed.case.expect)
            if listed.case.expect.why not in ("", why):
                expected += f": {listed.case.expect.why}"
            lines.append(f"  {listed.case.id:{width}}  {expected}")
    return "\n".join(lines) + "\n"


def expected_text(expect: Expectation) -> str:
    """booted, pvh present; load-refused (Elf::Overflow), saying "…"."""
    text = expect.verdict.value
    text += f" ({expect.code})" if expect.code else ""
    text += f", pvh {expect.pvh.value}" if expect.pvh else ""
    text += f", through {expect.protocol}" if expect.protocol else ""
    text += f', saying "{expect.reason}"' if expect.reason else ""
    return text
