"""Tables of things that have a module each: a module is imported when its thing is asked for.

Owns nothing but that. What names there are, and in which order, is known without any of them; who
asks for all values imports all modules. A test holds that
every row leads to a value of the table's type.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import TypeVar

V = TypeVar("V")


class OnDemand(Mapping[str, V]):
    """Values by name, out of modules of one package.

    A row is the name, and where its value is: "module.ATTRIBUTE".
    """

    def __init__(self, package: str, places: Mapping[str, str]) -> None:
        self._package = package
        self._places = places

    def __getitem__(self, name: str) -> V:
        module, _, attribute = self._places[name].rpartition(".")
        value: V = getattr(importlib.import_module(f"{self._package}.{module}"), attribute)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, name: object) -> bool:  # Mapping's own asks for the value
        return name in self._places
