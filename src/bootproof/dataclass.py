"""`dataclasses.dataclass`, of which nothing is compiled for a frozen class.

The standard library writes source text for six methods of a frozen class and compiles it when the
class is made, which takes longer than all else of a module's import. Here they are functions that
know the names of its fields. What a class is to others (fields, replace, pickle, match, signature,
type checkers), and what is said of wrong arguments, is what the standard library makes of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    if not cls.__doc__:  # the library would import `inspect`, and write the signature there
        cls.__doc__ = cls.__name__
    # Without slots a default is found where `_set_once` looks for a field that was set.
    options = {"slots": True} | options
    cls = dataclasses.dataclass(init=False, eq=False, repr=False, **options)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # not seen to be one by mypy
    methods: dict[str, object] = {"__init__": _maker(cls, fields), "__signature__": _Signature()}
    methods |= {"__setattr__": _set_once, "__delattr__": _delete}
    if eq:
        methods |= _equality([field.name for field in fields if field.compare])
    if repr:
        methods["__repr__"] = _shown([field.name for field in fields if field.repr])
    for name, method in methods.items():
        if name not in cls.__dict__:
            setattr(cls, name, method)
    return cls


def _maker(cls: type, fields: Sequence[dataclasses.Field[Any]]) -> Callable[..., None]:
    """`__init__`: a value for each field, by its place or its name."""
    names = [field.name for field in fields]
    placed = [field.name for field in fields if not field.kw_only]
    constant = {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}
    made = {
        f.name: f.default_factory for f in fields if f.default_factory is not dataclasses.MISSING
    }
    all_placed = len(names) if placed == names else None
    checks = hasattr(cls, "__post_init__")
    put = object.__setattr__

    def completed(values: Sequence[object], named: Mapping[str, object]) -> Iterator[object]:
        given = {**dict(zip(placed, values, strict=False)), **named}
        others = {name: make() for name, make in made.items() if name not in given}
        every = {**constant, **others, **given}
        if len(given) != len(values) + len(named) or every.keys() != set(names):
            _theirs(cls)(*values, **named)  # which says what is wrong with them
        return map(every.__getitem__, names)

    def __init__(self: Any, /, *values: object, **named: object) -> None:
        whole = values if len(values) == all_placed and not named else completed(values, named)
        for name, value in zip(names, whole, strict=True):
            put(self, name, value)
        if checks:
            self.__post_init__()

    return __init__


def _theirs(cls: type) -> type:
    """The class as the library makes all of it, for what is seldom asked."""
    fields = [(field.name, field.type, field) for field in dataclasses.fields(cls)]
    return dataclasses.make_dataclass(
        cls.__name__, fields, namespace={"__qualname__": cls.__qualname__}
    )


class _Signature:
    """What `inspect.signature` says of a class."""

    def __get__(self, instance: object, owner: type) -> object:
        import inspect  # nobody asks this of a command

        if instance is not None:
            raise AttributeError("__signature__")
        return inspect.signature(_theirs(owner))


def _set_once(self: object, name: str, value: object) -> None:
    """What copy and pickle set: afterwards every field has its value, and keeps it."""
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
