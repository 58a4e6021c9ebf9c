"""Where two CPU states differ: a real CPU and a boot image, or the CPUs of two boots. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from bootproof.harness.observation import Difference
from bootproof.loader.arch import InParts, Registers


def compare_registers(expected: Registers, actual: Registers) -> Iterator[Difference]:
    """Field by field; both must be of one architecture."""
    for field in fields(expected):
        left, right = getattr(expected, field.name), getattr(actual, field.name)
        if isinstance(left, InParts):
            seen = right.parts()
            pairs = [
                (f"{field.name}.{part}", one, seen[part]) for part, one in left.parts().items()
            ]
        elif isinstance(left, tuple):
            numbered = enumerate(zip(left, right, strict=True))
            pairs = [(f"{field.name}{number}", *both) for number, both in numbered]
        else:
            pairs = [(field.name, left, right)]
        for name, one, other in pairs:
            if one != other:
                yield Difference(name, _shown(one), _shown(other))


def _shown(value: object) -> str:
    return hex(value) if isinstance(value, int) else str(value)
