"""Opening an image from bytes, a path or a file."""

from __future__ import annotations

import gzip
import io
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootproof.loader import Image, ImageSource, LoaderError, open_image
from bootproof.loader.image import ImageLike

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "vmlinux"
    path.write_bytes(CONTENT)
    return path


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_are_taken_as_they_are(make: type) -> None:
    with open_image(make(CONTENT)) as image:
        assert (image.name, image.size, image.fileno()) == ("image", len(CONTENT), None)
        assert image.data == CONTENT
        assert image.data.readonly


@pytest.mark.parametrize("make", [str, Path])
def test_path_is_mapped_and_keeps_its_descriptor(path: Path, make: type) -> None:
    with open_image(make(path)) as image:
        fd = image.fileno()
        assert (image.name, image.size) == (str(path), len(CONTENT))
        assert image.data == CONTENT
        assert fd is not None
        assert os.pread(fd, 16, 8) == CONTENT[8:24]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_open_file_is_read_from_its_start_and_left_open(path: Path) -> None:
    with path.open("rb") as file:
        file.seek(1000)
        with open_image(file) as image:
            assert image.data == CONTENT
            assert image.name == str(path)
            assert image.fileno() is not None
        assert file.tell() == 1000
        assert file.read(4) == CONTENT[1000:1004]


def test_unbuffered_and_written_files_are_read_whole(path: Path) -> None:
    with path.open("rb", buffering=0) as raw, open_image(raw) as image:
        assert image.data == CONTENT
    with path.open("r+b") as file:
        file.write(b"new")
        with open_image(file) as image:
            assert bytes(image.data[:4]) == b"new\3"


def test_file_that_is_not_its_descriptor_is_read(path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(CONTENT, mtime=0))
    with gzip.open(packed) as file, open_image(file) as image:
        assert image.data == CONTENT
        assert image.fileno() is None


def test_opened_image_is_lent(path: Path) -> None:
    with open_image(path) as outer:
        with open_image(outer, name="lent") as inner:
            assert (inner.name, inner.size) == ("lent", len(CONTENT))
        assert outer.data[:2] == CONTENT[:2]
        assert outer.fileno() is not None


def test_slice_outlives_the_image(path: Path) -> None:
    with open_image(path) as image:
        part = image.data[256:260]
    assert part == CONTENT[:4]


def test_name_can_be_given(path: Path) -> None:
    with open_image(path, name="the kernel") as image:
        assert image.name == "the kernel"


def refusal(image: ImageLike) -> LoaderError:
    with pytest.raises(LoaderError) as caught:
        open_image(image)
    return caught.value


def test_missing_file(tmp_path: Path, path: Path) -> None:
    for missing in (tmp_path / "none", path / "below", "nul\0byte"):
        assert type(refusal(missing)) is Image.Missing
    assert str(refusal("/none")) == "/none: no such file; give the path of a kernel image"


def test_directory(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert type(error) is Image.IsDirectory
    assert str(error) == f"{tmp_path}: is a directory; give the path of a kernel image"


def test_empty_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    assert type(refusal(empty)) is Image.Empty
    assert type(refusal(b"")) is Image.Empty
    for image in (empty, b""):
        with open_image(image, allow_empty=True) as source:
            assert source.size == 0


def test_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert type(refusal(pipe)) is Image.NotRegular
    assert type(refusal("/dev/null")) is Image.NotRegular
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    assert type(refusal(tmp_path / "socket")) is Image.NotRegular


@pytest.fixture
def nobody() -> Iterator[None]:
    """Root may read everything: be somebody else for the time of a test."""
    uid = os.geteuid()
    if uid == 0:
        os.seteuid(65534)
    yield
    os.seteuid(uid)


def test_unreadable_file(path: Path, nobody: None) -> None:
    if os.geteuid() != 65534:
        path.chmod(0)
    error = refusal(path)
    assert type(error) is Image.Unreadable
    assert str(error) == f"{path}: permission denied; make it readable for this user"


def test_link_to_itself_cannot_be_read(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert type(refusal(loop)) is Image.Unreadable


def test_other_things_are_no_images(path: Path) -> None:
    with pytest.raises(TypeError, match="not int"):
        open_image(5)  # type: ignore[arg-type]
    with path.open(encoding="latin-1") as text, pytest.raises(TypeError, match="text mode"):
        open_image(text)  # type: ignore[arg-type]


def test_refused_image_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for image in (tmp_path, "/dev/null", b""):
        with pytest.raises(LoaderError):
            open_image(image)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_image_closes_once() -> None:
    image = open_image(CONTENT)
    assert isinstance(image, ImageSource)
    image.close()
    image.close()
