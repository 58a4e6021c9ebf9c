"""Guest-physical memory of a stopped guest, as its CPU sees it.

RAM is looked at through the file that QEMU has mapped. Where the machine lays ROM over RAM that
file does not tell the truth: QEMU is asked, once, since nothing there changes while the guest
stands. Judges nothing.
"""

from __future__ import annotations

from typing import Final

from bootproof.harness.host.files import read_from_qemu
from bootproof.harness.qemu.session import Session
from bootproof.loader.address import Range

_PEEK: Final = "peek.bin"


class StandingMemory:
    """What a guest that stands still has in memory. Raises MonitorError when QEMU goes away."""

    def __init__(self, session: Session) -> None:
        self._session = session
        machine = session.machine
        areas = () if machine.writes_reserved else machine.reserved
        self._roms = [region.range for region in areas]
        self._seen: dict[Range, bytes] = {}

    def contains(self, address: int, size: int) -> bool:
        """Whether [address, address + size) is all RAM of the machine, ROM over it or not."""
        return self._session.ram.contains(address, size)

    def read(self, address: int, size: int) -> bytes:
        """The bytes at a guest-physical address. Raises GuestMemoryError outside of RAM."""
        data = bytearray(self._session.ram.read(address, size))
        for rom in self._roms:
            start, end = max(address, rom.start), min(address + size, rom.end)
            if start < end:
                data[start - address : end - address] = self._rom(rom)[
                    start - rom.start : end - rom.start
                ]
        return bytes(data)

    def _rom(self, rom: Range) -> bytes:
        if rom not in self._seen:
            self._seen[rom] = self._asked(rom)
        return self._seen[rom]

    def _asked(self, area: Range) -> bytes:
        arguments = {"val": area.start, "size": area.size, "filename": _PEEK}
        peek = self._session.directory / _PEEK
        try:
            self._session.monitor.execute("pmemsave", arguments)
            return read_from_qemu(peek, area.size)
        finally:
            peek.unlink(missing_ok=True)
