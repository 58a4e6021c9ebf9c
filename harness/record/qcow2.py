"""An empty qcow2 image, for QEMU to put its snapshots into: no tool has to be installed for it.

Source: docs/interop/qcow2.txt of QEMU (header of version 3, refcount table, refcount block, L1).
"""

from __future__ import annotations

import struct
from typing import Final

_CLUSTER_BITS: Final = 16
_CLUSTER: Final = 1 << _CLUSTER_BITS
_SIZE: Final = 1 << 20  # of the disk, which nobody reads or writes
_HEADER_LENGTH: Final = 104
_REFCOUNT_ORDER: Final = 4  # 16 bits each
# The clusters of the file: header, refcount table, refcount block, L1 table.
_REFCOUNT_TABLE, _REFCOUNT_BLOCK, _L1_TABLE, _CLUSTERS = 1, 2, 3, 4
_HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQQQQII")


def empty() -> bytes:
    """The whole file."""
    header = _HEADER.pack(
        *(b"QFI\xfb", 3, 0, 0, _CLUSTER_BITS, _SIZE, 0),
        *(1, _L1_TABLE * _CLUSTER, _REFCOUNT_TABLE * _CLUSTER, 1, 0, 0),
        *(0, 0, 0, _REFCOUNT_ORDER, _HEADER_LENGTH),
    )
    table = struct.pack(">Q", _REFCOUNT_BLOCK * _CLUSTER)
    block = struct.pack(">4H", *[1] * _CLUSTERS)
    clusters = (header, table, block, b"")
    return b"".join(cluster.ljust(_CLUSTER, b"\0") for cluster in clusters)
