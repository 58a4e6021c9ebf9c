"""The run directory as QEMU sees it: its user's own for the run, and taken back whole.

Meanwhile whoever has taken QEMU over can put anything there under any name. So the harness
opens nothing there by name until QEMU is dead and the directory is its own again; what it made
before belongs to it and can be read by QEMU but not changed. Owns these rights, and how files are
written so that no link is ever followed. Knows no artifact by name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from bootproof.harness.errors import UserError
from bootproof.harness.host.stdout import say
from bootproof.kernels import given, scratch
from bootproof.loader.address import counted, format_size

NOBODY: Final = 65534
# capabilities(7): without them nothing can be given to nobody, taken back, or ended.
_NEEDED: Final = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
}
_OPEN: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FALLOC_FL_KEEP_SIZE: Final = 0x01  # fallocate(2)
_BLOCK: Final = 512  # stat(2): the unit of st_blocks, always
_HEAD: Final = 256 << 10  # RFC 8878, 3.1.1.2.4: more than a block of a compressed file
_CANNOT_RESERVE: Final = (errno.EOPNOTSUPP, errno.ENOSYS)


def is_root() -> bool:
    """Whether we can become nobody, give files away and take them back.

    Root in a container may have been left without the rights to, and in a user namespace there may
    be no such user. QEMU is then whom we are, as it is for every other user.
    """
    return os.geteuid() == 0 and why_powerless() is None


@functools.cache
def why_powerless() -> str | None:
    """What root lacks here for that; None when nothing is lacking."""
    held = int(_status("CapEff") or "0", 16)
    lacking = [name for name, number in _NEEDED.items() if not held >> number & 1]
    if lacking:
        return f"root has no {', '.join(lacking)} here"
    for name in ("uid_map", "gid_map"):
        if not _has_nobody(Path(f"/proc/self/{name}").read_text("ascii")):
            return "this user namespace has no user nobody"
    if Path("/proc/self/setgroups").read_text("ascii").strip() == "deny":
        return "this user namespace allows nobody to give up groups"
    return None


def _status(name: str) -> str | None:
    lines = Path("/proc/self/status").read_text("utf-8", "replace").splitlines()
    return next((line.partition(":")[2] for line in lines if line.startswith(f"{name}:")), None)


def _has_nobody(mapped: str) -> bool:
    """Whether an id is mapped (user_namespaces(7): first inside, first outside, how many)."""
    rows = (map(int, line.split()) for line in mapped.splitlines())
    return any(first <= NOBODY < first + count for first, _, count in rows)


@contextlib.contextmanager
def given_to_qemu(directory: Path) -> Iterator[None]:
    """The directory is QEMU's in here; QEMU must be dead when this is left. Raises UserError."""
    with disk_errors(directory):
        give_to_qemu(directory)
    try:
        yield
    finally:
        with disk_errors(directory):
            take_back(directory)


