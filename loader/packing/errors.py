"""Why a payload could not be unpacked: one class per reason.

Owns: the `Unpack` errors.  Must not know: how any format is decoded.
"""

from __future__ import annotations

from bootproof.loader.errors import LoaderError


class UnpackError(LoaderError):
    """Base of everything that can go wrong between a packed file and what is inside it."""

    code = "Unpack"
    summary = "the file cannot be unpacked"


class Unpack:
    """The reasons, by name: `Unpack.Truncated` has the code `Unpack::Truncated`."""

    class NotPacked(UnpackError):
        """The file is a kernel already; nothing is packed inside it."""

        code = "Unpack::NotPacked"
        summary = "nothing is packed in this file"

    class Unrecognised(UnpackError):
        """The file, or the payload found in it, is of no known format."""

        code = "Unpack::Unrecognised"
        summary = "neither a kernel nor a packed kernel"

    class BadHeader(UnpackError):
        """A header names a payload that cannot be where, or what, it says."""

        code = "Unpack::BadHeader"
        summary = "a header points to an impossible payload"

    class Unsupported(UnpackError):
        """The format allows this, and bootproof does not take it."""

        code = "Unpack::Unsupported"
        summary = "this packing is not taken"

    class Truncated(UnpackError):
        """The compressed stream ends before its end marker."""

        code = "Unpack::Truncated"
        summary = "the packed kernel is incomplete"

    class Corrupt(UnpackError):
        """The decompressor refused the bytes."""

        code = "Unpack::Corrupt"
        summary = "the packed kernel is corrupt"

    class TooLarge(UnpackError):
        """The output reached the caller's limit."""

        code = "Unpack::TooLarge"
        summary = "the packed kernel is larger than the limit"

    class SizeMismatch(UnpackError):
        """The output is larger or smaller than the size declared beside the stream."""

        code = "Unpack::SizeMismatch"
        summary = "the packed kernel does not have its declared size"

    class WindowTooLarge(UnpackError):
        """The stream demands more decoder memory than any real kernel does."""

        code = "Unpack::WindowTooLarge"
        summary = "unpacking needs too much memory"

    class TrailingData(UnpackError):
        """Bytes follow the stream where its container has none."""

        code = "Unpack::TrailingData"
        summary = "bytes follow the packed kernel"

    class TooDeep(UnpackError):
        """Packings inside packings without end."""

        code = "Unpack::TooDeep"
        summary = "the packings are nested too deeply"

    class WriteFailed(UnpackError):
        """The unpacked file could not be written; nothing was left behind."""

        code = "Unpack::WriteFailed"
        summary = "the unpacked kernel cannot be written"
