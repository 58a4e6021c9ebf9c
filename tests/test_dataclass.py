"""Our dataclass is the standard library's in all that one can see of it, but for its price."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, field
from typing import Any, Final

import pytest

from bootproof.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Ours:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list, compare=False)
    d: bytes = field(default=b"", repr=False, kw_only=True)


@dataclasses.dataclass(frozen=True, slots=True)
class Theirs:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list, compare=False)
    d: bytes = field(default=b"", repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Nothing:
    pass


@dataclass(frozen=True, slots=True)
class One:
    only: object


def equal(cls: Callable[..., Any]) -> list[object]:
    one = cls(1)
    return [
        *(one == cls(1), one == cls(2), one == cls(1, c=[1]), one == cls(1, d=b"d"), one == 1),
        *(hash(one) == hash(cls(1, c=[1])), hash(one) == hash(cls(2)), len({one, cls(1)})),
    ]


def shown(cls: Callable[..., Any]) -> str:
    return repr(cls(1, c=[2], d=b"hidden"))


def copied(cls: Callable[..., Any]) -> list[object]:
    one = cls(1, "x", [3], d=b"d")
    copies = copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))
    changed = dataclasses.replace(one, b="y")
    return [each == one and each.c == [3] for each in copies] + [changed.b, changed.d, one.b]


def taken_apart(cls: Callable[..., Any]) -> list[object]:
    one = cls(1)
    names = [(each.name, each.default, each.compare, each.repr) for each in dataclasses.fields(one)]
    return [names, dataclasses.asdict(one), dataclasses.astuple(one), one.__match_args__]


def asked(cls: Callable[..., Any]) -> list[str]:
    return [str(inspect.signature(cls)), *wrong(cls)]


def wrong(cls: Callable[..., Any]) -> list[str]:
    """What is said of arguments that are too few, too many, unknown, or there twice."""
    calls: list[tuple[list[object], dict[str, object]]] = [
        ([], {}),
        ([], {"b": "b"}),
        ([1, "b", [], b"d"], {}),
        ([1, "b", [], b"d"], {"d": b""}),
        ([1], {"e": 2}),
        ([1], {"a": 2}),
        ([1, "b"], {"b": "c"}),
    ]
    said = []
    for values, named in calls:
        with pytest.raises(TypeError) as error:
            cls(*values, **named)
        said.append(str(error.value))
    return said


def made(cls: Callable[..., Any]) -> list[str]:
    """Of values by place, by name and by both, and where they are left out: not of what others
    were made of.
    """
    first, second = cls(1), cls(a=1)
    first.c.append(1)
    values = [first, second, cls(1, "x", [2], d=b"d"), cls(c=[], d=b"e", b="x", a=0)]
    return [str(dataclasses.astuple(value)) for value in values]


SAME: Final = (equal, shown, copied, taken_apart, asked, made)


@pytest.mark.parametrize("seen", SAME, ids=[each.__name__ for each in SAME])
def test_it_behaves_as_the_standard_librarys(seen: Callable[[type], object]) -> None:
    theirs = str(seen(Theirs)).replace("Theirs", "Ours")
    assert str(seen(Ours)) == theirs


@pytest.mark.parametrize("cls", [Ours, Theirs], ids=["ours", "theirs"])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_what_is_made_stays(cls: type, name: str) -> None:
    one = cls(1)
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(one, name, 2)
    with pytest.raises(FrozenInstanceError, match=f"cannot delete field '{name}'"):
        delattr(one, name)
    with pytest.raises((AttributeError, TypeError)):
        one.another = 2
    assert one == cls(1)


def test_what_a_class_checks_is_checked_when_all_is_there() -> None:
    @dataclass(frozen=True, slots=True)
    class Checked:
        a: int
        b: int = 2

        def __post_init__(self) -> None:
            if self.a > self.b:
                raise ValueError(f"{self.a} is more than {self.b}")

    assert Checked(1) == Checked(b=2, a=1)
    with pytest.raises(ValueError, match="3 is more than 2"):
        Checked(3)


def test_a_default_gives_way_in_a_class_that_asked_for_no_slots() -> None:
    @dataclass(frozen=True)
    class Plain:
        a: int
        b: str = "b"

    assert (Plain(1).b, Plain(1, "x").b) == ("b", "x")


def test_a_class_of_no_field_or_one() -> None:
    other: object = One(1)
    assert Nothing() == Nothing() != other
    assert repr(Nothing()) == "Nothing()"
    assert One(1) == One(1) != One(2)
    assert len({Nothing(), Nothing(), One(1), One(1), One(2)}) == 3


def test_a_value_that_holds_itself_is_shown() -> None:
    inside: list[object] = []
    one = One(inside)
    inside.append(one)
    assert repr(one) == "One(only=[...])"


def test_a_method_of_the_class_itself_stands() -> None:
    @dataclass(frozen=True, slots=True)
    class Short:
        a: int

        def __repr__(self) -> str:
            return "short"

    assert repr(Short(1)) == "short"


def test_an_order_and_what_changes_are_the_standard_librarys() -> None:
    @dataclass(frozen=True, order=True, slots=True)
    class Ordered:
        a: int

    @dataclass(slots=True)
    class Changing:
        a: int

    @dataclass
    class Bare:
        a: int = 1

    changing, bare = Changing(1), Bare()
    changing.a = bare.a = 2
    assert Ordered(1) < Ordered(2)
    assert (changing, bare) == (Changing(2), Bare(2))


def test_nothing_is_compiled_for_the_class() -> None:
    def compiled(cls: type) -> set[str]:
        functions = {name: vars(cls).get(name) for name in dir(cls)}
        return {
            name
            for name, function in functions.items()
            if getattr(getattr(function, "__code__", None), "co_filename", "") == "<string>"
        }

    assert compiled(Ours) == set()
    assert "__init__" in compiled(Theirs)  # what is looked for is there
