"""The QEMUs that cases name. Only a user may say which programs they are: as NAME=PATH."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bootproof.harness.case import Case
from bootproof.harness.cases import schema
from bootproof.harness.errors import UserError


def paths(words: Sequence[str]) -> dict[str, str]:
    """The paths of `NAME=PATH` words by name. Raises UserError for words that are none."""
    by_name: dict[str, str] = {}
    for word in words:
        name, _, path = word.partition("=")
        if not schema.PLAIN.fullmatch(name) or not path:
            raise UserError(
                f"{word!r} is no NAME=PATH: the ids of cases name the QEMU that they run on;"
                f" write it like {_written_right(word)!r}"
            )
        if name in by_name:
            raise UserError(f"two QEMUs are called {name!r}")
        by_name[name] = path
    return by_name


def _written_right(word: str) -> str:
    """What was meant by `word`: a path without a name, or a name without a path."""
    name, _, path = word.partition("=")
    path = path or ("" if schema.PLAIN.fullmatch(name) else name)
    return f"mine={path}" if path else f"{name or 'old'}=/opt/bin/qemu-system-…"


def of_words(words: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a user asks of a case, with NAME=PATH of its QEMU as two: the name, and its path.

    Raises UserError.
    """
    if "qemu" not in words:
        return dict(words), {}
    by_name = paths([str(words["qemu"])])
    return {**words, "qemu": next(iter(by_name))}, by_name


def axis(cases: Iterable[Case], words: Sequence[str]) -> list[str]:
    """The names of `words` that all cases run on which name no QEMU themselves: those that no case
    names.

    Raises UserError when a case names a QEMU that was not given, or nothing would run on one that
    was.
    """
    given = paths(words)
    named: set[str] = set()
    free = False
    for case in cases:
        if case.qemu is not None and case.qemu not in given:
            raise UserError(f"{case.id}: needs a QEMU; name it with --qemu {case.qemu}=PATH")
        named |= {case.qemu} if case.qemu else set()
        free = free or case.qemu is None
    others = [name for name in given if name not in named]
    if others and not free:
        raise UserError(f"--qemu {others[0]}=…: no case runs on it: each names another QEMU")
    return others
