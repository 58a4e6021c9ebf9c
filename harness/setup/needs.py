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
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bootproof.dataclass import dataclass
from bootproof.harness.errors import UserError
from bootproof.harness.host.packages import SystemPackage, installing
from bootproof.harness.setup import apt

if TYPE_CHECKING:
    from bootproof.harness.arch.arch import Arch, Firmware


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
        if self.remedy or self.package is None:
            return self.remedy
        return " | ".join(installing([self.package]))


def emulators() -> Iterator[Component]:
    """The QEMU of each architecture, and the firmware that must be with it."""
    from bootproof.harness.arch.table import ARCHES

    for arch in ARCHES.values():
        yield (found := _emulator(arch))
        if arch.bios is not None and found.state is State.OK:
            yield _firmware(arch, arch.bios)


def _emulator(arch: Arch) -> Component:
    from bootproof.harness.inputs import derived
    from bootproof.harness.qemu import binary

    name, variable = f"QEMU for {arch.name}", binary.variable_of(arch.name)
    chosen = os.environ.get(variable)
    if chosen == "none":
        return Component(name, State.OPTIONAL, detail=f"switched off by {variable}=none")
    derived.limit()  # asking a QEMU uses the cache: a wrong limit of that is no missing QEMU
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


def _firmware(arch: Arch, firmware: Firmware) -> Component:
    from bootproof.harness.qemu import binary

    qemu, name = binary.find_qemu(arch.name), f"{firmware.name} for {arch.name}"
    places = [Path(folder) / firmware.file for folder in binary.data_directories(qemu.path)]
    here = next((place for place in places if place.is_file()), None)
    if here is not None:
        return Component(name, State.OK, detail=str(here.parent.resolve() / here.name))
    detail = f"{qemu.path} has no {firmware.file} in {places[0].parent if places else 'its data'}"
    if variable := os.environ.get(binary.variable_of(arch.name)):
        remedy = f"give {variable} that file, or correct {binary.variable_of(arch.name)}"
        return Component(name, State.MISSING, detail=detail, remedy=remedy)
    owner = apt.owner_of(next((p for p in places if p.is_symlink()), Path("/*") / firmware.file))
    brings = (owner or firmware.packages[0], *firmware.packages[1:])
    package = SystemPackage(*brings, f"{firmware.name}, which {arch.name} guests start in")
    remedy = f"apt-get install --reinstall {owner}" if owner else ""
    return Component(name, State.MISSING, detail=detail, remedy=remedy, package=package)


def others() -> Iterator[Component]:
    """The other programs and files."""
    from bootproof.kernels import signature

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

    binary.forget()
