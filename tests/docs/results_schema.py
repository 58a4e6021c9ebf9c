"""docs/results.schema.json, made from the types by which results.json is written and read."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from bootproof.harness.results.results import FORMAT, SCHEMA_ID, VERSION, Results, Totals
from bootproof.harness.typedjson import ABOUT, has_default

_SCALARS: Final[Mapping[Any, Mapping[str, Any]]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "minimum": 0},
    float: {"type": "number", "minimum": 0},
    object: {},
}


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of results.json."""
    definitions: dict[str, Any] = {}
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID}
    made = head | {"title": "bootproof results"} | _object(Results, definitions)
    properties = made["properties"]
    properties["$schema"] = {"type": "string"}
    told = {"title": "how much there is, and what it cost"}
    properties["totals"] = told | _object(Totals, definitions)
    made["required"].append("totals")
    properties["format"]["const"] = FORMAT
    properties["version"]["const"] = VERSION
    return made | {"$defs": dict(sorted(definitions.items()))}


def _object(cls: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    hints, known = typing.get_type_hints(cls), dataclasses.fields(cls)
    properties = {}
    for item in known:
        told = {"description": item.metadata[ABOUT]} if ABOUT in item.metadata else {}
        properties[item.name] = told | _of(hints[item.name], definitions)
    return {
        "description": (cls.__doc__ or "").partition("\n")[0],
        "type": "object",
        "properties": properties,
        "required": [item.name for item in known if not has_default(item)],
        "additionalProperties": False,
    }


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (other,) = [a for a in arguments if a is not type(None)]
        return {"anyOf": [_of(other, definitions), {"type": "null"}]}
    if origin in (tuple, Sequence):
        return {"type": "array", "items": _of(arguments[0], definitions)}
    if origin is not None:
        return {"type": "object", "additionalProperties": _of(arguments[1], definitions)}
    if dataclasses.is_dataclass(kind):
        name = cast("type[Any]", kind).__name__
        if name not in definitions:
            definitions[name] = {}  # against a type that holds itself
            definitions[name] = _object(cast("type[Any]", kind), definitions)
        return {"$ref": f"#/$defs/{name}"}
    return dict(_SCALARS[str if issubclass(kind, str) else kind])
