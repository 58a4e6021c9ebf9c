"""`dataclasses.dataclass`, of which only `__init__` is compiled for each frozen class.

The standard library writes source text for six methods of a frozen class and compiles it when the
class is made, which takes longer than all else of a module's import. Five of them say the same for
every class: here they are functions that know the names of its fields. What a class is to others
(fields, replace, pickle, match, type checkers) is what the standard library makes of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, *, frozen=False, order=False, **options: bool):
        """As the standard library's; classes that change, or have an order, are made by it."""
        if order or not frozen:
            return dataclasses.dataclass(cls, frozen=frozen, order=order, **options)
        return lambda cls: _frozen(cls, **options)


def _frozen(cls: type[T], *, eq: bool = True, repr: bool = True, **options: bool) -> type[T]:
    # Without slots a default is found where `_set_once` looks for a field that was set.
    options = {"slots": True} | options
    cls = dataclasses.dataclass(eq=False, repr=False, **options)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # not seen to be one by mypy
    methods: dict[str, Callable[..., Any]] = {"__setattr__": _set_once, "__delattr__": _delete}
    if eq:
        methods |= _equality([field.name for field in fields if field.compare])
    if repr:
        methods["__repr__"] = _shown([field.name for field in fields if field.repr])
    for name, method in methods.items():
        if name not in cls.__dict__:
            setattr(cls, name, method)
    return cls


def _set_once(self: object, name: str, value: object) -> None:
    """What `__init__` sets; afterwards every field has its value, and keeps it."""
    if hasattr(self, name):
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def _delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _equality(names: list[str]) -> dict[str, Callable[..., Any]]:
    values: Callable[[object], Any] = attrgetter(*names) if names else type

    def __eq__(self: object, other: object) -> bool:
        return (
            values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented
        )

    def __hash__(self: object) -> int:
        return hash(values(self))

    return {"__eq__": __eq__, "__hash__": __hash__}


def _shown(names: list[str]) -> Callable[[object], str]:
    @recursive_repr()
    def __repr__(self: object) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({values})"

    return __repr__
