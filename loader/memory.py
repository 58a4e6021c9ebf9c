"""Guest RAM as one sparse file.

Owns the banks of guest-physical RAM, their place in the backing file, and every bounds check on a
guest access: an access is done whole or refused whole. Whole files are copied in by the kernel,
never through Python. Knows nothing of images or protocols. Which accesses are legal follows
rust-vmm's vm-memory (0.18): a range may span banks that touch, and an empty range is always legal.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from bootproof.dataclass import dataclass
from bootproof.loader.address import MIB, PAGE, TIB, U64_MAX, Range, format_size
from bootproof.loader.errors import Facts, GuestMemoryError, LoaderError

if TYPE_CHECKING:
    from ctypes import CDLL
    from pathlib import Path

    from typing_extensions import Buffer

P = ParamSpec("P")
T = TypeVar("T")

# Less than malloc asks the kernel for anew each time (M_MMAP_THRESHOLD, mallopt(3), is 128 KiB):
# zeroing pages for a buffer takes longer than reading into one that is there.
CHEAP_READ: Final = 120 << 10
_ZEROS, _ZERO_PAGE = bytes(CHEAP_READ), bytes(PAGE)
# Beyond this, "give the guest more memory" is no advice.
_MOST_ADVISED = TIB
# sendfile(2) and copy_file_range(2) move at most this many bytes at a time.
_MOST_PER_CALL = 0x7FFF_F000
# fallocate(2): deallocate a range without changing the size of the file.
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02


@dataclass(frozen=True, slots=True)
class Bank:
    """One bank of RAM: guest-physical `base`, `size` in bytes, `file_offset` in the RAM file."""

    base: int
    size: int
    file_offset: int

    @property
    def range(self) -> Range:
        """The guest-physical addresses of the bank."""
        return Range(self.base, self.size)

    @property
    def file_range(self) -> Range:
        """The bytes of the RAM file that hold the bank."""
        return Range(self.file_offset, self.size)


AnyBank = Bank | tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Lent:
    """A part of RAM that is in another file."""

    part: Range
    file: GuestMemory
    # Its runs of pages with a byte that is not zero, where they are known.
    nonzero: Sequence[Range] | None


class GuestMemory:
    """Banks of guest-physical RAM, all in one sparse file, zero until written.

    `banks` gives (base, size) pairs, which lie one after the other in the file in that order, or
    Bank values, each of which says its own place in the file.
    `path` names the file, which must not exist yet; without it the file is anonymous (memfd).
    Use as a context manager, or call close(). Raises GuestMemoryError for banks that are empty,
    overlap, or do not end below 2^64, and when the file cannot be made.
    """

    def __init__(self, banks: Iterable[AnyBank], *, path: Path | None = None) -> None:
        self._layout(banks, path)
        self._fd = _create(path)
        try:
            os.ftruncate(self._fd, self._file_size)
        except (OSError, OverflowError) as error:
            self.close()
            if path is not None:
                path.unlink()
            raise _failed(f"cannot make room for {format_size(self.size)}", path, error) from error

    @classmethod
    def open(cls, path: Path, banks: Iterable[AnyBank], *, writable: bool = False) -> GuestMemory:
        """The memory that an existing RAM file holds; `banks` as when it was made.

        Raises GuestMemoryError when the file cannot be opened, does not hold all the banks, or is
        no regular file of that very name: a symbolic link or a device could stand for anything.
        """
        memory = cls.__new__(cls)
        memory._layout(banks, path)
        access = os.O_RDWR if writable else os.O_RDONLY
        try:
            memory._fd = os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            found = os.fstat(memory._fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise GuestMemoryError("the RAM file is a symbolic link", file=str(path)) from error
            raise _failed("cannot open the RAM file", path, error) from error
        if not stat.S_ISREG(found.st_mode):
            memory.close()
            raise GuestMemoryError("the RAM file is not a regular file", file=str(path))
        if found.st_size < memory._file_size:
            memory.close()
            size, needed = found.st_size, memory._file_size
            what = f"the RAM file has {size:#x} bytes but its banks need {needed:#x}"
            raise GuestMemoryError(what, file=str(path), value=size, limit=needed)
        return memory

    def _layout(self, banks: Iterable[AnyBank], path: Path | None = None) -> None:
        self._fd, self._path = -1, path
        placed: list[Bank] = []
        for given in banks:
            bank = _placed(given, placed[-1] if placed else None)
            if bank.base < 0 or bank.size <= 0 or bank.base + bank.size > U64_MAX:
                what = f"a RAM bank cannot be {bank.size:#x} bytes at {bank.base:#x}: it needs at"
                raise GuestMemoryError(f"{what} least one byte and has to end below {U64_MAX:#x}")
            placed.append(bank)
        if not placed:
            raise GuestMemoryError("guest memory needs at least one RAM bank")
        self._banks = tuple(placed)
        self._size = sum(bank.size for bank in placed)
        self._file_size = max(bank.file_range.end for bank in placed)
        self._sorted = sorted(placed, key=lambda bank: bank.base)
        self._bases = [bank.base for bank in self._sorted]
        self._lent: list[_Lent] = []
        self._cut()
        for low, high in pairwise(self._sorted):
            if low.range.overlaps(high.range):
                raise GuestMemoryError(f"the RAM banks {low.range} and {high.range} overlap")
        for low, high in pairwise(sorted(placed, key=lambda bank: bank.file_offset)):
            if low.file_range.overlaps(high.file_range):
                what = f"the RAM banks {low.range} and {high.range} share bytes"
                raise GuestMemoryError(f"{what} of the RAM file")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; a file made without a path is gone then. May be called twice."""
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)
        for lent in getattr(self, "_lent", ()):
            lent.file.close()

    def fileno(self) -> int:
        """The descriptor of the RAM file, owned by this object."""
        return self._fd

    @property
    def banks(self) -> tuple[Bank, ...]:
        """The banks in the order given."""
        return self._banks

    @property
    def size(self) -> int:
        """Bytes of RAM in all banks."""
        return self._size

    @property
    def last_address(self) -> int:
        """The highest address that is RAM."""
        last = self._sorted[-1]
        return last.base + last.size - 1

    def contains(self, address: int, size: int) -> bool:
        """Whether [address, address + size) is all RAM. An empty range always is."""
        if size <= 0:
            return size == 0
        end = address + size
        index = bisect_right(self._bases, address) - 1
        if index < 0:
            return False
        while index < len(self._sorted):
            bank = self._sorted[index]
            bank_end = bank.base + bank.size
            if not bank.base <= address < bank_end:
                return False
            if end <= bank_end:
                return True
            address = bank_end
            index += 1
        return False

    def read(self, address: int, size: int) -> bytes:
        """The `size` bytes at guest-physical `address`. Raises GuestMemoryError outside RAM."""
        parts = []
        for fd, offset, length in self._pieces(address, size):
            done = 0
            while done < length:
                part = self._io(os.pread, fd, length - done, offset + done)
                if not part:
                    raise GuestMemoryError("the RAM file is shorter than its banks")
                parts.append(part)
                done += len(part)
        return b"".join(parts)

    def write(self, address: int, data: Buffer) -> None:
        """Writes `data` at guest-physical `address`.

        Raises GuestMemoryError when not all of it lies in RAM; nothing is written then.
        """
        view = memoryview(data).cast("B")
        start = 0
        for fd, offset, length in self._own_pieces(address, len(view)):
            done = 0
            while done < length:
                piece = view[start + done : start + length]
                done += self._io(os.pwrite, fd, piece, offset + done)
            start += length

    def write_sparse(self, address: int, data: bytes) -> None:
        """Writes the pages of `data` that are not all zero: RAM that is new stays sparse.

        Raises GuestMemoryError when not all of it lies in RAM; nothing is written then.
        """
        if not self.contains(address, len(data)):
            self.write(address, data)  # which says why it cannot
        if data == _ZEROS[: len(data)]:
            return
        start = 0
        for at in range(0, len(data) + PAGE, PAGE):
            size = min(PAGE, len(data) - at)
            if size <= 0 or data.startswith(_ZERO_PAGE[:size], at):
                if start < min(at, len(data)):
                    self.write(address + start, memoryview(data)[start:at])
                start = at + PAGE

    def write_file(self, address: int, fd: int, file_offset: int, size: int) -> None:
        """Copies `size` bytes at `file_offset` of the file `fd` to guest-physical `address`.

        The kernel copies; nothing passes through Python. Raises GuestMemoryError when the
        destination is not all RAM (nothing is written then) or the file ends early.
        """
        for own, offset, length in self._own_pieces(address, size):
            self._io(_copy, fd, file_offset, own, offset, length)
            file_offset += length

    def copy_from(self, other: GuestMemory, parts: Iterable[Range] | None = None) -> None:
        """Copies `parts` of what `other` holds to the same guest-physical addresses, or all of it;
        then holes are left out.

        The kernel copies. Raises GuestMemoryError when not all of it is RAM here.
        """
        for part in other.data_extents() if parts is None else parts:
            address = part.start
            for fd, offset, length in other._pieces(part.start, part.size):
                self.write_file(address, fd, offset, length)
                address += length

    def lend(self, part: Range, path: Path, nonzero: Sequence[Range] | None = None) -> None:
        """Has all of the file at `path` stand for `part`, which is only read from then on.

        What this memory's own file has there is not looked at. `nonzero` says what
        `nonzero_extents` would find in it, where that is known. Raises GuestMemoryError as `open`,
        and for a part that is not inside one bank or is lent already.
        """
        inside = any(bank.range.contains(part) for bank in self._banks)
        if not inside or any(lent.part.overlaps(part) for lent in self._lent):
            raise GuestMemoryError(f"guest memory {part} cannot be in a file of its own")
        file = GuestMemory.open(path, [(part.start, part.size)])
        self._lent = sorted([*self._lent, _Lent(part, file, nonzero)], key=lambda lent: lent.part)
        self._cut()

    def _cut(self) -> None:
        """RAM in order, by the file that each part is in: start, end, descriptor of a file that is
        not our own, offset there.
        """
        self._cuts: list[tuple[int, int, int | None, int]] = []
        for bank in self._sorted:
            at, offset = bank.base, bank.file_offset - bank.base
            for lent in self._lent:
                if bank.range.contains(lent.part):
                    start, end = lent.part.start, lent.part.end
                    if at < start:
                        self._cuts.append((at, start, None, offset + at))
                    self._cuts.append((start, end, lent.file.fileno(), 0))
                    at = end
            if at < bank.range.end:
                self._cuts.append((at, bank.range.end, None, offset + at))
        self._starts = [start for start, *_ in self._cuts]

    def file_offset(self, address: int) -> int:
        """Where guest-physical `address`, which is RAM, lies in the file; what is lent, would."""
        self._pieces(address, 1)
        bank = self._sorted[bisect_right(self._bases, address) - 1]
        return bank.file_offset + address - bank.base

    def copy_out(self, address: int, size: int, path: Path) -> None:
        """Copies `size` bytes at guest-physical `address` to a new file.

        The kernel copies. Raises GuestMemoryError when not all of it is RAM (no file is made then),
        the RAM file has become shorter, or the file cannot be written.
        """
        target, pieces = 0, self._pieces(address, size)
        try:
            with path.open("xb") as file:
                for source, offset, length in pieces:
                    _copy(source, offset, file.fileno(), target, length)
                    target += length
        except OSError as error:
            raise _failed("cannot write a copy of the guest's RAM", path, error) from error

    def fill(self, address: int, size: int, byte: int = 0) -> None:
        """Sets `size` bytes at guest-physical `address` to `byte`; zeros become holes.

        Raises GuestMemoryError when not all of it lies in RAM; nothing is written then.
        """
        for fd, offset, length in self._own_pieces(address, size):
            if byte == 0 and self._io(_punch_hole, fd, offset, length):
                continue
            pattern = memoryview(bytes([byte]) * min(length, CHEAP_READ))
            done = 0
            while done < length:
                done += self._io(os.pwrite, fd, pattern[: length - done], offset + done)

    def data_extents(self) -> Iterator[Range]:
        """The guest-physical ranges that hold data, bank by bank; the rest is zero.

        The granularity is that of the file system, and no extent crosses a bank or ends in another
        file than it begins in.
        """
        for bank in self._banks:
            address = bank.base
            for fd, offset, length in self._pieces(bank.base, bank.size):
                for start, end in self._io(list, data_extents(fd, offset, offset + length)):
                    yield Range(address + start - offset, end - start)
                address += length

    def nonzero_extents(self) -> Iterator[Range]:
        """The guest-physical runs of 4 KiB pages with a byte that is not zero, bank by bank.

        Where the file is sparse does not matter, nor is a hole read.
        """
        known = {lent.part: lent.nonzero for lent in self._lent if lent.nonzero is not None}
        told = set[Range]()
        for extent in self.data_extents():
            part = next((part for part in known if part.contains(extent)), None)
            if part is None:
                yield from self._nonzero_in(extent)
            elif part not in told:
                told.add(part)
                yield from known[part]

    def _nonzero_in(self, extent: Range) -> Iterator[Range]:
        start = end = extent.start
        for at in range(extent.start, extent.end, CHEAP_READ):
            for first, behind in _runs(self.read(at, min(CHEAP_READ, extent.end - at))):
                if at + first != end:
                    if start < end:
                        yield Range.between(start, end)
                    start = at + first
                end = at + behind
        if start < end:
            yield Range.between(start, end)

    def save(self, path: Path) -> None:
        """Writes the RAM as a new sparse file. Raises GuestMemoryError; leaves no partial file."""
        fd = _create(path)
        try:
            os.ftruncate(fd, self._file_size)
            for extent in self.data_extents():
                ((source, offset, length),) = self._pieces(extent.start, extent.size)
                _copy(source, offset, fd, self.file_offset(extent.start), length)
        except BaseException as error:
            path.unlink()
            if isinstance(error, OSError):
                raise _failed("cannot write the RAM file", path, error) from error
            raise
        finally:
            os.close(fd)

    def _pieces(self, address: int, size: int) -> list[tuple[int, int, int]]:
        """(descriptor, offset, length) of each part of a guest range, or GuestMemoryError."""
        pieces, at, left = [], address, size
        index = bisect_right(self._starts, address) - 1
        while left > 0 and 0 <= index < len(self._cuts):
            start, end, fd, offset = self._cuts[index]
            if not start <= at < end:
                break
            length = min(left, end - at)
            pieces.append((self._fd if fd is None else fd, offset + at - start, length))
            at, left, index = at + length, left - length, index + 1
        if left:
            what = f"guest memory {_named(address, size)} is not all RAM; RAM is {self.describe()}"
            raise GuestMemoryError(what, value=address)
        return pieces

    def _own_pieces(self, address: int, size: int) -> list[tuple[int, int, int]]:
        """The same of a range that is going to be written to."""
        pieces = self._pieces(address, size)
        if any(fd != self._fd for fd, _, _ in pieces):
            what = f"guest memory {_named(address, size)} is in a file that is only read"
            raise GuestMemoryError(what, value=address)
        return pieces

    def describe(self) -> str:
        """The RAM in words for a message: "0x0-0x1fffffff"."""
        return ", ".join(str(bank.range) for bank in self._sorted)

    def require(
        self, what: str, address: int, size: int, kind: type[LoaderError], **facts: Any
    ) -> None:
        """Raises `kind` with `facts`, and says what would help, unless a range is all RAM."""
        if not self.contains(address, size):
            shortage, advice = self.shortage(address, size)
            told: Facts = {"value": address, "limit": self.last_address, "advice": advice} | facts
            place = f"{address:#x}-{address + size - 1:#x}"
            raise kind(f"{what} needs guest RAM {place} but {shortage}", **told)

    def shortage(self, address: int, size: int) -> tuple[str, str]:
        """Why a range that contains() denies is not RAM, and advice, for an error message."""
        last = self.last_address
        end = address + size - 1
        if address < self._bases[0]:
            advice = "load the kernel at an address where the guest has RAM (--offset)"
            return f"RAM begins at {self._bases[0]:#x}", advice
        if end <= last:
            return f"RAM is {self.describe()}", "load it at another address (--offset)"
        needed = self.size + end - last
        if needed > _MOST_ADVISED:
            advice = "the image is damaged or the kernel offset (--offset) is wrong"
        else:
            advice = self.way_to_have(needed)
        return f"RAM ends at {last:#x}", advice

    def way_to_have(self, size: int) -> str:
        """What the user can do to have `size` bytes of RAM."""
        return f"give the guest at least {-(-size // MIB)} MiB (--memory)"

    def _io(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call`, with what the operating system refuses turned into a GuestMemoryError."""
        try:
            return call(*args, **kwargs)
        except OSError as error:
            raise _failed("the guest's RAM", self._path, error) from error


class AddressSpace(GuestMemory):
    """RAM at these addresses with nothing in it, and no file.

    A loader that is given this checks and computes as always, and copies nothing.
    """

    def __init__(self, banks: Iterable[AnyBank]) -> None:
        self._layout(banks)

    def write(self, address: int, data: Buffer) -> None:
        """Drops what is written. Raises as any guest memory."""
        self._pieces(address, memoryview(data).nbytes)

    def write_file(self, address: int, fd: int, file_offset: int, size: int) -> None:
        """Drops what is written. Raises as any guest memory."""
        self._pieces(address, size)


def _runs(data: bytes) -> Iterator[tuple[int, int]]:
    """The runs of pages of `data` with a byte that is not zero: where each begins and ends."""
    if data == _ZEROS[: len(data)]:
        return
    start = None
    for page in range(0, len(data), PAGE):
        if not data.startswith(_ZERO_PAGE[: len(data) - page], page):
            start = page if start is None else start
        elif start is not None:
            yield start, page
            start = None
    if start is not None:
        yield start, len(data)


def _create(path: Path | None) -> int:
    """A descriptor of a new file, anonymous without a path."""
    try:
        if path is None:
            return os.memfd_create("bootproof-ram", os.MFD_CLOEXEC)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed("cannot create the RAM file", path, error) from error


def _placed(given: AnyBank, before: Bank | None) -> Bank:
    """A bank with its place in the file: its own, or right behind the one `before`."""
    if isinstance(given, Bank):
        return given
    return Bank(*given, before.file_range.end if before else 0)


def _named(address: int, size: int) -> str:
    if address < 0 or size < 0:
        return f"at {address:#x} with size {size:#x}"
    return str(Range(address, size))


def _failed(what: str, path: Path | None, error: Exception) -> GuestMemoryError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return GuestMemoryError(f"{what}: {reason}", file=None if path is None else str(path))


def _copy(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    """Copies between two files inside the kernel: copy_file_range, or sendfile across devices."""
    done = 0
    copier = _copy_range
    while done < size:
        count = min(size - done, _MOST_PER_CALL)
        try:
            copied = copier(source, source_offset + done, target, target_offset + done, count)
        except OSError as error:
            # EXDEV between file systems, EINVAL or ENOSYS or EOPNOTSUPP where it is not supported.
            if copier is _copy_range and error.errno in _NOT_SUPPORTED:
                copier = _copy_sendfile
                continue
            raise
        if copied == 0:
            what = f"the file ends {format_size(size - done)} before its end was expected"
            raise GuestMemoryError(what, offset=source_offset + done)
        done += copied


_NOT_SUPPORTED = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ETXTBSY)


def _copy_range(source: int, source_offset: int, target: int, offset: int, count: int) -> int:
    return os.copy_file_range(source, target, count, source_offset, offset)


def _copy_sendfile(source: int, source_offset: int, target: int, offset: int, count: int) -> int:
    os.lseek(target, offset, os.SEEK_SET)
    return os.sendfile(target, source, source_offset, count)


def data_extents(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The file ranges in [start, end) that are not holes."""
    while start < end:
        try:
            data = os.lseek(fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end
                return
            raise
        if data >= end:
            return
        start = min(os.lseek(fd, data, os.SEEK_HOLE), end)
        yield data, start


@lru_cache(maxsize=1)
def _libc() -> CDLL:
    # ctypes costs more to import than the rest of this package; only fill() needs it.
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _punch_hole(fd: int, offset: int, length: int) -> bool:
    """Deallocates a range of a file; False when its file system cannot."""
    import ctypes

    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    libc = _libc()
    if libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))
