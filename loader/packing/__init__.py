"""Compressed streams of every kind a kernel is packed with, decoded within bounds.

Owns: choosing the decoder. Must not know: kernels, and the containers that payloads lie
in (those are loader/payload.py's).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from bootproof.loader.packing.errors import Unpack, UnpackError
from bootproof.loader.packing.kinds import Packing, lacking_in_kernels, sniff
from bootproof.loader.packing.stream import WINDOW_LIMIT, Output, Packed

__all__ = [
    "WINDOW_LIMIT",
    "Output",
    "Packed",
    "Packing",
    "Unpack",
    "UnpackError",
    "decode",
    "lacking_in_kernels",
    "sniff",
]

_Decoder = Callable[[Packed, Output], int]


@functools.cache
def _decoders() -> Mapping[Packing, _Decoder]:
    """Their libraries are not part of Python: whoever only asks what a file is needs none."""
    from bootproof.loader.packing import incremental, lz4_legacy, lzop, zstd

    return {
        Packing.GZIP: incremental.decode,
        Packing.BZIP2: incremental.decode,
        Packing.LZMA: incremental.decode,
        Packing.XZ: incremental.decode,
        Packing.LZ4_FRAME: incremental.decode,
        Packing.LZO: lzop.decode,
        Packing.LZ4_LEGACY: lz4_legacy.decode,
        Packing.ZSTD: zstd.decode,
    }


def decode(packed: Packed, output: Output) -> int:
    """Decompresses the stream `packed` into `output`, never past its bound.

    Returns the file offset behind the stream. Raises an `UnpackError`.
    """
    return _decoders()[packed.packing](packed, output)
