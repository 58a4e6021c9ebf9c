"""Packages of the system: what three package managers call them, and how they are installed.

Must not know which packages are needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from bootproof.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class SystemPackage:
    """What brings a component, as three package managers call it, and what that is for."""

    apt: str
    dnf: str
    pacman: str
    purpose: str

    def __str__(self) -> str:
        return f"{self.apt} ({self.purpose})"


def installing(packages: Iterable[SystemPackage]) -> tuple[str, str, str]:
    """The commands that install them with apt, dnf and pacman."""
    apt, dnf, pacman = zip(*((p.apt, p.dnf, p.pacman) for p in packages), strict=True)
    return (
        f"apt-get install {' '.join(apt)}",
        f"dnf install {' '.join(dnf)}",
        f"pacman -S {' '.join(pacman)}",
    )
