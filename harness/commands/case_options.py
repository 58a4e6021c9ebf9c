"""The options of one case, for every command that has some: made from the table of them.

The table is bootproof.harness.case; what a value may be is bootproof.harness.cases.schema's.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bootproof.harness.case import Case, short
from bootproof.harness.cases import qemus, schema
from bootproof.harness.cases.schema import Entry, SchemaError
from bootproof.harness.commands.parser import Brief
from bootproof.harness.errors import UserError

KERNEL_HELP: Final = (
    "a [NAME=]file, package (.deb, .rpm), build directory, URL#sha256=… or name of the catalogue"
)


def add_kernel(
    parser: argparse.ArgumentParser, command: str, helps: Mapping[str, str] = {}
) -> None:
    """A kernel, and all that `command` may be asked about it, as `add_options`."""
    parser.add_argument("kernel", metavar="KERNEL", help=KERNEL_HELP)
    add_options(parser, command, helps)


def add_brief_options(parser: argparse.ArgumentParser, title: str, command: str) -> None:
    """The same options for where --help has no room to tell of each."""
    _add_briefly(parser, f"{title} (see `bootproof boot --help`)", schema.options(command))


def add_options(
    parser: argparse.ArgumentParser, command: str, helps: Mapping[str, str] = {}
) -> None:
    """The options that `command` has of a case; `helps` are words of its own for some of them."""
    known = schema.options(command)
    _add(parser, [entry for entry in known if not entry.key.rare], helps)
    rare = [entry for entry in known if entry.key.rare]
    if rare:
        _add_briefly(parser, "seldom needed (docs/scenarios.md)", rare)


def _add_briefly(parser: argparse.ArgumentParser, title: str, entries: Sequence[Entry]) -> None:
    told = ", ".join(_briefly(entry) for entry in entries)
    group = parser.add_argument_group(title, told)
    _add(group, entries, {entry.name: Brief(_help(entry)) for entry in entries})


def _briefly(entry: Entry) -> str:
    """Its name, and what it takes where that is in two parts."""
    form = entry.key.metavar or ""
    return f"{schema.option(entry.name)} {form}" if "=" in form else schema.option(entry.name)


def _add(
    parser: argparse._ActionsContainer, entries: Iterable[Entry], helps: Mapping[str, str]
) -> None:
    for entry in entries:
        told = helps.get(entry.name) or _help(entry)
        _add_option(parser, entry, entry.name, told)
        if entry.key.alias:
            _add_option(parser, entry, entry.key.alias, Brief(told))


def _add_option(parser: argparse._ActionsContainer, entry: Entry, called: str, told: str) -> None:
    name = schema.option(called)
    if entry.type is bool:
        action = argparse.BooleanOptionalAction if entry.default else "store_true"
        parser.add_argument(name, action=action, default=argparse.SUPPRESS, help=told)
        return
    parser.add_argument(
        name,
        dest=entry.name,
        action="append" if entry.key.lines else "store",
        type=_value_of(entry),
        choices=entry.choices,
        metavar=entry.key.metavar or _metavar(entry),
        default=argparse.SUPPRESS,
        help=told,
    )


def words(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    """What was asked for, by the name of the option."""
    names = (entry.name for entry in schema.options(command))
    asked = {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}
    return {
        name: "\n".join(value) if isinstance(value, list) else value
        for name, value in asked.items()
    }


def typed(asked: Mapping[str, Any]) -> str:
    """The words of `words` as they are typed again, each behind a blank."""
    text = ""
    for name, value in asked.items():
        option = schema.option(name, no=value is False)
        if isinstance(value, bool):
            text += f" {option}"
        else:
            many = str(value).split("\n") if name in _LINES else [str(value)]
            text += "".join(f" {option} {shlex.quote(each)}" for each in many)
    return text


_LINES: Final = frozenset(entry.name for entry in schema.CASE if entry.key.lines)


def case(arguments: argparse.Namespace, command: str) -> tuple[Case, dict[str, str]]:
    """The case that was asked for, and the paths of the QEMUs that it names.

    Raises UserError, FetchError and LoaderError.
    """
    from bootproof.harness.cases.from_kernel import case_of

    asked, paths = qemus.of_words(words(arguments, command))
    return case_of(arguments.kernel, asked, command), paths


def _help(entry: Entry) -> str:
    told = entry.key.help or entry.key.about
    words = ", ".join(entry.choices or ()) if "{words}" in told else ""
    told = told.format(about=entry.key.about, words=words)
    if entry.default and entry.type is not bool and not entry.key.help:
        default = short(entry.default) if entry.key.size else entry.default
        told = f"{told} (default: {getattr(default, 'value', default)})"
    return told.replace("%", "%%")


def _metavar(entry: Entry) -> str:
    if entry.key.size:
        return "SIZE"
    if entry.type in (int, float):
        return "N"
    return "FILE" if entry.key.path else "NAME"


def _value_of(entry: Entry) -> Callable[[str], Any]:
    """What reads the option's value; gives it as it was written, once it is known to be one."""

    def value(text: str) -> Any:
        given = schema.from_text(entry, text)
        try:
            if entry.name == "qemu":
                qemus.paths([text])
            elif entry.choices is None:  # argparse has its own words for those
                schema.read(entry, given)
        except UserError as error:
            problem = error.problem if isinstance(error, SchemaError) else str(error)
            raise argparse.ArgumentTypeError(problem) from None
        return given

    return value
