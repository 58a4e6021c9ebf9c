"""What an architecture is to the loader: one value in a module of its own; `table` has them all.

Owns what is the same for every architecture: how registers are written as JSON, what a reset stub
is. Must not know any architecture, kernel or boot protocol. All addresses are guest-physical.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import (
    Any,
    ClassVar,
    Final,
    Generic,
    NoReturn,
    Protocol,
    Self,
    TypeVar,
    get_type_hints,
    runtime_checkable,
)

from bootproof.dataclass import dataclass
from bootproof.loader import strictjson
from bootproof.loader.address import Range
from bootproof.loader.errors import LoaderError

# Guest-physical memory: address and size to bytes, None where that is not all RAM.
Read = Callable[[int, int], bytes | None]


class Registers(Protocol):
    """The complete state of one CPU at a kernel's first instruction: a frozen dataclass.

    The reset stub is made from it, and an entry probe compares it field by field with the real CPU.
    Its fields are numbers, tuples of them, and dataclasses with fields that are numbers.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def pc(self) -> int:
        """Guest address of the first instruction."""
        ...

    @property
    def mode(self) -> str:
        """The CPU's mode in words."""
        ...

    def page_tables(self, read: Read) -> Iterator[int]:
        """The guest-physical pages of the page tables in use; none without paging."""
        ...

    def entered_at(self, address: int) -> Self:
        """A copy whose first instruction is at guest `address`."""
        ...


@runtime_checkable
class InParts(Protocol):
    """A register that is compared part by part."""

    def parts(self) -> Mapping[str, int]: ...


R = TypeVar("R", bound=Registers)


class StubError(LoaderError):
    """A register state or address that no reset stub can bring about."""

    code = "Stub::Unrealisable"


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes the stub moves before anything else; guest-physical, 16-byte aligned, size too."""

    source: int
    destination: int
    size: int


@dataclass(frozen=True, slots=True)
class Stub:
    """Code for guest-physical `address`; `loader_entry` is the program counter to start it with."""

    address: int
    code: bytes
    loader_entry: int


class Memory(Protocol):
    """Guest-physical memory: RAM in a file, or a guest that is asked."""

    def contains(self, address: int, size: int) -> bool: ...

    def read(self, address: int, size: int) -> bytes: ...


class RamFile(Memory, Protocol):
    """All of a guest's RAM, to look for something in it."""

    def nonzero_extents(self) -> Iterator[Range]: ...


class How(enum.Enum):
    """Why something is known of a CPU that was not seen."""

    DERIVED = "derived"  # from something that was seen
    ASSUMED = "assumed"  # because a protocol or a CPU's reset has it so


@dataclass(frozen=True, slots=True)
class Architecture(Generic[R]):
    """Everything the loader knows about an architecture."""

    name: str
    registers: type[R]
    # RAM that a reset stub needs, in bytes; its code may be shorter.
    stub_size: int
    # Where a reset stub can lie: what the CPU reaches straight from its reset.
    stub_window: Range
    # Raises StubError, naming the register, for a state that no stub can bring about, wherever it
    # is and whatever is in RAM.
    check: Callable[[R], None]
    # The stub at a 16-byte-aligned address that makes the copies, then brings one CPU from its
    # reset to the registers, and leaves guest RAM, which it is given to read, as it is. Raises
    # StubError for a state that cannot be reached this way.
    stub: Callable[[R, int, Sequence[Copy], Read], Stub]
    # What a CPU beside the first one, whose registers follow, is seen to do before the kernel asks
    # for it; nothing where it waits.
    runs: Callable[[R, R, Read], str]
    # A function of a kernel whose place in the image its first bytes tell, and that place.
    landmark: Callable[[bytes], tuple[str, int] | None]
    # The register that this code of a stub gives a value which a CPU may refuse; "" for other code.
    sets: Callable[[bytes], str] = lambda _code: ""
    # e_machine of the programs that its kernels may run, its own first.
    programs: tuple[int, ...] = ()
    # Whether the stub is for every CPU of the machine: a firmware keeps the others then. Else they
    # are off until the kernel asks for them.
    every_cpu: bool = False


_ADVICE: Final = (
    "a guest starts with registers that instructions can load after a CPU's reset"
    " (docs/boot-image.md)"
)


def refuse(name: str, value: object, why: str) -> NoReturn:
    """Raises StubError naming a register."""
    raise StubError(f"{name} {value}: {why}", field=name, value=value, advice=_ADVICE)


def check_width(name: str, value: int, bits: int, *, part: str = "") -> None:
    """Raises StubError unless a register, or a `part` of it, fits `bits` bits."""
    if not 0 <= value < 1 << bits:
        why = f"does not fit {bits} bits" if bits else "does not exist in 32-bit mode"
        refuse(name, hex(value), f"{why} ({name} {part})" if part else why)


def code_at(read: Read, address: int, size: int) -> bytes:
    """Guest-physical `size` bytes of what may be code; nothing where there is none."""
    found = read(address, size) if address >= 0 else None
    return found if found and any(found) else b""


def around(read: Read, pc: int, instructions: int) -> tuple[int, ...]:
    """The 4-byte instruction at `pc`, and as many before it and after it; nothing without any."""
    if not code_at(read, pc, 4):
        return ()
    words = (code_at(read, pc + 4 * step, 4) for step in range(-instructions, instructions + 1))
    return tuple(int.from_bytes(word, "little") for word in words)


def to_json(registers: Registers) -> dict[str, Any]:
    """The registers as JSON-able data; numbers are hexadecimal strings: a double is too narrow."""
    return {field.name: _to_json(getattr(registers, field.name)) for field in fields(registers)}


@functools.cache  # to make them takes longer than to read all registers
def _types(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def from_json(kind: type[R], data: object, path: str = "$") -> R:
    """Reads back what `to_json` gave; fields left out have their default.

    Raises ValueError naming the JSON path, the value and what is allowed.
    """
    required = [field.name for field in fields(kind) if field.default is MISSING]
    defaults = {field.name: field.default for field in fields(kind) if field.default is not MISSING}
    types = _types(kind)
    items = strictjson.record(data, path, required, tuple(defaults))
    return kind(
        **{
            name: _from_json(types[name], defaults.get(name), item, f"{path}.{name}")
            for name, item in items.items()
        }
    )


def some_from_json(kind: type[R], data: object, path: str = "$") -> dict[str, Any]:
    """As many of the registers as there are, by the names of their fields. Raises ValueError."""
    types = _types(kind)
    known = {field.name: field for field in fields(kind)}
    items = strictjson.record(data, path, (), tuple(known))
    return {
        name: _from_json(types[name], known[name].default, item, f"{path}.{name}")
        for name, item in items.items()
    }


def _to_json(value: Any) -> object:
    if is_dataclass(value):
        return {field.name: hex(getattr(value, field.name)) for field in fields(value)}
    return [hex(item) for item in value] if isinstance(value, tuple) else hex(value)


def _from_json(kind: Any, default: object, value: object, path: str) -> object:
    if hasattr(kind, "__dataclass_fields__"):
        return from_json(kind, value, path)
    if isinstance(default, tuple):
        items = strictjson.array(value, path, len(default), len(default))
        return tuple(strictjson.number(item, f"{path}[{i}]") for i, item in enumerate(items))
    return strictjson.number(value, path)
