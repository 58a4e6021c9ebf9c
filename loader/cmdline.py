"""Building a kernel command line, and putting one into guest memory.

Owns the rules of what may stand on a command line, which are those of linux-loader: printable
ASCII only, values with spaces in double quotes, a capacity that counts the terminating NUL, boot
and init arguments apart. Knows nothing of what the arguments mean, virtio-mmio devices aside
(Documentation/admin-guide/kernel-parameters.txt).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bootproof.loader import errors
from bootproof.loader.address import GIB, KIB, MIB, U32_MAX, U64_MAX, checked_add, counted
from bootproof.loader.memory import GuestMemory

INIT_ARGS_SEPARATOR = " -- "

# Unicode White_Space, which is what Rust's trim() removes. str.strip() also takes U+001C-U+001F.
_WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_NOT_PRINTABLE = re.compile("[^ -~]")


class Cmdline(errors.Cmdline):
    """A command line under construction; `capacity` in bytes counts the terminating NUL.

    A refused insertion changes nothing. The refusals are attributes: Cmdline.TooLarge and so on.
    Raises Cmdline.InvalidCapacity unless the capacity is positive.
    """

    def __init__(self, capacity: int) -> None:
        if capacity <= 0:
            what = f"a command line needs a capacity of at least 1 byte, not {capacity}"
            raise errors.Cmdline.InvalidCapacity(what, value=capacity, limit=1)
        self.capacity = capacity
        self._boot_args = ""
        self._init_args = ""

    @classmethod
    def try_from(cls, text: str, capacity: int) -> Cmdline:
        """A command line out of "<boot args>" or "<boot args> -- <init args>".

        A separator in double quotes does not count. The characters are not checked, but they must
        be characters: a lone surrogate is refused as Cmdline.InvalidAscii. Raises
        Cmdline.InvalidCapacity when it does not fit.
        """
        line = cls(capacity)
        _check_encodable(text)
        boot, init = _split(text)
        line._boot_args = boot.strip(_WHITE_SPACE)
        line._init_args = init.strip(_WHITE_SPACE)
        if line._size() > capacity:
            raise line._no_room(errors.Cmdline.InvalidCapacity, "needs", line._size())
        return line

    @property
    def boot_args(self) -> str:
        """The arguments for the kernel."""
        return self._boot_args

    @property
    def init_args(self) -> str:
        """The arguments for init, which follow " -- "."""
        return self._init_args

    def insert(self, key: str, value: str) -> None:
        """Appends key=value to the boot arguments.

        Raises Cmdline.InvalidAscii, HasSpace, HasEquals, InvalidQuote, NoQuoteSpace, TooLarge.
        """
        _check_key(key)
        _check_value(value)
        self.insert_str(f"{key}={value}")

    def insert_multiple(self, key: str, values: Sequence[str]) -> None:
        """Appends key=value1,value2,… to the boot arguments.

        Raises as insert() does, and Cmdline.MissingVal when there are no values.
        """
        _check_key(key)
        if not values:
            raise errors.Cmdline.MissingVal(f"the key {key!r} has no value", field=key)
        for value in values:
            _check_value(value)
        self.insert_str(f"{key}={','.join(values)}")

    def insert_str(self, text: str) -> None:
        """Appends `text`, trimmed, to the boot arguments.

        Raises Cmdline.InvalidAscii and Cmdline.TooLarge.
        """
        text = _trimmed(text)
        self._check_room(len(text) + (1 if self._boot_args else 0))
        self._boot_args = f"{self._boot_args} {text}" if self._boot_args else text

    def insert_init_args(self, text: str) -> None:
        """Appends `text`, trimmed, to the init arguments.

        Raises Cmdline.InvalidAscii and Cmdline.TooLarge.
        """
        text = _trimmed(text)
        self._check_room(len(text) + (1 if self._init_args else len(INIT_ARGS_SEPARATOR)))
        self._init_args = f"{self._init_args} {text}" if self._init_args else text

    def add_virtio_mmio_device(
        self, size: int, base: int, irq: int, device_id: int | None = None
    ) -> None:
        """Appends virtio_mmio.device=<size>@0x<base>:<irq>[:<device_id>].

        `size` in bytes is printed with G, M or K where it divides; `base` is guest-physical.
        Raises Cmdline.MmioSize, Cmdline.TooLarge, and ValueError for numbers no device has.
        """
        if size == 0:
            raise errors.Cmdline.MmioSize(
                f"the virtio-mmio device at {base:#x} has size 0", field="size", value=0, limit=1
            )
        for name, number, most in (
            ("size", size, U64_MAX),
            ("base", base, U64_MAX),
            ("irq", irq, U32_MAX),
            ("device_id", device_id or 0, U32_MAX),
        ):
            if not 0 <= number <= most:
                raise ValueError(f"{name} {number} is not between 0 and {most:#x}")
        device = f"virtio_mmio.device={_with_suffix(size)}@{base:#x}:{irq}"
        self.insert_str(device if device_id is None else f"{device}:{device_id}")

    def as_bytes(self) -> bytes:
        """The command line without its terminating NUL.

        Raises Cmdline.NoBootArgsInserted when there are only init arguments, and
        Cmdline.NullTerminator when a NUL came in through try_from().
        """
        if not self._boot_args and self._init_args:
            what = "there are init arguments but no boot arguments"
            advice = "insert a boot argument first"
            raise errors.Cmdline.NoBootArgsInserted(what, value=self._init_args, advice=advice)
        parts = [part for part in (self._boot_args, self._init_args) if part]
        line = INIT_ARGS_SEPARATOR.join(parts).encode()
        if b"\0" in line:
            at = line.index(0)
            raise errors.Cmdline.NullTerminator(f"there is a NUL byte at position {at}", offset=at)
        return line

    def as_bytes_with_nul(self) -> bytes:
        """The command line as it goes into memory. Raises as as_bytes() does."""
        return self.as_bytes() + b"\0"

    as_cstring = as_bytes_with_nul
    __bytes__ = as_bytes_with_nul

    def __str__(self) -> str:
        return self.as_bytes().decode()

    def __repr__(self) -> str:
        return f"Cmdline({self._boot_args!r}, {self._init_args!r}, capacity={self.capacity})"

    def __eq__(self, other: object) -> bool:
        """Whether both come out as the same bytes, or are refused for the same reason."""
        if not isinstance(other, Cmdline):
            return NotImplemented
        return self._outcome() == other._outcome()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def _outcome(self) -> bytes | type[errors.LoaderError]:
        try:
            return self.as_bytes()
        except errors.LoaderError as error:
            return type(error)

    def _size(self) -> int:
        """Bytes with the terminating NUL."""
        size = _length(self._boot_args) + 1
        if self._init_args:
            size += len(INIT_ARGS_SEPARATOR) + _length(self._init_args)
        return size

    def _no_room(self, kind: type[errors.LoaderError], needs: str, size: int) -> errors.LoaderError:
        what = f"the command line {needs} {size} bytes with its NUL, but the capacity is"
        facts: errors.Facts = {"value": size, "limit": self.capacity}
        return kind(f"{what} {self.capacity}", **facts, advice="shorten the command line")

    def _check_room(self, more: int) -> None:
        size = self._size() + more
        if size > self.capacity:
            raise self._no_room(errors.Cmdline.TooLarge, "would need", size)


def load_cmdline(memory: GuestMemory, address: int, cmdline: Cmdline) -> None:
    """Writes a command line and its NUL at guest-physical `address`.

    Raises InvalidCommandLine when it has no byte form, CommandLineOverflow when it would end
    after the last byte of RAM, CommandLineCopy when it is not all in RAM; nothing is written then
    (linux-loader: loader::load_cmdline).
    """
    try:
        line = cmdline.as_bytes_with_nul()
    except errors.LoaderError as error:
        raise errors.InvalidCommandLine(error.detail) from error
    what = f"a command line of {counted(len(line), 'byte')} at {address:#x}"
    last, most = checked_add(address, len(line) - 1), memory.last_address
    if last is None or last > most:
        what += f" ends beyond the last byte of RAM {most:#x}"
        advice = "put it at a lower address"
        raise errors.CommandLineOverflow(what, value=address, limit=most, advice=advice)
    if not memory.contains(address, len(line)):
        what += f" is not all in RAM; RAM is {memory.describe()}"
        raise errors.CommandLineCopy(what, value=address, advice="put it where the guest has RAM")
    memory.write(address, line)


def _split(text: str) -> tuple[str, str]:
    """Boot and init arguments: parted at the first separator that is not in double quotes."""
    at = text.find(INIT_ARGS_SEPARATOR)
    while at >= 0:
        end = at + len(INIT_ARGS_SEPARATOR)
        if text.count('"', 0, at) % 2 == 0:
            return text[:at], text[end:]
        at = text.find(INIT_ARGS_SEPARATOR, end)
    return text, ""


def _length(text: str) -> int:
    return len(text.encode())


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        what = f"the character at position {error.start} of the command line is half a character"
        raise errors.Cmdline.InvalidAscii(what, offset=error.start) from error


def _trimmed(text: str) -> str:
    text = text.strip(_WHITE_SPACE)
    _check_ascii(text)
    return text


def _check_ascii(text: str) -> None:
    found = _NOT_PRINTABLE.search(text)
    if found:
        what, at = found.group(), found.start()
        where = f"{what!r} at position {at} of {text!r} is not printable ASCII"
        raise errors.Cmdline.InvalidAscii(where, offset=at, value=what)


def _check_key(key: str) -> None:
    _check_ascii(key)
    if " " in key:
        raise errors.Cmdline.HasSpace(f"the key {key!r} contains a space", field=key)
    if "=" in key:
        raise errors.Cmdline.HasEquals(f"the key {key!r} contains an equals sign", field=key)


def _check_value(value: str) -> None:
    _check_ascii(value)
    if '"' in value[1:-1]:
        what, advice = f"{value!r} has a double quote inside", "quote the whole value"
        raise errors.Cmdline.InvalidQuote(what, value=value, advice=advice)
    quoted = len(value) >= 2 and value[0] == value[-1] == '"'
    if " " in value and not quoted:
        what = f"{value!r} has a space but is not in double quotes"
        advice = "put double quotes around the value"
        raise errors.Cmdline.NoQuoteSpace(what, value=value, advice=advice)


def _with_suffix(size: int) -> str:
    for suffix, unit in (("G", GIB), ("M", MIB), ("K", KIB)):
        if size % unit == 0:
            return f"{size // unit}{suffix}"
    return str(size)
