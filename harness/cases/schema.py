"""A case as data: the one place that knows how each field of Case is written and read.

Made from the fields of Case and Expectation (bootproof.harness.case), so that a new field is at
once a key of scenario files and of JSON, an option, a word of the fixtures, and in
docs/scenarios.md. Reads values only: knows no files, no lines, no axes, and no argparse. Nothing
here runs or opens what it reads.
"""

from __future__ import annotations

import contextlib
import enum
import re
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness import command_line
from bootproof.harness.arch.profiles import DEFAULT_PROFILE, PROFILES
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import KEY, Case, Expectation, Key, short
from bootproof.harness.errors import UsageError
from bootproof.harness.qemu.clock import ICOUNT_SHIFT
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB, parse_size
from bootproof.loader.formats import Format
from bootproof.loader.protocols.table import AUTO, PROTOCOLS, PVH

Path = tuple[str | int, ...]

PLAIN: Final = re.compile(r"[A-Za-z0-9.+_-]{1,80}", re.ASCII)
NONE: Final = "none"
AS_IT_IS: Final = "file"
_RAM: Final = "ram+"
_MOST_DIGITS: Final = 20


class SchemaError(UsageError):
    """A value that a case cannot have. `path` leads to it, as ("expect", "verdict"); `at` also to
    a key that should not be there.
    """

    def __init__(self, path: Path, problem: str, at: Path | None = None) -> None:
        names = ".".join(name for name in path if isinstance(name, str))
        super().__init__(f"{names}: {problem}" if names else problem)
        self.problem = problem
        self.at = path if at is None else at


@dataclass(frozen=True, slots=True)
class Entry:
    """One key."""

    # As users write it.
    name: str
    # As the code calls it.
    field: str
    key: Key
    type: type[Any]
    # Whether it may be nothing.
    optional: bool
    default: Any
    # All the words that are allowed; None where any text is.
    choices: Collection[str] | None

    @property
    def required(self) -> bool:
        return self.default is MISSING


class _Words(Collection[str]):
    """Words that are looked up when somebody asks for them: most commands never do."""

    def __init__(self, look: Callable[[], Iterable[str]]) -> None:
        self._look = look

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._look()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, word: object) -> bool:
        return any(word == known for known in self)


def _boards() -> Iterable[str]:
    return (board for arch in ARCHES.values() for board in arch.boards)


def _variants() -> Iterable[str]:
    from bootproof.harness.inputs import variants

    return variants.VARIANTS


def _damages() -> Iterable[str]:
    from bootproof.harness.inputs import damage

    return damage.DAMAGES


def _inits() -> Iterable[str]:
    from bootproof.loader import initramfs

    return initramfs.inits()


# The words that a text may be, from the tables that own them.
_CHOICES: Final[Mapping[tuple[type, str], Collection[str]]] = {
    (Case, "arch"): tuple(ARCHES),
    (Case, "format"): (*(f.value for f in Format if f.loadable), AS_IT_IS),
    (Case, "protocol"): (AUTO, *PROTOCOLS),
    (Case, "board"): _Words(_boards),
    (Case, "variant"): _Words(_variants),
    (Case, "accel"): ("tcg", "kvm"),
    (Case, "init"): _Words(_inits),
    (Case, "profile"): PROFILES,
    (Case, "damage"): _Words(_damages),
    (Expectation, "protocol"): tuple(PROTOCOLS),
}


def _entry(cls: type, declared: Field[Any], hint: Any) -> Entry:
    optional = isinstance(hint, types.UnionType)
    kind = next(t for t in hint.__args__ if t is not type(None)) if optional else hint
    key: Key = declared.metadata.get(KEY, Key(""))
    choices = _CHOICES.get((cls, declared.name))
    if issubclass(kind, enum.Enum):
        choices = tuple(member.value for member in kind)
    return Entry(
        name=key.name or declared.name,
        field=declared.name,
        type=kind,
        optional=optional,
        default=declared.default,
        key=key,
        choices=choices,
    )


def _entries(cls: type[Case] | type[Expectation]) -> tuple[Entry, ...]:
    # Forty fields are of eight types: to compile what each says takes every command a millisecond.
    said = types.SimpleNamespace(__annotations__={one.type: one.type for one in fields(cls)})
    kinds = typing.get_type_hints(said, vars(sys.modules[cls.__module__]))
    return tuple(_entry(cls, one, kinds[str(one.type)]) for one in fields(cls))


CASE: Final = _entries(Case)
EXPECTATION: Final = _entries(Expectation)


def options(command: str) -> tuple[Entry, ...]:
    """What a command has options for."""
    return tuple(entry for entry in CASE if command in entry.key.commands)


def option(name: str, *, no: bool = False) -> str:
    """How a key is written on a command line; `no` for the opposite of a truth value."""
    return f"--{'no-' * no}{name.replace('_', '-')}"


# --- reading -----------------------------------------------------------------------------------


