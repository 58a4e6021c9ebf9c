"""The two lists of pinned packages: each holds what pyproject.toml asks for, with everything that
needs in turn, and no more: pip is told to look for nothing else. And the system's programs.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import tomllib
from collections.abc import Iterable
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT
from tests.builders import programs

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
USERS: Final = frozenset(PROJECT["dependencies"])
DEVELOPERS: Final = USERS | frozenset(PROJECT["optional-dependencies"]["dev"])
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
MACHINES: Final = ("x86_64", "aarch64")


def pinned(name: str) -> dict[str, str]:
    """The versions of a list, and of the list it begins with, by package."""
    pins: dict[str, str] = {}
    for line in (ROOT / name).read_text("utf-8").splitlines():
        if line.startswith("-r "):
            pins |= pinned(line.removeprefix("-r "))
        elif not line.startswith("#"):
            package, _, version = line.partition("==")
            pins[canonicalize_name(package)] = version
    return pins


def everything_needed(wanted: Iterable[str]) -> dict[str, list[Requirement]]:
    """All that has to be there for `wanted`, by package, as the installed packages say."""
    needed: dict[str, list[Requirement]] = {}
    waiting = [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        if not applies(requirement, extra):
            continue
        name = canonicalize_name(requirement.name)
        if name not in needed:
            waiting += of_package(name, "")
        for wished in requirement.extras:
            waiting += of_package(name, wished)
        needed.setdefault(name, []).append(requirement)
    return needed


def of_package(name: str, extra: str) -> list[tuple[Requirement, str]]:
    said = importlib.metadata.requires(name) or ()
    return [(Requirement(text), extra) for text in said if not extra or extra in text]


def applies(requirement: Requirement, extra: str) -> bool:
    """Whether any Python on any machine that is supported needs it."""
    return requirement.marker is None or any(
        requirement.marker.evaluate(
            {
                "python_version": python,
                "python_full_version": f"{python}.0",
                "platform_machine": machine,
                "extra": extra,
            }
        )
        for python, machine in itertools.product(PYTHONS, MACHINES)
    )


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("requirements.txt", USERS), ("requirements-dev.txt", DEVELOPERS)],
)
def test_a_list_is_complete_consistent_and_has_nothing_else(
    name: str, wanted: frozenset[str]
) -> None:
    pins, needed = pinned(name), everything_needed(wanted)
    assert set(pins) == set(needed)
    unfit = [r for package, rs in needed.items() for r in rs if pins[package] not in r.specifier]
    assert unfit == []


def test_ci_looks_for_and_installs_every_program_that_tests_use() -> None:
    script = (ROOT / ".ci" / "programs").read_text("utf-8")
    pattern = r"for program in (.*);|--no-install-recommends (.*) >"
    looked_for, installed = re.findall(pattern, script)
    assert looked_for[0].split() == sorted(programs.PACKAGES)
    assert installed[1].split() == sorted(" ".join(programs.PACKAGES.values()).split())