def give_to_qemu(directory: Path) -> None:
    """Makes a run directory belong to the user QEMU runs as, closed to all others.

    Regular files in it can then be read by QEMU, and written by nobody but us.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o700)
        if not is_root():
            return
        for _, _, names, folder in os.fwalk(dir_fd=fd):
            os.fchown(folder, -1, NOBODY)
            os.fchmod(folder, 0o750)
            for name in names:
                _let_read(name, folder)
        os.fchown(fd, NOBODY, NOBODY)
        os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def _let_read(name: str, folder: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return  # the link that stands for a stranger's RAM: QEMU is given the RAM itself
    fd = os.open(name, os.O_RDONLY | _OPEN, dir_fd=folder)
    try:
        status = os.fstat(fd)
        if status.st_nlink == 1:
            os.fchown(fd, -1, NOBODY)
            os.fchmod(fd, stat.S_IMODE(status.st_mode) & 0o755 | 0o440)
    finally:
        os.close(fd)


def take_back(directory: Path) -> None:
    """Makes a run directory ours again, and removes what is neither ours nor a regular file.

    Also of a run that was cut short. Does nothing to a directory that is already ours.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not is_root() or os.fstat(fd).st_uid != NOBODY:
            return
        os.fchown(fd, 0, 0)  # from here on nobody else can change a name in it
        for name in os.listdir(fd):  # noqa: PTH208
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if status.st_uid != NOBODY:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                os.chown(name, 0, 0, dir_fd=fd, follow_symlinks=False)
            elif stat.S_ISDIR(status.st_mode):
                shutil.rmtree(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
    finally:
        os.close(fd)


# --- files -------------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """What the operating system refuses below `path` becomes one line. Raises UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{scratch.subject(error, path)}: {error.strerror}") from error


Ours = Callable[[bytes], object]
"""Tells by its beginning whether a file is one that we make, as a pattern's `search` does."""


def foreign(path: Path) -> UserError:
    """What is said of something that a user has where an output goes."""
    return UserError(f"{path.parent}: holds {path.name}, which no run has made; take another one")


def refuse_foreign(path: Path, ours: Ours, *, through: bool = False) -> None:
    """Raises UserError when an output would replace a file that we have not made.

    An empty file may be replaced: nothing is lost. What is no file is not replaced either, but
    where an output goes `through` it: a device, a FIFO.
    """
    with disk_errors(path):
        if not path.exists() or (through and _is_special(path)):
            return
        if not path.is_file():
            raise UserError(f"{path}: is no regular file; take another name")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    if head and not ours(head):
        raise foreign(path)


def refuse_unwritable(directory: Path) -> None:
    """Raises UserError where nothing can be put into a directory, which need not be there yet:
    before what takes long, for else it would be told after that.
    """
    with disk_errors(directory), scratch.directory(nearest_directory(directory)):
        pass


def make_directory(directory: Path) -> None:
    """Makes a directory that an output goes to, with those above it. Raises UserError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _in_the_way(_nearest(directory)) from error
    except OSError as error:
        raise UserError(f"{directory}: {error.strerror}") from error


def nearest_directory(directory: Path) -> Path:
    """What there is of a directory that need not be there yet: itself, or the lowest above it.

    Raises UserError where that is no directory.
    """
    there = _nearest(directory)
    if not there.is_dir():
        raise _in_the_way(there)
    return there


def _nearest(path: Path) -> Path:
    """What there is of a path that need not be there yet: its lowest part, links not followed."""
    return next(part for part in (path, *path.parents) if os.path.lexists(part))


def _in_the_way(path: Path) -> UserError:
    what = "is a link to what is not there" if path.is_symlink() else "is no directory"
    return UserError(f"{path}: {what}; name another place for what is to be written")


def write_whole(path: Path, data: bytes | Iterable[bytes], mode: int = 0o644) -> None:
    """Writes a file whole or not at all, in place of whatever has that name. Raises UserError.

    `data` may come in parts, so that all of it never is in memory at once. What a killed process
    left of one has a name of ours: nobody else's file is removed.
    """
    part = path.with_name(f"{scratch.PREFIX}{path.name}.part")
    with disk_errors(path):
        part.unlink(missing_ok=True)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
            with open(part, "wb", opener=lambda name, _: os.open(name, flags, mode)) as file:
                file.writelines([data] if isinstance(data, bytes) else data)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _is_special(path: Path) -> bool:
    """Whether something is neither a file nor a directory."""
    return path.exists() and not (path.is_file() or path.is_dir())


def write_given(path: Path, data: bytes, ours: Ours) -> None:
    """Writes a file that the user names, with the directories above it: whole or not at all, but
    for what is no plain file (`/dev/stdout`), which stays what it is. Raises UserError, also where
    a file is that is not `ours`.
    """
    refuse_foreign(path, ours, through=True)
    make_directory(path.parent)
    if path.is_symlink() or _is_special(path):
        with disk_errors(path):
            write_through(path, data)
    else:
        write_whole(path, data)


def write_through(path: Path, data: bytes, *, append: bool = False) -> None:
    """Writes to whatever has that name, or to a new file.

    Raises OSError, also for a FIFO that nobody reads: that would be waited for.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    flags |= os.O_APPEND if append else os.O_TRUNC
    try:
        fd = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        why = "is a FIFO that nobody reads, or a socket; start its reader first, or name a file"
        raise OSError(error.errno, why, str(path)) from None
    with os.fdopen(fd, "wb") as file:
        os.set_blocking(fd, True)
        file.write(data)


def file_for_qemu(path: Path, reserve: int) -> int:
    """A new file for QEMU to write by name and us to read by the descriptor returned.

    Room for `reserve` bytes is set aside, where the file system can do that: QEMU does not tell
    when its disk is full, and what a guest never got to say would be held against it. Raises
    UserError.
    """
    with disk_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPEN, 0o600)
    try:
        with disk_errors(path):
            if is_root():
                os.fchown(fd, NOBODY, NOBODY)
        _reserve(fd, reserve, path)
    except BaseException:
        os.close(fd)
        path.unlink()
        raise
    return fd


