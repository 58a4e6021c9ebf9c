"""The kernel out of whatever it is packed in, within bounds.

Owns: one step outward-in (`unpack`, `unpack_to`), going on until a loadable kernel is reached
(`unpack_fully`), and the parts of a unified kernel image. Must not know: how
a stream is decoded (loader/packing), where a container keeps it (loader/payload.py), nor how a
kernel is loaded.

The relocation table that an x86 kernel build puts behind its vmlinux stays behind it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeAlias, TypeVar

from bootproof.dataclass import dataclass
from bootproof.loader.address import counted
from bootproof.loader.formats import Format
from bootproof.loader.identify import Identity, identify_bytes
from bootproof.loader.image import ImageLike, ImageSource, open_image
from bootproof.loader.packing import Output, Packing, Unpack, decode
from bootproof.loader.payload import SIZE_WORD, Payload, locate, uki_sections

T = TypeVar("T")

DEFAULT_LIMIT = 1 << 30
"""Most bytes that anything unpacks to unless the caller says otherwise."""

MAX_STEPS = 4
"""Deepest nesting that occurs: a compressed unified kernel image around a zboot image."""


@dataclass(frozen=True, slots=True)
class Step:
    """One packing that was taken off.

    `offset` and `packed_size` say where it lay in its container, `size` how much came out, all
    in bytes. `packing` is None for a section that is stored as it is.
    """

    container: Format
    packing: Packing | None
    offset: int
    packed_size: int
    size: int

    def __str__(self) -> str:
        if self.container is Format.UKI:
            return "unified kernel image, section .linux"
        if self.container in (Format.BZIMAGE, Format.ZBOOT):
            return f"{self.container} payload, {self.packing}"
        return f"{self.packing} file"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What came out: its bytes (read-only), what they are, the packings taken off, outermost first.

    `initrd` and `cmdline` are set when one of them was a unified kernel image that has them.
    """

    data: memoryview
    identity: Identity
    steps: tuple[Step, ...] = ()
    initrd: memoryview | None = None
    cmdline: str | None = None

    @property
    def format(self) -> Format:
        return self.identity.format

    @property
    def arch(self) -> str | None:
        return self.identity.arch

    @property
    def packing(self) -> str:
        """The innermost packing: "zstd", …, or "stored"."""
        return (self.steps[-1].packing if self.steps else None) or "stored"


@dataclass(frozen=True, slots=True)
class UkiParts:
    """The sections of a unified kernel image that the default boot uses; views, not copies.

    `microcode` is an initrd that goes before `initrd`.
    """

    linux: memoryview
    initrd: memoryview | None
    microcode: memoryview | None
    cmdline: str | None
    release: str | None


def unpack(image: ImageLike, *, limit: int = DEFAULT_LIMIT) -> Unpacked:
    """Takes one packing off: vmlinux out of a bzImage, Image out of Image.gz or an EFI zboot
    image, the kernel out of a unified kernel image.

    At most `limit` bytes come out. Raises an `UnpackError`: `Unpack.NotPacked` for a kernel
    that is not packed, `.Unrecognised`, `.BadHeader`, `.Unsupported`, `.Truncated`, `.Corrupt`,
    `.TooLarge`, `.SizeMismatch`, `.WindowTooLarge`, `.TrailingData`; or an `Image` error.
    """
    with open_image(image) as source:
        return _peel(source.name, _as_it_is(source), _in_memory, limit)


def unpack_fully(image: ImageLike, *, limit: int = DEFAULT_LIMIT) -> Unpacked:
    """Takes packings off until an ELF, bzImage or Image is reached; none for one of those.

    Raises as `unpack`, `Unpack.Unrecognised` when something else comes out, and
    `Unpack.TooDeep` after `MAX_STEPS` packings.
    """
    with open_image(image) as source:
        kernel = _as_it_is(source)
        while not kernel.format.loadable:
            if len(kernel.steps) == MAX_STEPS:
                raise Unpack.TooDeep(
                    f"no kernel after {MAX_STEPS} packings ({'; '.join(map(str, kernel.steps))})",
                    file=source.name,
                    value=MAX_STEPS,
                    limit=MAX_STEPS,
                )
            kernel = _peel(source.name, kernel, _in_memory, limit)
        return kernel


def unpack_to(image: ImageLike, path: Path, *, limit: int = DEFAULT_LIMIT) -> Unpacked:
    """As `unpack`, into the file `path`, which appears whole or not at all.

    Little memory is used, whatever the sizes. Raises as `unpack`, and `Unpack.WriteFailed`.
    """
    with open_image(image) as source, _Spool(path) as spool:
        return spool.keep(_peel(source.name, _as_it_is(source), spool, limit))


