"""An image's bytes, whatever they were handed over as: bytes, a path, or an open binary file.

Owns opening and mapping: a file is mapped read-only, never read in whole, and its descriptor is at
hand so that the kernel can copy from it. Judges nothing inside the image.
"""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
from collections.abc import Callable
from typing import BinaryIO, Self, TypeAlias

from bootproof.loader.errors import Image, LoaderError

ImageLike: TypeAlias = (
    "bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO | io.BufferedIOBase"
    " | ImageSource"
)
_WHAT_TO_DO = "give the path of a kernel image"


class ImageSource:
    """An opened image; a context manager. Made by open_image().

    A LoaderError that leaves its block, and does not say which file it is about, is about this one.
    """

    __slots__ = ("_data", "_fd", "_release", "name")

    def __init__(
        self,
        name: str,
        data: memoryview,
        fd: int | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self._data = data
        self._fd = fd
        self._release = release

    @property
    def data(self) -> memoryview:
        """All bytes, read-only. Slicing it copies nothing."""
        return self._data

    @property
    def size(self) -> int:
        """The number of bytes."""
        return len(self._data)

    def fileno(self) -> int | None:
        """A descriptor whose content is `data`, or None when the image is not a file."""
        return self._fd

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, LoaderError) and error.file is None:
            error.file = self.name
        self.close()

    def close(self) -> None:
        """Releases the mapping and the descriptor. May be called twice."""
        release, self._release = self._release, None
        if release is not None:
            release()
            self._fd = None


def open_image(
    image: ImageLike, name: str | None = None, *, allow_empty: bool = False
) -> ImageSource:
    """Opens `image` for reading from its first byte; `name` stands for it in messages.

    An ImageSource is lent: closing what is returned leaves it open. Raises Image.Missing,
    Image.IsDirectory, Image.NotRegular, Image.Unreadable and, unless `allow_empty`, Image.Empty.
    """
    if isinstance(image, ImageSource):
        source = ImageSource(name or image.name, image.data, image.fileno())
    elif isinstance(image, bytes | bytearray | memoryview):
        source = ImageSource(name or "image", memoryview(image).cast("B").toreadonly())
    elif isinstance(image, str | os.PathLike):
        source = _open_path(os.fspath(image), name)
    elif hasattr(image, "read"):
        source = _open_file(image, name)
    else:
        raise TypeError(f"an image is bytes, a path or a binary file, not {type(image).__name__}")
    if not source.size and not allow_empty:
        source.close()
        raise Image.Empty("the file is empty", file=source.name, value=0, advice=_WHAT_TO_DO)
    return source


def _open_path(path: str, name: str | None) -> ImageSource:
    shown = name or path
    try:
        # O_NONBLOCK: opening a FIFO must not wait for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _refused(shown, error) from error
    except ValueError as error:  # a NUL byte in the name
        raise Image.Missing(f"no file can have this name ({error})", file=shown) from error
    return _map(fd, shown)


def _open_file(file: BinaryIO | io.BufferedIOBase, name: str | None) -> ImageSource:
    own_name = getattr(file, "name", None)
    shown = name or (own_name if isinstance(own_name, str) else "image")
    raw = getattr(file, "raw", file)
    # Only for these is the descriptor's content the file's content (gzip's fileno() is not).
    if isinstance(raw, io.FileIO):
        file.flush()
        return _map(os.dup(raw.fileno()), shown)
    if isinstance(file, io.BytesIO):
        return ImageSource(shown, memoryview(file.getvalue()))
    try:
        file.seek(0)
        content = file.read()
    except OSError as error:
        raise _refused(shown, error) from error
    if not isinstance(content, bytes):
        raise TypeError(f"{shown} is open in text mode; open it in binary mode")
    return ImageSource(shown, memoryview(content))


def _map(fd: int, name: str) -> ImageSource:
    """An ImageSource over a descriptor that it then owns."""
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            raise Image.IsDirectory("is a directory", file=name, advice=_WHAT_TO_DO)
        if not stat.S_ISREG(status.st_mode):
            raise _not_regular(name)
        if not status.st_size:
            os.close(fd)
            return ImageSource(name, memoryview(b""))
        mapping = mmap.mmap(fd, status.st_size, access=mmap.ACCESS_READ)
    except OSError as error:
        os.close(fd)
        raise _refused(name, error) from error
    except LoaderError:
        os.close(fd)
        raise
    view = memoryview(mapping)

    def release() -> None:
        os.close(fd)
        try:
            view.release()
            mapping.close()
        except BufferError:
            pass  # a slice is still in use; the mapping goes with the last of them

    return ImageSource(name, view, fd, release)


def _not_regular(name: str) -> LoaderError:
    advice = "copy its content into a file first"
    return Image.NotRegular("is not a regular file", file=name, advice=advice)


def _refused(name: str, error: OSError) -> LoaderError:
    if error.errno == errno.ENXIO:  # a socket
        return _not_regular(name)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Image.Missing("no such file", file=name, advice=_WHAT_TO_DO)
    if isinstance(error, PermissionError):
        advice = "make it readable for this user"
        return Image.Unreadable("permission denied", file=name, advice=advice)
    return Image.Unreadable(f"cannot be read: {error.strerror}", file=name)