def has_room(fd: int, size: int) -> bool:
    """Whether `size` bytes are set aside for a file; some file systems cannot do that."""
    return os.fstat(fd).st_blocks * _BLOCK >= size


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps every other run out of a directory. Raises UserError when one is under way there."""
    with disk_errors(directory):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{directory}: another run is under way there; give this one a directory of its"
                " own (--out)"
            ) from None
        except OSError:  # a file system without locks of directories
            pass
        yield
    finally:
        with contextlib.suppress(OSError):  # as above
            # Closing it is not enough: what another thread has forked has it, too, until it execs.
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file of that very name, to be read; never blocks, never follows a link.

    Raises OSError.
    """
    with open(path, "rb", opener=lambda name, _: os.open(name, os.O_RDONLY | _OPEN)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", str(path))
        yield file


@contextlib.contextmanager
def open_given(path: Path) -> Iterator[BinaryIO]:
    """A file of any size that the user names; see bootproof.kernels.given. Raises UserError."""
    with _told(path), given.opened(path) as file:
        yield file


def read_given(path: Path, most: int, option: str = "") -> bytes:
    """All of a file of at most `most` bytes that the user names. Raises UserError.

    `option` is the one by which it was named.
    """
    with _told(path, option):
        return given.read(path, most)


@contextlib.contextmanager
def _told(path: Path, option: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        named = f" ({option})" if option else ""
        raise UserError(f"{path}: {error.strerror}{named}") from error


def files_below(directory: Path, most: int) -> Iterator[tuple[Path, list[str], list[str]]]:
    """All directories that can be read from one that the user names down; see kernels.given.

    Says on stderr when there are others. Raises UserError.
    """
    unread: list[OSError] = []
    with _told(directory, ""), os.scandir(directory):
        yield from given.below(directory, most, unread.append)
    if unread:
        first = f"{unread[0].filename}: {unread[0].strerror}"
        say(f"{counted(len(unread), 'directory', 'directories')} could not be read: {first}")


def read_from_qemu(path: Path, size: int) -> bytes:
    """`size` bytes of a file that QEMU has just written, by name. Raises UserError."""
    with disk_errors(path), open_regular(path) as file:
        status = os.fstat(file.fileno())
        owner = NOBODY if is_root() else os.geteuid()
        if status.st_uid != owner or status.st_size != size:
            raise UserError(f"{path}: is not what QEMU was asked to write")
        return file.read(size)


def _reserve(fd: int, size: int, path: Path) -> None:
    import ctypes  # which takes as long as reading a kernel

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(size)) == 0:
        return
    code = ctypes.get_errno()
    if code not in _CANNOT_RESERVE:
        raise UserError(f"{path}: no room for {format_size(size)}: {os.strerror(code)}")