def uki_parts(image: ImageLike) -> UkiParts:
    """The parts of a unified kernel image, for its default boot (the base sections, and those
    of the first profile over them).

    Raises `Unpack.BadHeader` when `image` is none or a section lies outside it.
    """
    with open_image(image) as source:
        sections = uki_sections(source.data)
        if ".linux" not in sections:
            raise Unpack.BadHeader(
                "this is no unified kernel image: it has no .linux section",
                file=source.name,
                field=".linux",
            )

        def content(name: str) -> memoryview | None:
            section = sections.get(name)
            return source.data[section.offset : section.offset + section.size] if section else None

        linux = content(".linux")
        assert linux is not None
        return UkiParts(
            linux,
            content(".initrd"),
            content(".ucode"),
            _text(content(".cmdline")),
            _text(content(".uname")),
        )


def _text(section: memoryview | None) -> str | None:
    """A text section as systemd-stub reads it: up to a NUL, without white space at the end."""
    if section is None:
        return None
    return bytes(section).split(b"\0", 1)[0].decode("utf-8", "replace").rstrip()


_Sink: TypeAlias = Callable[[bytes | memoryview], object]
"""Takes the next bytes of a content."""

_Store: TypeAlias = Callable[[Callable[[_Sink], Step]], tuple[memoryview, Step]]
"""Has one content written, in memory or into a file, and returns it."""


def _as_it_is(source: ImageSource) -> Unpacked:
    # A view of its own: that of the source ends with it.
    return Unpacked(source.data[:], identify_bytes(source.data))


def _peel(name: str, outer: Unpacked, store: _Store, limit: int) -> Unpacked:
    """Takes the outermost packing off."""
    payload = locate(outer.data, outer.identity)
    initrd, cmdline = outer.initrd, outer.cmdline
    if payload.packing is None:
        parts = uki_parts(open_image(outer.data, name))
        data, initrd, cmdline = parts.linux, parts.initrd, parts.cmdline
        step = Step(payload.container, None, payload.offset, payload.size, payload.size)
    else:
        data, step = store(lambda sink: _pour(name, outer.data, payload, limit, sink))
    return Unpacked(data, identify_bytes(data), (*outer.steps, step), initrd, cmdline)


def _pour(name: str, data: memoryview, payload: Payload, limit: int, sink: _Sink) -> Step:
    """Decompresses `payload` into `sink` and checks what is around the stream."""
    packed = payload.stream(name, data)
    output = Output(sink, packed, limit=limit)
    end = decode(packed, output)
    output.finish()
    _check_trailer(name, data, payload, end, output.total)
    return Step(
        payload.container, payload.packing, payload.offset, end - packed.start, output.total
    )


def _check_trailer(name: str, data: memoryview, payload: Payload, end: int, size: int) -> None:
    """Refuses bytes behind the stream, but for the size word of kernel builds before 5.17.

    Those wrote it behind Image.lz4 and its like as well (scripts/Makefile.lib, `size_append`).
    """
    rest = data[end : payload.offset + payload.size]
    if not rest:
        return
    plain_file = payload.container not in (Format.BZIMAGE, Format.ZBOOT)
    if plain_file and len(rest) == SIZE_WORD and int.from_bytes(rest, "little") == size:
        return
    more = counted(len(rest), "byte")
    raise Unpack.TrailingData(
        f"{more} too many behind the {payload.packing} stream, which ends at {end:#x}",
        file=name,
        field=str(payload.packing),
        offset=end,
        value=len(rest),
        advice=f"if they do not belong to the kernel, cut the file after {end} bytes",
    )


def _in_memory(fill: Callable[[_Sink], Step]) -> tuple[memoryview, Step]:
    buffer = bytearray()
    step = fill(buffer.extend)
    return memoryview(buffer).toreadonly(), step


class _Spool:
    """A store of a partial file beside `path`, which gets that name in the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)

    def __call__(self, fill: Callable[[_Sink], Step]) -> tuple[memoryview, Step]:
        partial, step = self._write(fill)
        with open_image(partial, allow_empty=True) as source:
            return source.data[:], step

    def keep(self, kernel: Unpacked) -> Unpacked:
        """Gives the content of `kernel` its name, after writing it if no step had to."""
        if not kernel.steps or kernel.steps[-1].packing is None:
            self._write(lambda sink: sink(kernel.data))
        assert self._partial is not None
        with _writing(self._path):
            self._partial.replace(self._path)
        return kernel

    def _write(self, fill: Callable[[_Sink], T]) -> tuple[Path, T]:
        """The partial file, with what `fill` writes."""
        partial = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}.partial")
        self._partial = partial
        with _writing(self._path), partial.open("xb", buffering=0) as file:

            def sink(chunk: bytes | memoryview) -> None:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[file.write(rest) :]

            return partial, fill(sink)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turns what the operating system says into our error."""
    try:
        yield
    except OSError as error:
        raise Unpack.WriteFailed(
            f"cannot be written: {error.strerror}",
            file=str(path),
            advice="give a writable place with enough room",
        ) from error
