"""Scenario files: claims in TOML -> cases. docs/scenarios.md is the user's page of this.

Owns the grammar above a single case: claims, axes, exceptions. What a key may hold is
bootproof.harness.cases.schema's, which kernels a word means bootproof.harness.cases.kernels'. A
file is data from anybody: it cannot name a program, nor a file outside of its own directory, and
nothing is opened here but the file itself.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness.case import Case, Expectation, labelled
from bootproof.harness.cases import kernels as kernel_names
from bootproof.harness.cases import schema
from bootproof.harness.cases.kernels import NamedKernel
from bootproof.harness.cases.schema import Entry, SchemaError
from bootproof.harness.cases.toml_lines import key_lines
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import read_given
from bootproof.kernels.catalog import Catalog, load_catalog
from bootproof.printable import one_line

SUFFIX: Final = ".toml"
MOST_BYTES: Final = 1 << 20
MOST_OF_ID: Final = 240  # characters of one byte; a file system takes 255, some go for suffixes
MOST_CASES: Final = 10_000  # of one file, those that an exception leaves out too

# A path could be that of any file of its reader's; what is expected has a grammar of its own.
AXES: Final[Mapping[str, Entry]] = {
    entry.name: entry
    for entry in schema.CASE
    if not entry.key.path and not entry.key.derived and entry.field != "expect"
}
EXPECT: Final = tuple(entry for entry in schema.EXPECTATION if entry.field != "why")
CLAIM_KEYS: Final[Mapping[str, str]] = {
    "name": "what the claim is called; once in a file",
    "why": "what is claimed, in words",
    "expect": "what every case must end as; without it: booted",
    "short": "a table like `when`: which of the cases are also part of `bootproof test`",
    "except": "exceptions: an array of tables",
}
EXCEPTION_KEYS: Final[Mapping[str, str]] = {
    "when": "which cases of the claim are meant: values, lists of values or kernel patterns by key",
    "reason": "why they are different; required",
    "omit": "true: they are no cases at all",
    "expect": "what these must end as; merged over the claim's",
}


@dataclass(frozen=True, slots=True)
class Claimed:
    """A case, the claim that it is one instance of, in words, and the line where that begins."""

    case: Case
    claim: str
    why: str
    line: int
    short: bool = False


def read_scenarios(path: Path) -> list[Claimed]:
    """Every case that a file claims, in the order of the file. Raises UserError: FILE:LINE: …"""
    return parse_scenarios(path, _text(path), load_catalog())


def parse_scenarios(path: Path, text: str, catalog: Catalog) -> list[Claimed]:
    """The same for what is, or could be, in the file. Raises UserError."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is no TOML: {one_line(str(error))}") from error
    return expand(path, document, key_lines(text), catalog)


def expand(
    path: Path, document: Mapping[str, Any], lines: Mapping[schema.Path, int], catalog: Catalog
) -> list[Claimed]:
    """The cases of a parsed file; `lines` are those of its keys. Raises UserError."""
    return _Reader(path, document, lines, catalog).file()


def _text(path: Path) -> str:
    try:
        return read_given(path, MOST_BYTES).decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class _Exception:
    """One exception: the values that it is for by field, and what it changes."""

    where: schema.Path
    when: Mapping[str, list[Any]]
    reason: str
    omit: bool
    changes: Mapping[str, Any]
    expect: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    document: Mapping[str, Any]
    lines: Mapping[schema.Path, int]
    catalog: Catalog
    combinations: list[int] = field(default_factory=list)  # of each claim so far

    def file(self) -> list[Claimed]:
        """All claims; every SchemaError becomes one line that says where."""
        try:
            schema.check_keys(("defaults", "claim"), self.document, ())
            schema.check_keys(AXES, self.document.get("defaults", {}), ("defaults",))
        except SchemaError as error:
            raise self.error(error, None) from error
        claims = self.document.get("claim", [])
        if not isinstance(claims, list) or not claims:
            raise UserError(f"{self.path}: has no [[claim]]")
        by_id: dict[str, Claimed] = {}
        names: set[str] = set()
        for number, claim in enumerate(claims):
            name = claim.get("name") if isinstance(claim, dict) else None
            try:
                for claimed in _ClaimReader(self, ("claim", number), claim).cases(names):
                    self._add(by_id, claimed)
            except SchemaError as error:
                raise self.error(error, name) from error
        return list(by_id.values())

    @staticmethod
    def _add(by_id: dict[str, Claimed], claimed: Claimed) -> None:
        id_ = claimed.case.id
        if len(id_) > MOST_OF_ID:
            told = (
                f"an id of {len(id_)} characters is longer than {MOST_OF_ID}: shorten its label or"
            )
            raise SchemaError((), f"{told} the kernel's name: {id_}", ("line", claimed.line))
        if id_ in by_id:
            first = by_id[id_]
            raise SchemaError(
                (),
                f"{id_} is also a case of claim {first.claim!r} on line {first.line};"
                " give one of them a label",
                ("line", claimed.line),
            )
        by_id[id_] = claimed

    def error(self, error: SchemaError, claim: Any) -> UserError:
        named = f" claim {claim!r}:" if isinstance(claim, str) else ""
        return UserError(f"{self.path}:{self.line(error.at)}:{named} {one_line(str(error))}")

    def line(self, at: schema.Path) -> int:
        """The line of what `at` leads to, or of the nearest thing around it."""
        if at[:1] == ("line",):
            return int(at[1])
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)


