"""Why a payload could not be unpacked: one class per reason.

Owns: the `Unpack` errors. Must not know: how any format is decoded.
"""

from __future__ import annotations

from bootproof.loader.errors import LoaderError


class UnpackError(LoaderError):
    """The file cannot be unpacked. Base of all that can go wrong between a packed file and what is
    inside.
    """

    code = "Unpack"


class Unpack:
    """The reasons, by name: `Unpack.Truncated` has the code `Unpack::Truncated`."""

    class NotPacked(UnpackError):
        """Nothing is packed in this file."""

    class Unrecognised(UnpackError):
        """Neither a kernel nor a packed kernel. The file is, or the payload found in it."""

    class BadHeader(UnpackError):
        """A header points to an impossible payload. It cannot be where, or what, the header
        says.
        """

    class Unsupported(UnpackError):
        """This packing is not taken. The format allows it."""

    class Truncated(UnpackError):
        """The packed kernel is incomplete. The compressed stream ends before its end marker."""

    class Corrupt(UnpackError):
        """The packed kernel is corrupt."""

    class TooLarge(UnpackError):
        """The packed kernel is larger than the limit. The limit is the caller's."""

    class SizeMismatch(UnpackError):
        """The packed kernel does not have its declared size. That size is written down beside the
        stream.
        """

    class WindowTooLarge(UnpackError):
        """Unpacking needs too much memory. No real kernel needs so much."""

    class TrailingData(UnpackError):
        """Bytes follow the packed kernel."""

    class TooDeep(UnpackError):
        """The packings are nested too deeply."""

    class WriteFailed(UnpackError):
        """The unpacked kernel cannot be written."""
