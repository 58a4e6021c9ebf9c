"""Frozen dataclasses as JSON: written, and read strictly, by the types that they declare.

A field's metadata says what it means (`about`); published schemas are made from the same types
(tests/docs/results_schema.py). Known types: str, int, float, bool, None in a union, tuple[X, ...],
Sequence[X] (which is read as one), Mapping[str, X], object (any JSON), enums of texts, dataclasses.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, field
from enum import Enum
from typing import Any, Final, TypeVar

from bootproof.loader import strictjson
from bootproof.printable import safe

ABOUT: Final = "about"
_LINES: Final = "lines"
_MOST_ITEMS: Final = 1_000_000
_TEXT_LIMIT: Final = 8 << 20  # characters
_INTEGER_LIMIT: Final = 1 << 64
_FLOAT_LIMIT: Final = 1e15  # of seconds; sums of them are numbers still, and no infinity
T = TypeVar("T")


def about(text: str, *, lines: bool = False, **others: Any) -> Any:
    """A dataclass field that says what it means; `lines` allows text of more than one line."""
    return field(metadata={ABOUT: text, _LINES: lines}, **others)


def to_json(value: object) -> Any:
    """Plain data for json.dumps."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    return value.value if isinstance(value, Enum) else value


def from_json(cls: type[T], data: object, path: str = "$") -> T:
    """A dataclass from plain data. Raises ValueError with the JSON path and what is wrong there."""
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]  # mypy: a type is no key
    known = dataclasses.fields(cls)  # type: ignore[arg-type]
    required = [f.name for f in known if not has_default(f)]
    optional = [f.name for f in known if has_default(f)]
    items = strictjson.record(data, path, required, optional)
    lines = {f.name for f in known if f.metadata.get(_LINES)}
    return cls(
        **{
            name: _shown(_read(hints[name], value, strictjson.below(path, name)), name in lines)
            for name, value in items.items()
        }
    )


def _shown(value: Any, lines: bool) -> Any:
    """Text as what we write is: the file may be a stranger's, and is going to be shown."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return safe(value, "\t\n" if lines else "\t")
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return tuple(_shown(item, lines) for item in value)
    if isinstance(value, dict):
        return {safe(key): _shown(item, lines) for key, item in value.items()}
    return value


_hints = functools.cache(typing.get_type_hints)


def has_default(item: Field[Any]) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def _read(kind: Any, value: object, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (other,) = [a for a in arguments if a is not type(None)]
        return None if value is None else _read(other, value, path)
    if origin in (tuple, Sequence):
        items = strictjson.array(value, path, 0, _MOST_ITEMS)
        return tuple(_read(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items))
    if origin is not None:  # Mapping[str, X]
        return {
            key: _read(arguments[1], item, strictjson.below(path, key))
            for key, item in strictjson.mapping(value, path).items()
        }
    if dataclasses.is_dataclass(kind):
        return from_json(kind, value, path)  # type: ignore[arg-type]
    return value if kind is object else _scalar(kind, value, path)


def _scalar(kind: Any, value: object, path: str) -> Any:
    if issubclass(kind, Enum):
        return kind(strictjson.one_of(value, path, tuple(each.value for each in kind)))
    if kind is str:
        return _text(value, path)
    if kind is bool and isinstance(value, bool):
        return value
    numeric = not isinstance(value, bool)
    if kind is int and isinstance(value, int) and numeric and 0 <= value < _INTEGER_LIMIT:
        return value
    if kind is float and isinstance(value, int | float) and numeric and 0 <= value < _FLOAT_LIMIT:
        return float(value)
    raise ValueError(f"{path}: expected {_NAMES[kind]}, found {strictjson.shown(value)}")


def _text(value: object, path: str) -> str:
    """Text that can be written again: half of a surrogate pair is no character."""
    text = strictjson.text(value, path, _TEXT_LIMIT)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: character {error.start} is half of a pair") from None
    return text


_NAMES: Final = {bool: "true or false", int: "a whole number", float: "a number"}