@dataclass(frozen=True, slots=True)
class _ClaimReader:
    """One [[claim]]: its axes multiplied, its exceptions applied."""

    file: _Reader
    where: schema.Path
    data: Any

    def cases(self, names: set[str]) -> Iterator[Claimed]:
        """Raises SchemaError; `names` are those of earlier claims, and this one's is added."""
        with _at(self.where):
            schema.check_keys((*CLAIM_KEYS, *AXES), self.data, ())
        name, why = self._text("name"), self._text("why")
        if name in names:
            self._refuse("name", f"another claim is called {name!r}")
        if not schema.PLAIN.fullmatch(name):
            self._refuse("name", f"{name!r} must be of letters, digits and . + _ -")
        names.add(name)
        exceptions = [*self._exceptions()]
        short = self._matcher(self.data.get("short", {}), self.where, "short")
        expect = _expectation(self.data.get("expect", {}), self.where)
        used: set[schema.Path] = set()
        some = False
        for values, told_apart_by in self._combinations():
            case = self._case(values, exceptions, expect, why, used)
            if case is not None:
                some, case = True, labelled(case, told_apart_by)
                is_short = bool(short) and self._matches(short, values)
                used |= {(*self.where, "short")} if is_short else set()
                yield Claimed(case, name, why, self.file.line(self.where), is_short)
        wheres = [exception.where for exception in exceptions] + (
            [(*self.where, "short")] if short else []
        )
        for where in wheres:
            if where not in used:
                raise SchemaError((), "matches no case of the claim", (*where, "when"))
        if not some:
            self._refuse(None, "has no case: its kernels and exceptions leave none")

    # --- axes ---

    def _combinations(self) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Every combination of the axes, by field; offsets and kernels depend on the arch.

        With each those values, as they are written, that other combinations have others of.
        """
        axes: dict[str, list[Any]] = {}
        for name, entry in AXES.items():
            values = self._axis(name)
            if values is None:
                if entry.required:
                    self._refuse(None, f"the key {name!r} is missing")
            else:
                axes[name] = values
        count = 1
        for values in axes.values():
            count *= len(values)
        self.file.combinations.append(count)
        if (total := sum(self.file.combinations)) > MOST_CASES:
            self._refuse(None, f"{total} combinations in this file are more than {MOST_CASES}")
        for arch_at in axes.pop("arch"):
            arch = _value(AXES["arch"], *arch_at)
            kernels = list(self._kernels(axes["kernel"], arch))
            others = [name for name in AXES if name in axes and name != "kernel"]
            several = [name for name in others if len(axes[name]) > 1]
            for kernel, *rest in product(kernels, *(axes[name] for name in others)):
                chosen = dict(zip(others, rest, strict=True))
                _, board = chosen.get("machine", (None, None))
                ram = schema.ram_base({"arch": arch, "machine": board})
                read = {
                    AXES[name].field: _value(AXES[name], where, value, ram)
                    for name, (where, value) in chosen.items()
                }
                told_apart_by = {AXES[name].field: chosen[name][1] for name in several}
                yield {"arch": arch, **kernel, **read}, told_apart_by

    def _axis(self, name: str) -> list[tuple[schema.Path, Any]] | None:
        """The values of a key, each with the path to it."""
        where, table = (*self.where, name), self.data
        if name not in self.data:
            where, table = ("defaults", name), self.file.document.get("defaults", {})
        if name not in table:
            return None
        value = table[name]
        if not isinstance(value, list):
            return [(where, value)]
        if not value:
            raise SchemaError((), f"{name}: is an empty list: the claim would have no case", where)
        return [((*where, number), item) for number, item in enumerate(value)]

    # --- kernels ---

    def _kernels(self, axis: list[tuple[schema.Path, Any]], arch: str) -> Iterator[dict[str, Any]]:
        """The kernels that a list of names, patterns and paths means, each once."""
        catalog, directory = self.file.catalog, self.file.path.absolute().parent
        kernels: dict[str, NamedKernel] = {}
        for where, value in axis:
            text = _value(AXES["kernel"], where, value)
            with _at(where):
                named = kernel_names.named(text.removeprefix("!"), arch, catalog, directory)
            for name in named:
                if text.startswith("!"):
                    kernels.pop(name, None)
                elif kernels.setdefault(name, named[name]) != named[name]:
                    raise SchemaError((), f"kernel: two different ones are called {name!r}", where)
        for name, kernel in kernels.items():
            yield {"kernel": name, "kernel_path": kernel.path, "kernel_role": kernel.role}

    # --- cases and exceptions ---

    def _case(
        self,
        values: Mapping[str, Any],
        exceptions: list[_Exception],
        expect: Mapping[str, Any],
        why: str,
        used: set[schema.Path],
    ) -> Case | None:
        """The case of one combination; None when an exception leaves it out."""
        changed, where = dict(values), self.where
        expected = dict(expect)
        for exception in exceptions:
            if not self._matches(exception.when, values):
                continue
            used.add(exception.where)
            if exception.omit:
                return None
            where, why = exception.where, exception.reason
            changed.update(exception.changes)
            # Another verdict has nothing in common with what the claim expects of its own.
            kept = {} if "verdict" in exception.expect else expected
            expected = {**kept, **exception.expect}
        case = Case(**changed, expect=Expectation(**expected, why=why))
        self._check(case, where)
        return case

    def _check(self, case: Case, where: schema.Path) -> None:
        contradiction = schema.contradiction(case)
        if contradiction is None:
            return
        name, problem = contradiction
        at = (*where, name)
        if at not in self.file.lines:
            at = (*self.where, name)
        if at not in self.file.lines:
            at = ("defaults", name)
        raise SchemaError((), f"{name}: {problem}", at if at in self.file.lines else where)

    def _exceptions(self) -> Iterator[_Exception]:
        exceptions = self.data.get("except", [])
        if not isinstance(exceptions, list):
            self._refuse(
                "except", f"except: must be [[claim.except]], not {schema.described(exceptions)}"
            )
        for number, data in enumerate(exceptions):
            where = (*self.where, "except", number)
            with _at(where):
                schema.check_keys((*EXCEPTION_KEYS, *AXES), data, ())
            when = self._matcher(data.get("when", {}), where, "when")
            if not when:
                raise SchemaError((), "an exception needs `when`: which cases it is for", where)
            if not isinstance(data.get("reason"), str) or not data["reason"].strip():
                raise SchemaError((), "an exception needs a `reason`", where)
            changes = {
                AXES[name].field: _value(AXES[name], (*where, name), value, self._ram())
                for name, value in data.items()
                if name in AXES
            }
            if "kernel" in changes or "arch" in changes:
                raise SchemaError((), "an exception cannot change the kernel or the arch", where)
            omit = data.get("omit", False)
            if type(omit) is not bool:
                raise SchemaError((), "omit: must be true or false", (*where, "omit"))
            expect = _expectation(data.get("expect", {}), where)
            if not (omit or changes or expect):
                raise SchemaError((), "the exception changes nothing", where)
            yield _Exception(where, when, data["reason"], omit, changes, expect)

    def _matcher(self, data: Any, where: schema.Path, key: str) -> dict[str, list[Any]]:
        """What `when` or `short` says: the allowed values by field, kernels as patterns."""
        with _at(where):
            schema.check_keys(AXES, data, (key,))
        matches: dict[str, list[Any]] = {}
        for name, value in data.items():
            listed = value if isinstance(value, list) else [value]
            entry, at = AXES[name], (*where, key, name)
            matches[entry.field] = [_value(entry, at, item, self._ram()) for item in listed]
        return matches

    @staticmethod
    def _matches(when: Mapping[str, list[Any]], values: Mapping[str, Any]) -> bool:
        def has(field: str, allowed: list[Any]) -> bool:
            if field == "kernel":
                return any(fnmatchcase(values[field], pattern) for pattern in allowed)
            return values.get(field, _DEFAULTS[field]) in allowed

        return all(has(field, allowed) for field, allowed in when.items())

    def _ram(self) -> int:
        """Where `ram+…` counts from in an exception: arch and machine of the claim, if it has one
        of each.
        """
        given = {name: self._axis(name) or [] for name in ("arch", "machine")}
        return schema.ram_base(
            {name: values[0][1] for name, values in given.items() if len(values) == 1}
        )

    def _text(self, name: str) -> str:
        text = self.data.get(name)
        if not isinstance(text, str) or not text.strip():
            wrong = "must be a text" if name in self.data else "is missing"
            self._refuse(name if name in self.data else None, f"the key {name!r} {wrong}")
        return str(text)

    def _refuse(self, name: str | None, problem: str) -> None:
        at = self.where if name is None else (*self.where, name)
        raise SchemaError((), problem, at)


@contextlib.contextmanager
def _at(where: schema.Path) -> Iterator[None]:
    """Where in the file a SchemaError inside is: the table that its own path begins in."""
    try:
        yield
    except SchemaError as error:
        raise SchemaError((), str(error), (*where, *error.at)) from None


def _value(entry: Entry, where: schema.Path, value: Any, ram: int = 0) -> Any:
    with _at(where):
        return schema.read(entry, value, (), ram)


def _expectation(data: Any, where: schema.Path) -> dict[str, Any]:
    with _at(where):
        return schema.read_table(EXPECT, data, ("expect",))


_DEFAULTS: Final = {entry.field: entry.default for entry in schema.CASE}