def case_from_data(data: Mapping[str, Any]) -> Case:
    """A case as it is written by `case_to_data`. Raises SchemaError."""
    return Case(**read_table(CASE, data, (), ram_base(data) if isinstance(data, Mapping) else 0))


def ram_base(data: Mapping[str, Any]) -> int:
    """Where RAM begins, guest-physical, for `ram+…` in `data`, which need not be right."""
    arch = ARCHES.get(str(data.get("arch")))
    return arch.ram_base(str(data.get("machine"))) if arch else 0


def read_table(entries: Iterable[Entry], data: Any, path: Path, ram: int = 0) -> dict[str, Any]:
    """The values of a table by field; every required key must be there. Raises SchemaError."""
    known = {entry.name: entry for entry in entries}
    check_keys(known, data, path)
    for name, entry in known.items():
        if entry.required and name not in data:
            raise SchemaError(path, f"the key {name!r} is missing")
    return {known[name].field: read(known[name], data[name], path, ram) for name in data}


def check_keys(known: Iterable[str], data: Any, path: Path, what: str = "key") -> None:
    """Raises SchemaError when `data` is no table, or has a key that is not `known`."""
    if not isinstance(data, Mapping):
        raise SchemaError(path, f"must be a table, not {described(data)}")
    names = list(known)
    for name in data:
        if name not in names:
            raise SchemaError(path, unknown(what, name, names), (*path, name))


def read(entry: Entry, value: Any, path: Path = (), ram: int = 0) -> Any:
    """The value of one key; `ram` is where RAM begins, guest-physical. Raises SchemaError."""
    path = (*path, entry.name)
    if entry.optional and value == NONE:
        return None
    if issubclass(entry.type, Expectation):
        return Expectation(**read_table(EXPECTATION, value, path))
    if entry.key.size:
        return _read_size(entry, value, path, ram)
    if entry.key.instructions:
        return _read_instructions(entry, value, path)
    return _read_plain(entry, value, path)


def _read_plain(entry: Entry, value: Any, path: Path) -> Any:
    wanted = str if issubclass(entry.type, enum.Enum) else entry.type
    if type(value) is not wanted and not (wanted is float and type(value) is int):
        raise SchemaError(path, f"must be {_KINDS[wanted]}, not {described(value)}")
    if wanted is float and not 0 < float(value) < float("inf"):
        raise SchemaError(path, f"must be more than 0, not {value}")
    if type(value) is int and value < 1:
        raise SchemaError(path, f"must be at least 1, not {value}")
    allowed = "\t\n" if entry.key.lines else "\t"
    any_bytes = entry.key.path or entry.key.raw
    if wanted is str and not any_bytes and not _printable(str(value), allowed):
        raise SchemaError(path, f"{value!r} has characters that cannot be printed")
    if wanted is str and not entry.choices and not (entry.key.empty or str(value).strip()):
        raise SchemaError(
            path, "an empty name is that of no file" if entry.key.path else "is empty"
        )
    if entry.key.plain and not PLAIN.fullmatch(str(value)):
        raise SchemaError(path, f"{value!r} must be of letters, digits and . + _ -")
    if entry.choices is not None and value not in entry.choices:
        raise SchemaError(path, unknown("value", str(value), entry.choices))
    return entry.type(value)


def _printable(text: str, allowed: str) -> bool:
    return all(c in allowed or c.isprintable() for c in text)


def from_text(entry: Entry, text: str) -> Any:
    """A word of a command line or a filter as `read` takes it: a number is no text there."""
    if entry.type is bool and text in ("true", "false"):
        return text == "true"
    whole = entry.type is int and not (entry.key.size or entry.key.instructions)
    if whole and text.isascii() and text.isdecimal():
        return int(text[:_MOST_DIGITS])
    if entry.type is float:
        with contextlib.suppress(ValueError):
            return float(text)
    return text


def _read_size(entry: Entry, value: Any, path: Path, ram: int) -> int:
    if type(value) is int and value >= 0:
        value = str(value)
    if type(value) is not str:
        example = "16M, none or ram+2M" if entry.key.offset else "512M"
        raise SchemaError(path, f"must be a size like {example}, not {described(value)}")
    from_ram = entry.key.offset and value.startswith(_RAM)
    try:
        return parse_size(value.removeprefix(_RAM) if from_ram else value) + (
            ram if from_ram else 0
        )
    except ValueError as error:
        raise SchemaError(path, str(error)) from None


