"""Every exhibit of the museum: the broken image is named, the fixed one is clean."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bootproof import loader
from bootproof.harness.cases import of_image
from bootproof.harness.prepare import Options
from bootproof.harness.report import boot_text
from bootproof.harness.verdict import Verdict
from bootproof.loader.rules import Grade, RuleFinding
from bootproof.scenarios.museum import Exhibit
from bootproof.scenarios.museum.table import EXHIBITS
from tests import ROOT
from tests.docs import generated
from tests.harness.qemu.test_handover_mutations import MUTATIONS

RULE: Final = "rebuilt from the rule"
PAGE: Final = ROOT / "docs" / "museum.md"
EACH = pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)

_NUMBER: Final = re.compile(r"0x[0-9a-f]+|[0-9]+")
# What a sentence has in other words, if at all.
_NOT_IN_WORDS: Final = {
    ("acpi", "address"),
    ("initrd-addr-max", "address"),
    ("xloadflags", "address"),
    ("secondary-cpu", "address"),
    ("dtb-size", "address"),
    ("dtb-size", "limit"),
    ("above-4-gib", "limit"),
    ("cr0-bits", "limit"),
    ("map-count", "limit"),
    ("gdt", "limit"),
    ("memmap", "limit"),
}

# What QEMU spends its whole budget on.
_NOT_STARTED: Final = ("riscv-mmu-on",)
# What QEMU's CPU does not get through, so that the rules speak of the image alone.
_NOT_REACHED: Final = ("user-pages-with-smep", "user-pages-with-smap")


def judged(exhibit: Exhibit, directory: Path, *, fixed: bool) -> tuple[RuleFinding, ...]:
    exhibit.write(directory, fixed=fixed)
    return loader.check(directory)


@EACH
def test_the_broken_image_is_named(exhibit: Exhibit, tmp_path: Path) -> None:
    found = judged(exhibit, tmp_path, fixed=False)
    grades = {finding.code: finding.grade for finding in reversed(found)}
    assert grades.get(exhibit.code) is exhibit.grade, found
    assert exhibit.tolerated == (Grade.VIOLATION not in grades.values())
    assert all(finding.section for finding in found)
    assert [f for f in found if not set(numbers(f)) <= _NOT_IN_WORDS] == []


def numbers(finding: RuleFinding) -> Iterator[tuple[str, str]]:
    """What a program is told of a finding, and a person is not."""
    for name in ("address", "limit"):
        number = getattr(finding, name)
        shown = number is None or {f"{number:#x}", str(number)} & set(
            _NUMBER.findall(finding.sentence)
        )
        if not shown:
            yield finding.code, name


@EACH
def test_the_fixed_image_is_clean(exhibit: Exhibit, tmp_path: Path) -> None:
    assert judged(exhibit, tmp_path, fixed=True) == ()


# Most exhibits start from the same right hand-over: each of those is looked at once.
DISTINCT: Final = {(exhibit.setting, exhibit.fixed): exhibit for exhibit in reversed(EXHIBITS)}
PROBED: Final = [
    *((exhibit, False) for exhibit in EXHIBITS if exhibit.name not in _NOT_STARTED),
    *((exhibit, True) for exhibit in DISTINCT.values()),
]


@pytest.mark.parametrize(
    ("exhibit", "fixed"),
    PROBED,
    ids=[f"{exhibit.name}-{'fixed' if fixed else 'broken'}" for exhibit, fixed in PROBED],
)
def test_the_probe_says_the_same_of_a_real_cpu(
    exhibit: Exhibit, fixed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image"
    image.mkdir()
    exhibit.write(image, fixed=fixed)
    words = {"machine": exhibit.setting.board, "cpu": exhibit.setting.cpu}
    given = {name: word for name, word in words.items() if word}
    case = of_image.case_of(image, {**given, "only_handover": True})
    proven = boot_text.boot(case, tmp_path / "run", Options())
    if fixed or exhibit.tolerated:
        assert proven.verdict is Verdict.HANDED_OVER, proven.reason
        shown = f"entry     tolerated {exhibit.code}: " in capsys.readouterr().out
        assert shown is not fixed
        return
    reached = exhibit.name not in _NOT_REACHED
    wanted = Verdict.PROTOCOL_VIOLATION if reached else Verdict.ENTRY_NOT_REACHED
    assert proven.verdict is wanted, proven.reason
    assert f"{exhibit.code}: " in proven.reason


# --- the list is whole ---------------------------------------------------------------------------


def constants(module: ast.Module) -> dict[str, str]:
    """Names of a module that stand for a text."""
    return {
        target.id: node.value.value
        for node in module.body
        if isinstance(node, ast.AnnAssign | ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else node.targets)
        if isinstance(target, ast.Name)
    }


def codes(module: ast.Module) -> Iterator[str]:
    """A pattern for each code that a rule's module gives to a finding, or to a piece."""
    known = constants(module)
    for node in ast.walk(module):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        where = {"violation": 0, "tolerated": 0, "grade": 0, "unknown": 0, "Piece": 4}
        place = where.get(node.func.id)
        if place is None or len(node.args) <= place:
            continue
        code = node.args[place]
        if isinstance(code, ast.Constant):
            yield re.escape(str(code.value))
        elif isinstance(code, ast.Name) and code.id in known:
            yield re.escape(known[code.id])
        elif isinstance(code, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else r"\w+" for p in code.values)
            yield "".join(map(str, parts))


def test_every_rule_was_seen_broken() -> None:
    """Here, or on a real CPU by the mutations of the hand-over."""
    seen = {exhibit.code for exhibit in EXHIBITS} | {mutation.finding for mutation in MUTATIONS}
    seen.add("mmu-off")  # its test stands there as well
    patterns = {
        code
        for path in (ROOT / "loader" / "rules").glob("*.py")
        for code in codes(ast.parse(path.read_text()))
    }
    assert len(patterns) > 50
    assert {p for p in patterns if not any(re.fullmatch(p, code) for code in seen)} == set()


def test_names_are_unique() -> None:
    names = [exhibit.name for exhibit in EXHIBITS]
    assert len(set(names)) == len(names)


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    rows = []
    for exhibit in EXHIBITS:
        directory = tmp_path / exhibit.name
        directory.mkdir()
        found = judged(exhibit, directory, fixed=False)
        finding = next(f for f in found if (f.code, f.grade) == (exhibit.code, exhibit.grade))
        sentence = finding.sentence.replace("|", "\\|")
        rows.append(
            f"| {exhibit.setting.protocol} | {exhibit.what} | {exhibit.reported or RULE} |"
            f" `{finding.code}` ({finding.grade.value}): {sentence} | {finding.section} |"
        )
    generated.assert_is(PAGE, HEAD + "\n".join([*rows, ""]))


HEAD: Final = """\
# The museum of hand-overs that went wrong

Each line is a mistake of a VMM or a boot loader, rebuilt as a boot image, and the same image
without it. `bootproof check` names the rule that the broken one breaks, and finds nothing in the
other; so does the entry probe on a real QEMU. Where a project and a number stand, it was reported
there (an issue, or a pull request: PR); the others are rebuilt from the rules of the documents, and
no public report of them is known. The tests write this
table: `tests/scenarios/test_museum.py`; the exhibits are in `scenarios/museum/`.

A *violation* breaks what kernels rely on; kernels get by with what is *tolerated*.

| protocol | what happened | reported | what is found | written in |
|---|---|---|---|---|
"""
