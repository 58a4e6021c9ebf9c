"""One number for a boot image: equal for two images exactly when their guests start equal.

SHA-256 over what boot.json says of the start (architecture, banks, registers; not names, origin, or
where the bytes lie in ram.img) and over RAM, in blocks by guest-physical address. Blocks of zeros
are left out, so that it does not matter where the file is sparse.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Final

from bootproof.loader.address import align_down
from bootproof.loader.arch import to_json
from bootproof.loader.bootimage import BootImage
from bootproof.loader.memory import Bank, GuestMemory

_BLOCK: Final = 64 << 10
_ZEROS: Final = bytes(_BLOCK)


def digest(image: BootImage, memory: GuestMemory) -> str:
    """The digest of `image`, whose RAM is `memory`, in hexadecimal."""
    start = {
        "arch": image.arch,
        "banks": [[bank.base, bank.size] for bank in sorted(image.banks, key=_base)],
        "cpus": [to_json(registers) for registers in image.cpus],
    }
    found = hashlib.sha256(json.dumps(start, sort_keys=True).encode())
    for bank in sorted(memory.banks, key=_base):
        for address in _blocks(bank, memory):
            data = memory.read(address, min(_BLOCK, bank.range.end - address))
            if data != _ZEROS[: len(data)]:
                found.update(address.to_bytes(8, "little"))
                found.update(data)
    return found.hexdigest()


def _blocks(bank: Bank, memory: GuestMemory) -> Iterator[int]:
    """The guest-physical addresses of the blocks of a bank that may hold data, in order."""
    following = bank.base
    for extent in memory.data_extents():
        if not bank.range.overlaps(extent):
            continue
        first = bank.base + align_down(max(extent.start, bank.base) - bank.base, _BLOCK)
        for address in range(max(first, following), min(extent.end, bank.range.end), _BLOCK):
            yield address
            following = address + _BLOCK


def _base(bank: Bank) -> int:
    return bank.base
