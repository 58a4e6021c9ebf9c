"""Small disks that can be filled."""

from __future__ import annotations

from pathlib import Path


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def used(directory: Path) -> int:
    """Bytes on the disk of all that is below `directory`, each file once, whatever its names."""
    found = {
        (status.st_dev, status.st_ino): status.st_blocks * 512  # stat(2): always of 512 bytes
        for path in directory.rglob("*")
        if (status := path.lstat())
    }
    return sum(found.values())
