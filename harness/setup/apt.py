"""Installing Debian packages: as root or through sudo, and never half.

Owns the calls of apt-get, dpkg and sudo. Nothing is ever removed to make room.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.host.stdout import say
from bootproof.harness.setup import children

# dpkg's own mark of having been cut off; apt-get refuses everything until it is seen to.
UNFINISHED: Final = Path("/var/lib/dpkg/updates")
_SUDO: Final = ("sudo", "-n")
_INSTALL: Final = (
    # Again: what is asked for is not here, whatever dpkg says of its package.
    *("apt-get", "install", "--reinstall", "-qq", "-y", "--no-install-recommends", "--no-remove"),
    *("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"),
)


def owner_of(path: Path) -> str | None:
    """The installed package that a file is of, or was: a pattern, or a link, which is followed."""
    if not shutil.which("dpkg-query"):
        return None
    asked = ["dpkg-query", "--search", str(path.resolve())]
    said = subprocess.run(asked, capture_output=True, check=False).stdout.decode("utf-8", "replace")
    return said.partition(":")[0] or None


@dataclass(frozen=True, slots=True)
class Apt:
    """How apt-get can be run from here; `why_not` says why it cannot, if it cannot."""

    there: bool = True
    prefix: tuple[str, ...] = ()
    why_not: str = ""

    @classmethod
    def find(cls) -> Apt:
        """apt-get as root, else through a sudo that asks for no password."""
        if not shutil.which("apt-get"):
            return cls(there=False, why_not="There is no apt-get here")
        if os.geteuid() == 0:
            return cls()
        if shutil.which("sudo"):
            asked = subprocess.run(
                [*_SUDO, "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
            if asked.returncode == 0:
                return cls(prefix=_SUDO)
        return cls(why_not="Not root, and `sudo -n` was refused")

    def update(self) -> None:
        """Makes the lists of packages new, after seeing to it that dpkg is in order."""
        if UNFINISHED.is_dir() and any(UNFINISHED.iterdir()):
            say("dpkg was cut off earlier; letting it finish (dpkg --configure -a, apt-get -f)")
            self._run("dpkg", "--configure", "-a", to_its_end=True)
            self.install(["-f"])
        if not self._run("apt-get", "update", "-qq"):
            say("apt-get update failed; going on with the package lists that are here")

    def install(self, packages: Collection[str]) -> bool:
        """Says whether it succeeded; only errors are shown.

        A signal may end apt while it downloads, but not while dpkg is at work: that would leave the
        user's system half-installed.
        """
        command = (*_INSTALL, *packages)
        return self._run(*command, "--download-only") and self._run(
            *command, "--no-download", to_its_end=True
        )

    def _run(self, *command: str, to_its_end: bool = False) -> bool:
        environment = ("env", "DEBIAN_FRONTEND=noninteractive")
        return children.run([*self.prefix, *environment, *command], to_its_end=to_its_end)
