"""What bootproof needs of the system: whether it is here, and the package that brings it.

Owns the looking and the names of packages, for the set-up and for `bootproof doctor` alike. Needs
the standard library only, and imports what it looks with when it looks: `--help` answers at once.
Installs nothing, opens no connection.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bootproof.harness.errors import UserError
from bootproof.harness.host.packages import SystemPackage, installing

if TYPE_CHECKING:
    from bootproof.harness.arch import Arch


SETPRIV: Final = SystemPackage(
    *("util-linux",) * 3, purpose="starts QEMU so that no process is left behind"
)
GPGV: Final = SystemPackage(
    "gpgv", "gnupg2", "gnupg", purpose="checks the signatures of downloaded kernels"
)
KEYRING: Final = SystemPackage(
    "debian-archive-keyring",
    "debian-keyring",
    "debian-archive-keyring",
    purpose="the keys for those signatures",
)


class State(enum.Enum):
    """How a component is. MISSING and TOO_OLD keep bootproof from working; the others do not."""

    OK = "ok"
    OPTIONAL = "optional"
    UNKNOWN = "unknown"
    TOO_OLD = "too old"
    MISSING = "missing"

    @property
    def is_trouble(self) -> bool:
        return self in (State.TOO_OLD, State.MISSING)


@dataclass(frozen=True, slots=True)
class Component:
    """One thing bootproof uses. `detail` says where it is or what is wrong, `remedy` what to do;
    `package` brings it where it is not here.
    """

    name: str
    state: State
    version: str = ""
    detail: str = ""
    remedy: str = ""
    package: SystemPackage | None = None

    @property
    def advice(self) -> str:
        """What to do about it; empty when nothing is to be done."""
        return " | ".join(installing([self.package])) if self.package else self.remedy


def emulators() -> Iterator[Component]:
    """The QEMU of each architecture."""
    from bootproof.harness.arch.table import ARCHES

    return map(_emulator, ARCHES.values())


def _emulator(arch: Arch) -> Component:
    from bootproof.harness.qemu import binary

    name, variable = f"QEMU for {arch.name}", binary.variable_of(arch.name)
    chosen = os.environ.get(variable)
    if chosen == "none":
        return Component(name, State.OPTIONAL, detail=f"switched off by {variable}=none")
    try:
        qemu = binary.find_qemu(arch.name)
    except UserError as error:
        state = State.TOO_OLD if "too old" in str(error) else State.MISSING
        if chosen:
            return Component(name, state, detail=str(error), remedy=f"correct {variable}")
        major, minor, _ = binary.QEMU_MINIMUM
        purpose = f"QEMU {major}.{minor} or newer for {arch.name} guests"
        package = SystemPackage(*arch.packages, purpose)
        return Component(name, state, detail=str(error), package=package)
    version = binary.version_text(qemu.version)
    return Component(name, State.OK, version, qemu.path + (f" ({variable})" if chosen else ""))


def others() -> Iterator[Component]:
    """The other programs and files."""
    from bootproof.kernels import signature

    yield _program("setpriv", State.MISSING, SETPRIV)
    yield _program("gpgv", State.OPTIONAL, GPGV)
    keyring = signature.default_keyring()
    if keyring is None:
        detail = "signatures go unchecked without it"
        yield Component("Debian keyring", State.OPTIONAL, detail=detail, package=KEYRING)
    elif keyring.is_file():
        yield Component("Debian keyring", State.OK, detail=str(keyring))
    else:
        detail, remedy = f"{keyring} does not exist", f"correct {signature.ENVIRONMENT}"
        yield Component("Debian keyring", State.OPTIONAL, detail=detail, remedy=remedy)


def _program(name: str, when_absent: State, package: SystemPackage) -> Component:
    path = shutil.which(name)
    if path is None:
        return Component(name, when_absent, detail=package.purpose, package=package)
    command = [path, "--version"]
    run = subprocess.run(command, capture_output=True, timeout=60, check=False)
    version = re.search(r"\d+(\.\d+)+", run.stdout.decode("utf-8", "replace"))
    return Component(name, State.OK, version[0] if version else "", path)


def look_again() -> None:
    """Forgets what was seen of QEMU: it may be another one now."""
    from bootproof.harness.qemu import binary

    binary.find_qemu.cache_clear()
    binary.build_of.cache_clear()