def _read_instructions(entry: Entry, value: Any, path: Path) -> int:
    """A number of guest instructions, or guest seconds as those that they take."""
    if type(value) is int:
        return int(_read_plain(entry, value, path))
    match = _INSTRUCTIONS.fullmatch(value) if type(value) is str else None
    if match is None:
        raise SchemaError(path, f"must be instructions like 2G, or 60s, not {described(value)}")
    number, unit = float(match[1]), match[2]
    if not unit and number < _LEAST:
        raise SchemaError(
            path,
            f"{value} what? Wall time ends no boot here, or a busy host would be a failing"
            f" guest: write {value}s for guest seconds ({_A_SECOND // 10**6} million"
            " instructions each), or instructions, like 2G",
        )
    count = int(number * (_A_SECOND if unit == "s" else _DECIMAL[unit]))
    return int(_read_plain(entry, count, path))


_INSTRUCTIONS: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)([KMG]?|s)", re.ASCII)
_DECIMAL: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_A_SECOND: Final = 10**9 >> ICOUNT_SHIFT
_LEAST: Final = 100_000  # instructions: in fewer no kernel does anything


_KINDS: Final[Mapping[type, str]] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}


# The axes by which a matrix is selected, and its options for that.
FILTERS: Final[Mapping[str, str]] = {
    "arch": "--arch",
    "kernel": "--kernel-name",  # --kernel is the user's own
    "protocol": "--protocol",
    "offset": "--offset",
}


def described(value: Any) -> str:
    """What a value is, for a sentence that says that it should be something else."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value!r}"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, list):
        return "a list"
    return "a table" if isinstance(value, dict) else f"a {type(value).__name__}"


def unknown(what: str, word: str, known: Iterable[str]) -> str:
    """Why a word is wrong, with the nearest right one, or all of them."""
    import difflib  # for what is wrong

    names = sorted(known)
    near = difflib.get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
    return f"unknown {what} {word!r}; {hint}"


def _unexpectable(expect: Expectation) -> str | None:
    """Why nothing can end as expected."""
    if expect.verdict is Verdict.INTERRUPTED:
        return "no case can expect interrupted: it says nothing of a guest"
    if expect.code is not None and expect.verdict is not Verdict.LOAD_REFUSED:
        return f"a code is of load-refused, not of {expect.verdict.value}"
    return None


def contradiction(case: Case) -> tuple[str, str] | None:
    """A key whose value does not go with another one, and why; None when all can be built."""
    arch = ARCHES[case.arch]
    boards = ", ".join(arch.boards)
    protocol = PROTOCOLS.get(case.protocol)
    if case.board is not None and case.board not in arch.boards:
        return "machine", f"{case.board} is not of {arch.name}; known there: {boards}"
    if protocol is not None and arch.name != protocol.arch.name:
        return "protocol", f"{case.protocol} is of {protocol.arch.name}, not of {arch.name}"
    if case.memory % MIB or not MIB <= case.memory <= arch.most_memory(case.board):
        limit = f"{short(arch.most_memory(case.board))} of {case.board or arch.name}"
        return "memory", f"{short(case.memory)} is not a whole number of MiB from 1M to the {limit}"
    if case.accel != "tcg":
        return "accel", "kvm counts no guest instructions, and no two runs are alike; use tcg"
    if case.smp > (most := arch.most_cpus(case.board)):
        return "smp", f"{case.smp} CPUs are more than the {most} of {case.board or arch.name}"
    if case.cmdline is not None and case.profile != DEFAULT_PROFILE:
        return "profile", "is one of our own command lines; there is a cmdline already"
    if (moved := _moved_twice(case)) is not None:
        return moved
    if (why := _unexpectable(case.expect)) is not None:
        return "expect", why
    if case.dtb is not None and not arch.device_tree:
        return "dtb", f"kernels of {arch.name} are given no device tree"
    line = command_line.appended(case.cmdline or "", case.append)
    why = command_line.problem(line, initrd=case.initrd is not None)
    return None if why is None else ("append" if case.append else "cmdline", why)


def _moved_twice(case: Case) -> tuple[str, str] | None:
    """What is wrong with how the kernel is moved."""
    if case.virtual_offset is not None and case.kaslr_seed is not None:
        return "kaslr_seed", "virtual_offset says already how far the kernel is moved"
    if case.pvh_relocate and (case.offset is None or case.protocol not in (PVH, AUTO)):
        return "pvh_relocate", "needs an offset, and the protocol pvh"
    if case.moved_virtually and case.format == Format.BZIMAGE.value:
        return "format", "a bzImage chooses its virtual address itself; write elf, or auto"
    return None


# --- writing -----------------------------------------------------------------------------------


def case_to_data(case: Case) -> dict[str, Any]:
    """The case as plain data for JSON and TOML; what is as by default is left out."""
    return _write_all(case)


def _write_all(thing: Case | Expectation) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for entry in CASE if isinstance(thing, Case) else EXPECTATION:
        value = getattr(thing, entry.field)
        if value != entry.default:
            data[entry.name] = _write(entry, value)
    return data


def _write(entry: Entry, value: Any) -> Any:
    if isinstance(value, Expectation):
        return _write_all(value)
    if isinstance(value, enum.Enum):
        return value.value
    if value is None:
        return NONE
    return short(value) if entry.key.size else value
