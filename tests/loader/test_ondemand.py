"""Tables whose values are imported when they are asked for, and those that there are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.arch.arch import Arch
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.commands import Command
from bootproof.loader.arch import Architecture
from bootproof.loader.arch.importing import Importing
from bootproof.loader.arch.table import ARCHITECTURES, IMPORTING
from bootproof.loader.assemble import LOADERS
from bootproof.loader.ondemand import OnDemand
from bootproof.loader.protocols.protocol import BootProtocol
from bootproof.loader.protocols.table import PROTOCOLS

PACKAGE = "ondemand_of_a_test"


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OnDemand[int]:
    """Of a package with two modules, of which `none` cannot be imported."""
    (tmp_path / PACKAGE).mkdir()
    for name, text in {"__init__": "", "one": "VALUE = 1\n", "none": "raise OSError\n"}.items():
        (tmp_path / PACKAGE / f"{name}.py").write_text(text, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (PACKAGE, f"{PACKAGE}.one", f"{PACKAGE}.none"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return OnDemand(PACKAGE, {"none": "none.VALUE", "one": "one.VALUE"})


def test_who_asks_for_names_imports_nothing(numbers: OnDemand[int]) -> None:
    assert (list(numbers), len(numbers)) == (["none", "one"], 2)
    assert "none" in numbers and "two" not in numbers
    assert numbers.get("two") is None
    assert f"{PACKAGE}.one" not in sys.modules


def test_who_asks_for_a_value_imports_that_module_alone(numbers: OnDemand[int]) -> None:
    assert numbers["one"] == 1
    assert f"{PACKAGE}.one" in sys.modules
    with pytest.raises(OSError):
        numbers["none"]
    with pytest.raises(KeyError, match="two"):
        numbers["two"]


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        (ARCHES, Arch),
        (ARCHITECTURES, Architecture),
        (IMPORTING, Importing),
        (PROTOCOLS, BootProtocol),
        (LOADERS, type),
        (cli.COMMANDS, Command),
    ],
    ids=["ARCHES", "ARCHITECTURES", "IMPORTING", "PROTOCOLS", "LOADERS", "COMMANDS"],
)
def test_every_row_leads_to_a_value_of_its_kind_and_name(
    table: Mapping[str, object], kind: type
) -> None:
    """The type checker cannot know where a row leads."""
    for name, value in table.items():
        assert isinstance(value, kind), name
        assert getattr(value, "name", name) == name


def test_the_tables_of_architectures_have_the_same_rows() -> None:
    assert list(ARCHES) == list(ARCHITECTURES) == list(IMPORTING)
