"""The reference part of docs/scenarios.md, made from the tables that validation uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from bootproof.harness.case import COMMANDS, MATRIX, short
from bootproof.harness.cases.scenarios import AXES, CLAIM_KEYS, EXCEPTION_KEYS, EXPECT
from bootproof.harness.cases.schema import CASE, Entry, option
from tests import ROOT

PAGE: Final = ROOT / "docs" / "scenarios.md"
BEGIN: Final = "<!-- made by tests/docs/test_scenarios_page.py; do not edit from here -->\n"
END: Final = "<!-- to here -->\n"
_WORDS_SHOWN: Final = 20


def reference() -> str:
    """The tables of all keys, as Markdown."""
    parts = [
        ("Keys of `[[claim]]`", _texts(CLAIM_KEYS)),
        ("Keys of `[[claim.except]]`", _texts(EXCEPTION_KEYS)),
        ("Axes: keys of a case", _entries(AXES.values())),
        ("Keys of `expect`", _entries(EXPECT)),
        ("The same as options", _options()),
    ]
    return "\n".join(f"### {title}\n\n{table}" for title, table in parts)


def _options() -> str:
    """Which command has which key as an option."""
    heads = [f"`{name}{' --kernel' * (name == MATRIX)}`" for name in COMMANDS]
    rows = [
        f"| {', '.join(f'`{option(n)}`' for n in (entry.name, entry.key.alias) if n)} | "
        + " | ".join("✓" if name in entry.key.commands else "" for name in COMMANDS)
        + " |"
        for entry in CASE
        if entry.key.commands
    ]
    head = f"| option | {' | '.join(heads)} |"
    text = (
        "`--qemu` takes NAME=PATH, where a file names the QEMU only; PATH may be a directory.\n"
        "`matrix` has a `--qemu` of its own, for all cases; it may be repeated.\n"
    )
    return "\n".join([head, "|---" * (len(heads) + 1) + "|", *rows, "", text])


def _texts(keys: Mapping[str, str]) -> str:
    rows = [f"| `{name}` | {about} |" for name, about in keys.items()]
    return "\n".join(["| key | meaning |", "|---|---|", *rows, ""])


def _entries(entries: Iterable[Entry]) -> str:
    rows = [f"| `{e.name}` | {_values(e)} | {_default(e)} | {e.key.about} |" for e in entries]
    return "\n".join(["| key | values | without it | meaning |", "|---|---|---|---|", *rows, ""])


def _values(entry: Entry) -> str:
    if entry.choices is not None:
        words = [f"`{word}`" for word in entry.choices]
        return ", ".join(words[:_WORDS_SHOWN])
    if entry.key.offset:
        return "an address, like `16M` or `0x1000`; `ram+2M`; `none`"
    if entry.key.size:
        return "a size, like `512M`"
    if entry.type is bool:
        return "`true`, `false`"
    if entry.type is int:
        return "a whole number from 1"
    if entry.type is float:
        return "a number"
    return "letters, digits and `.+_-`" if entry.key.plain else "a text"


def _default(entry: Entry) -> str:
    if entry.required:
        return "an error"
    if entry.default in (None, ""):
        return "none" if entry.key.offset else "-"
    if entry.type is bool:
        return f"`{str(entry.default).lower()}`"
    value = short(entry.default) if entry.key.size else entry.default
    return f"`{getattr(value, 'value', value)}`"


def updated(page: str) -> str:
    """The page with today's reference in it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has lost the marks around its generated part")
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"
