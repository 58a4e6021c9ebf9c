"""JSON from strangers: bounded, strict, and every refusal names the JSON path and the reason.

Owns what a number, a text, a list and an object may look like in files of ours. Knows no format:
callers say which keys there are. Raises ValueError with one printable line, whatever is in the
file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final, NoReturn

from bootproof.loader.address import U64_MAX, counted

_NUMBER: Final = re.compile(r"0x[0-9a-fA-F]{1,40}|[0-9]{1,40}", re.ASCII)
_PLAIN_KEY: Final = re.compile(r"\w{1,40}", re.ASCII)
_SHOWN: Final = 60  # characters of a stranger's value that a message repeats
_TYPES: Final = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}


def parse(raw: bytes) -> object:
    """The value in a UTF-8 JSON text, without repeated keys, NaN or Infinity."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=_without_repetition,
            parse_constant=_no_constant,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deeply") from None
    return value


def record(
    data: object, path: str, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, object]:
    """An object that has all `required` keys and no others but `optional` ones."""
    items = mapping(data, path)
    known = [*required, *optional]
    for key in items:
        if key not in known:
            near = _nearest(key, known)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{below(path, key)}: unknown key; {hint}")
    for key in required:
        if key not in items:
            raise ValueError(f"{path}.{key}: required and missing")
    return items


def mapping(data: object, path: str) -> dict[str, object]:
    """An object with any keys."""
    if not isinstance(data, dict):
        raise ValueError(f"{path}: expected an object, found {shown(data)}")
    return data


def array(data: object, path: str, least: int, most: int) -> list[object]:
    """A list of `least` to `most` items."""
    if not isinstance(data, list):
        raise ValueError(f"{path}: expected a list, found {shown(data)}")
    if not least <= len(data) <= most:
        wanted = counted(most, "item") if least == most else f"{least} to {most} items"
        raise ValueError(f"{path}: expected {wanted}, found {len(data)}")
    return data


def number(value: object, path: str) -> int:
    """An unsigned 64-bit number: an integer, or a string such as "0x1000" or "4096"."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = int(value, 16 if value.startswith("0x") else 10)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(
            f'{path}: expected a number such as 4096 or "0x1000", found {shown(value)}'
        )
    if not 0 <= value <= U64_MAX:
        raise ValueError(f"{path}: {_hex(value)} is not an unsigned 64-bit number")
    return value


def text(value: object, path: str, most: int) -> str:
    """A string of at most `most` characters without NUL."""
    if not isinstance(value, str):
        raise ValueError(f"{path}: expected a string, found {shown(value)}")
    if len(value) > most:
        raise ValueError(f"{path}: has {len(value)} characters, at most {most} are allowed")
    if "\0" in value:
        raise ValueError(f"{path}: has a NUL character in it")
    return value


def _nearest(word: str, known: Sequence[str]) -> list[str]:
    import difflib  # for what is wrong

    return difflib.get_close_matches(word[:_SHOWN], known, 1)


def one_of(value: object, path: str, known: Sequence[str]) -> str:
    """One of the strings `known`."""
    if isinstance(value, str) and value in known:
        return value
    near = _nearest(value, known) if isinstance(value, str) else []
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ValueError(f"{path}: {shown(value)} is not one of {', '.join(known)}{hint}")


def below(path: str, key: str) -> str:
    """The path of a member, fit for a message whatever the key is."""
    return f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{shown(key)}]"


def shown(value: object) -> str:
    """A value in a message: its type, and itself where it is short; always printable ASCII."""
    if value is None:
        return "null"
    if isinstance(value, str):
        quoted = json.dumps(value[:_SHOWN])
        return f"{quoted[:_SHOWN]}…" if len(value) > _SHOWN or len(quoted) > _SHOWN else quoted
    if isinstance(value, float):
        return f"{value!r}"
    if isinstance(value, int) and not isinstance(value, bool):
        return _hex(value)
    return _TYPES.get(type(value), type(value).__name__)


def _hex(value: int) -> str:
    digits = hex(value)
    return digits if len(digits) <= 24 else f"{digits[:20]}… ({value.bit_length()} bits)"


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    items: dict[str, object] = {}
    for key, value in pairs:
        if key in items:
            raise ValueError(f"the key {shown(key)} occurs twice in one object")
        items[key] = value
    return items


def _integer(digits: str) -> int:
    if len(digits) > _SHOWN:
        raise ValueError(f"a number with {len(digits)} digits")
    return int(digits)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is no number")
