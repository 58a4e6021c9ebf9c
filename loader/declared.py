"""Binary layouts declared once, as typed data.

A `Declared` dataclass lists its fields in file order with their encodings; reading and writing
follow from the declaration, so no other module spells out offsets. Packed, and little-endian unless
`BYTE_ORDER` says otherwise. Knows no particular format.

    @dataclass(frozen=True, slots=True)
    class Point(Declared):
        x: U32
        y: U32
"""

import struct
from typing import Annotated, ClassVar, Self

from bootproof.loader.errors import Facts

U8 = Annotated[int, "B"]
U16 = Annotated[int, "H"]
U32 = Annotated[int, "I"]
U64 = Annotated[int, "Q"]
Bytes4 = Annotated[bytes, "4s"]
Bytes16 = Annotated[bytes, "16s"]


class Declared:
    """Base of dataclasses whose annotations say how each field lies in the file."""

    __slots__ = ()
    BYTE_ORDER: ClassVar[str] = "<"
    CODEC: ClassVar[struct.Struct]
    SIZE: ClassVar[int]
    OFFSETS: ClassVar[dict[str, int]]

    def __init_subclass__(cls) -> None:
        formats = {
            name: str(annotation.__metadata__[0])
            for name, annotation in cls.__annotations__.items()
            if hasattr(annotation, "__metadata__")
        }
        cls.CODEC = struct.Struct(cls.BYTE_ORDER + "".join(formats.values()))
        cls.SIZE = cls.CODEC.size
        cls.OFFSETS = {}
        offset = 0
        for name, code in formats.items():
            cls.OFFSETS[name] = offset
            offset += struct.calcsize(cls.BYTE_ORDER + code)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """The structure at byte `offset` of `data`. Raises struct.error when data is short."""
        return cls(*cls.CODEC.unpack_from(data, offset))

    @classmethod
    def all_from(cls, data: bytes) -> tuple[Self, ...]:
        """Structures that lie one behind the other; what is left at the end is not looked at."""
        whole = len(data) // cls.SIZE * cls.SIZE
        return tuple(cls(*row) for row in cls.CODEC.iter_unpack(data[:whole]))

    @classmethod
    def at(cls, field: str, base: int = 0) -> Facts:
        """Where a field lies, as a LoaderError is told; `base` is the structure's file offset."""
        return {"field": field, "offset": base + cls.OFFSETS[field]}

    def to_bytes(self) -> bytes:
        """The structure as it lies in the file."""
        return self.CODEC.pack(*(getattr(self, name) for name in self.OFFSETS))
