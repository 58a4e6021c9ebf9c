"""Cases as data: every case comes back from JSON as it was, and a bad file is one clear line."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.harness.case import KEY, Case, Expectation
from bootproof.harness.cases import case_file, schema
from bootproof.harness.cases.schema import Entry, SchemaError, case_from_data, case_to_data
from bootproof.harness.errors import UserError
from bootproof.harness.terms import Placement
from bootproof.harness.verdict import Verdict
from bootproof.loader.result import PvhState

PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1)
CASE = Case(
    *("x86_64", "6.1-cloud-amd64", "elf", "pvh", 16 << 20),
    placement=Placement.MAPPED,
    pvh_relocate=True,
    label="moved",
    expect=Expectation(Verdict.LOAD_REFUSED, PvhState.IGNORED, code="Pvh::X", why="no note"),
)
DATA: dict[str, Any] = {
    "arch": "x86_64",
    "kernel": "6.1-cloud-amd64",
    "format": "elf",
    "protocol": "pvh",
    "offset": "16M",
    "placement": "mapped",
    "pvh_relocate": True,
    "label": "moved",
    "expect": {
        "verdict": "load-refused",
        "pvh": "ignored",
        "code": "Pvh::X",
        "why": "no note",
    },
}


def test_written_as_users_write_it() -> None:
    assert case_to_data(CASE) == DATA
    assert case_from_data(DATA) == CASE


def values(entry: Entry) -> st.SearchStrategy[Any]:
    """Everything that a field can be."""
    if entry.field == "expect":
        return tables(schema.EXPECTATION).map(lambda found: Expectation(**found))
    found: st.SearchStrategy[Any] = PRINTABLE.filter(lambda text: text != "none")
    if entry.choices is not None:
        found = st.sampled_from([*entry.choices]).map(entry.type)
    elif entry.key.plain:
        found = st.from_regex(schema.PLAIN, fullmatch=True)
    elif entry.type is bool:
        found = st.booleans()
    elif entry.type is float:
        found = st.floats(1e-9, 1e9)
    elif entry.type is int:
        found = st.integers(0 if entry.key.size else 1, (1 << 64) - 1)
    return st.none() | found if entry.optional else found


def tables(entries: tuple[Entry, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({entry.field: values(entry) for entry in entries})


@given(tables(schema.CASE))
def test_every_case_comes_back(found: dict[str, Any]) -> None:
    case = Case(**found)
    assert case_from_data(json.loads(json.dumps(case_to_data(case)))) == case


@pytest.mark.parametrize("cls", [Case, Expectation])
def test_every_field_says_what_it_means(cls: type[Case] | type[Expectation]) -> None:
    """A field without a description would be a key that no page explains."""
    assert [found.name for found in fields(cls) if KEY not in found.metadata] == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"protcol": "pvh"}, "unknown key 'protcol'; did you mean 'protocol'?"),
        ({"arch": "mips"}, "arch: unknown value 'mips'; known: aarch64, riscv64, x86_64"),
        ({"placement": "pieces"}, "placement: unknown value 'pieces'; did you mean 'devices'?"),
        ({"protocol": "linux46"}, "protocol: unknown value 'linux46'; did you mean 'linux64'?"),
        ({"memory": True}, "memory: must be a size like 512M, not true"),
        ({"offset": -1}, "offset: must be a size like 16M, none or ram+2M, not the number -1"),
        ({"offset": [0]}, "offset: must be a size like 16M, none or ram+2M, not a list"),
        ({"unsafe": 1}, "unsafe: must be true or false, not the number 1"),
        ({"budget": 0}, "budget: must be at least 1, not 0"),
        ({"budget": True}, "budget: must be instructions like 2G, or 60s, not true"),
        ({"budget_seconds": 0}, "budget_seconds: must be more than 0, not 0"),
        ({"budget_seconds": float("nan")}, "budget_seconds: must be more than 0, not nan"),
        ({"qemu": "/usr/bin/evil"}, "qemu: '/usr/bin/evil' must be of letters, digits and . + _ -"),
        ({"cmdline": "a\n"}, "cmdline: 'a\\n' has characters that cannot be printed"),
        ({"expect": 7}, "expect: must be a table, not the number 7"),
        ({"expect": {"pvh": "gone"}}, "expect.pvh: unknown value 'gone'; known: ignored, not pre"),
        ({"init": "../init"}, "init: unknown value '../init'; did you mean 'init'?"),
    ],
)
def test_what_no_case_can_have(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(SchemaError) as caught:
        case_from_data(DATA | change)
    assert str(caught.value).startswith(problem)


def test_missing_key() -> None:
    with pytest.raises(SchemaError, match=r"^the key 'kernel' is missing$"):
        case_from_data({name: value for name, value in DATA.items() if name != "kernel"})


def test_offset_from_the_start_of_ram() -> None:
    case = case_from_data(DATA | {"arch": "aarch64", "offset": "ram+2M"})
    assert case.offset == (1 << 30) + (2 << 20)
    board = {"arch": "aarch64", "offset": "ram+2M", "machine": "xlnx-zcu102"}
    assert case_from_data(DATA | board).offset == 2 << 20


def test_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / f"my{case_file.SUFFIX}"
    case_file.write_cases(path, [CASE])
    assert case_file.read_cases(path) == [CASE]
    assert [found.name for found in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is no JSON: Expecting property name"),
        ("[" * 100_000, "is no JSON: "),
        ("[]", "must be an object with a list named 'cases'"),
        ('{"version": 9, "cases": []}', "version 9 is not 1"),
        ('{"version": 1, "cases": [7]}', "cases[0]: must be a table, not the number 7"),
        ('{"version": 1, "cases": [{}]}', "cases[0]: the key 'arch' is missing"),
    ],
)
def test_bad_file(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.cases.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        case_file.read_cases(path)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is no directory; name another place"):
        case_file.write_cases(tmp_path / "file" / "my.cases.json", [])
