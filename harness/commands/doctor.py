"""What bootproof finds on this machine, what is missing, and how to get it.

Owns the report behind `bootproof doctor`. Runs before the set-up too (`python -m
bootproof.harness.commands.doctor`, started by the launcher), so that a broken set-up can be told
about: at import time it needs the standard library only, and whatever needs more is looked at in a
probe of its own. Installs nothing, opens no connection. The names of system packages are in
system-packages.txt, which the launcher reads as well.
"""

from __future__ import annotations

import argparse
import enum
import importlib.metadata
import os
import platform
import pwd
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from bootproof.harness import places
from bootproof.harness.commands import OK, USAGE, Command
from bootproof.harness.errors import UserError

RUN_DIRECTORIES: Final = places.output()
SYSTEM_PACKAGES: Final = places.PACKAGES / "harness" / "system-packages.txt"
SET_UP: Final = places.SET_UP
_GIB: Final = 1 << 30
# Measured: the default set with what is unpacked of it 0.9 GiB, a whole matrix 4.0 GiB.
_CACHE_ROOM: Final = 1 * _GIB
_RUN_ROOM: Final = 5 * _GIB


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
    """One thing bootproof uses. `detail` says where it is or what is wrong, `remedy` what to do."""

    name: str
    state: State
    version: str = ""
    detail: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was looked at, in the order it is shown."""

    components: tuple[Component, ...]

    @property
    def complete(self) -> bool:
        """Is everything here that bootproof needs?"""
        return not self.trouble

    @property
    def trouble(self) -> tuple[Component, ...]:
        return tuple(c for c in self.components if c.state.is_trouble)


def examine() -> Report:
    """Looks at the machine as it is now. Raises nothing: what cannot be looked at is UNKNOWN."""
    probes: tuple[tuple[str, Callable[[], Iterator[Component]]], ...] = (
        ("system", _system),
        ("Python", _python),
        ("Python packages", _python_packages),
        ("QEMU", _emulators),
        ("setpriv", _setpriv),
        ("user", _user),
        ("confinement", _confinement),
        ("signatures", _signatures),
        ("kernels", _kernels),
        ("disk space", _disk_space),
        ("shared memory", _shared_memory),
    )
    return Report(tuple(c for name, probe in probes for c in _guarded(name, probe)))


def _guarded(name: str, probe: Callable[[], Iterator[Component]]) -> list[Component]:
    try:
        return list(probe())
    except ModuleNotFoundError as error:
        detail = f"cannot be looked at without the Python package {error.name}"
        return [Component(name, State.UNKNOWN, detail=detail, remedy=SET_UP)]
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return [Component(name, State.UNKNOWN, detail=str(error))]


# --- the probes --------------------------------------------------------------------------------


def _system() -> Iterator[Component]:
    release = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0))
    detail = f"{release}, {platform.machine()}, {cores} cores, {_gib(memory)} of memory"
    yield Component("system", State.OK, detail=detail)


def _python() -> Iterator[Component]:
    fit = sys.version_info >= (3, 11)
    yield Component(
        "Python",
        State.OK if fit else State.TOO_OLD,
        platform.python_version(),
        sys.executable,
        "" if fit else how_to_get("python"),
    )
    if _in_virtual_environment():
        yield Component("virtual environment", State.OK, detail=sys.prefix)
    elif not places.INSTALLED:
        yield Component("virtual environment", State.MISSING, remedy=SET_UP)


def _python_packages() -> Iterator[Component]:
    if places.INSTALLED:
        for requirement in importlib.metadata.requires("bootproof") or ():
            if "extra ==" not in requirement:
                yield _python_package(requirement, State.MISSING, "")
        return
    pyproject = places.PACKAGES / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    needed: list[str] = project["dependencies"]
    if not _in_virtual_environment():
        detail = f"{len(needed)} packages and what they need"
        yield Component("Python packages", State.MISSING, detail=detail, remedy=SET_UP)
        return
    for requirement in needed:
        yield _python_package(requirement, State.MISSING, "")
    for requirement in project["optional-dependencies"]["dev"]:
        yield _python_package(requirement, State.OPTIONAL, "only ./bootproof test needs it")


def _python_package(requirement: str, when_absent: State, purpose: str) -> Component:
    name, minimum = split_requirement(requirement)
    # The stamp says that all is well: without removing it the launcher would not look again.
    remedy = f"rm {sys.prefix}/bootproof.stamp, then {SET_UP}"
    if places.INSTALLED:
        remedy = f"pip install '{requirement}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Component(name, when_absent, detail=purpose, remedy=remedy)
    if numbers(version) < numbers(minimum):
        return Component(name, State.TOO_OLD, version, f"{minimum} or newer is needed", remedy)
    return Component(name, State.OK, version, purpose)


def split_requirement(requirement: str) -> tuple[str, str]:
    """("rich", "13") of "rich>=13"; the minimum is "0" when there is none.

    Raises ValueError for any other form; pyproject.toml uses only these two.
    """
    match = re.fullmatch(r"([A-Za-z0-9._-]+?)(?:>=([0-9.]+))?", requirement)
    if match is None:
        raise ValueError(f"pyproject.toml: cannot read the requirement {requirement!r}")
    return match[1], match[2] or "0"


def _emulators() -> Iterator[Component]:
    from bootproof.harness.arch.table import ARCHES
    from bootproof.harness.qemu.machine import find_qemu

    for arch in ARCHES:
        name, variable = f"QEMU for {arch}", f"BOOTPROOF_QEMU_{arch.upper()}"
        chosen = os.environ.get(variable)
        if chosen == "none":
            yield Component(name, State.OPTIONAL, detail=f"switched off by {variable}=none")
            continue
        try:
            found = find_qemu(arch)
        except UserError as error:
            state = State.TOO_OLD if "too old" in str(error) else State.MISSING
            remedy = f"correct {variable}" if chosen else how_to_get(f"qemu-{arch}")
            yield Component(name, state, detail=str(error), remedy=remedy)
        else:
            version = ".".join(map(str, found.version))
            path = shutil.which(found.path) or found.path
            yield Component(name, State.OK, version, path + (f" ({variable})" if chosen else ""))


def _setpriv() -> Iterator[Component]:
    yield _program("setpriv", State.MISSING, "starts QEMU so that no process is left behind")


def _user() -> Iterator[Component]:
    from bootproof.harness.host.files import NOBODY, is_root

    uid = NOBODY if is_root() else os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"user {uid}"
    yield Component("QEMU runs as", State.OK, name, "because you are root" if is_root() else "you")


def _confinement() -> Iterator[Component]:
    from bootproof.harness.host.confined import landlock_abi

    abi = landlock_abi()
    if abi:
        yield Component("Landlock", State.OK, f"ABI {abi}", "keeps QEMU in its run directory")
    else:
        yield Component(
            "Landlock",
            State.OPTIONAL,
            detail="QEMU can read what its user can (docs/security.md)",
            remedy="Linux 5.13 or newer with Landlock among the security modules (lsm=)",
        )


def _signatures() -> Iterator[Component]:
    from bootproof.kernels.signature import default_keyring

    yield _program("gpgv", State.OPTIONAL, "checks the signatures of downloaded kernels")
    keyring = default_keyring()
    if keyring is not None and keyring.is_file():
        yield Component("Debian keyring", State.OK, detail=str(keyring))
    else:
        detail = f"{keyring} does not exist" if keyring else "signatures go unchecked without it"
        remedy = how_to_get("keyring")
        yield Component("Debian keyring", State.OPTIONAL, detail=detail, remedy=remedy)


def _kernels() -> Iterator[Component]:
    from bootproof.kernels import Fetcher, load_catalog

    default = {entry.name for entry in load_catalog().default()}
    absent = []
    for row in Fetcher().list_rows():
        name = row.entry.name
        if row.cached:
            version = row.resolved.version if row.resolved else ""
            yield Component(name, State.OK, version, "in the cache")
        elif name in default:
            absent.append(name)
            detail = "not downloaded yet; that happens when it is needed"
            remedy = f"{places.COMMAND} fetch {name}"
            yield Component(name, State.OPTIONAL, detail=detail, remedy=remedy)
    yield _mirror(needed=bool(absent))


def _mirror(needed: bool) -> Component:
    from bootproof.kernels.errors import MirrorUnknown
    from bootproof.kernels.mirror import find_mirror

    try:
        return Component("mirror", State.OK, detail=_without_password(find_mirror()))
    except MirrorUnknown as error:
        state = State.MISSING if needed else State.OPTIONAL
        return Component("mirror", state, detail=str(error))


def _disk_space() -> Iterator[Component]:
    from bootproof.kernels.cache import default_cache_dir

    yield _room("cache", default_cache_dir(), _CACHE_ROOM, "BOOTPROOF_CACHE")
    yield _room("run directories", RUN_DIRECTORIES, _RUN_ROOM, "--out")


def _shared_memory() -> Iterator[Component]:
    place = Path("/dev/shm")
    if place.is_dir() and os.access(place, os.W_OK):
        free = shutil.disk_usage(place).free
        yield Component("shared memory", State.OK, _gib(free), f"{place} (free)")
    else:
        detail = f"{place} cannot be written; guest RAM goes to the disk instead"
        yield Component("shared memory", State.OPTIONAL, detail=detail)


# --- what the probes share ---------------------------------------------------------------------


def how_to_get(component: str) -> str:
    """The commands that install a component of system-packages.txt, for three package managers."""
    for line in SYSTEM_PACKAGES.read_text("utf-8").splitlines():
        fields = line.split(maxsplit=4)
        if fields[:1] == [component]:
            _, apt, dnf, pacman, _ = fields
            return f"apt-get install {apt} | dnf install {dnf} | pacman -S {pacman}"
    raise ValueError(f"{SYSTEM_PACKAGES.name} has no component {component}")


def _program(name: str, when_absent: State, purpose: str) -> Component:
    path = shutil.which(name)
    if path is None:
        return Component(name, when_absent, detail=purpose, remedy=how_to_get(name))
    command = [path, "--version"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    version = re.search(r"\d+(\.\d+)+", run.stdout)
    return Component(name, State.OK, version[0] if version else "", path)


def _room(name: str, directory: Path, needed: int, setting: str) -> Component:
    place = directory
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    detail = f"free in {directory}"
    if not os.access(place, os.W_OK):
        detail, state = f"{place} cannot be written", State.MISSING
    else:
        state = State.OK if free >= needed else State.MISSING
    remedy = f"have {_gib(needed)} there, or choose another place with {setting}"
    return Component(name, state, _gib(free), detail, remedy if state.is_trouble else "")


def _in_virtual_environment() -> bool:
    return sys.prefix != sys.base_prefix


def numbers(version: str) -> tuple[int, ...]:
    """The numbers in a version, for comparing: (2, 31) of "2.31"."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


# --- showing it --------------------------------------------------------------------------------


def render(report: Report) -> None:
    """Prints the report: a table on a terminal, else lines that a log or grep can take."""
    if not (sys.stdout.isatty() and _render_table(report)):
        print(plain(report), end="")


def plain(report: Report) -> str:
    """The report as text, one component a line and its remedy on the next."""
    lines = []
    for c in report.components:
        lines.append(f"{c.state.value:<8}  {c.name:<19}  {c.version:<16}  {c.detail}".rstrip())
        if c.remedy:
            lines.append(f"{'':<8}  -> {c.remedy}")
    return "\n".join([*lines, "", *textwrap.wrap(_summary(report), 100), ""])


def _summary(report: Report) -> str:
    if report.complete:
        return "Everything that bootproof needs is here."
    names = ", ".join(c.name for c in report.trouble)
    return f"Not everything that bootproof needs is here: {names}."


def _render_table(report: Report) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        return False
    styles = {State.OK: "green", State.OPTIONAL: "yellow", State.UNKNOWN: "yellow"}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("state", "component", "version"):
        table.add_column(heading, no_wrap=True)
    table.add_column("detail", overflow="fold")
    for c in report.components:
        state = Text(c.state.value, styles.get(c.state, "bold red"))
        detail = Text(c.detail)
        if c.remedy:
            detail.append(("\n" if c.detail else "") + f"-> {c.remedy}", "bold")
        table.add_row(state, Text(c.name), Text(c.version), detail)
    console = Console()
    console.print(table)
    console.print(Text(f"\n{_summary(report)}", "green" if report.complete else "bold red"))
    return True


def _run(_arguments: argparse.Namespace) -> int:
    """0 when everything needed is here, else 2."""
    report = examine()
    render(report)
    return OK if report.complete else USAGE


COMMAND: Final = Command("what is installed, what is missing, how to get it", "doctor", _run)

if __name__ == "__main__":
    sys.exit(_run(argparse.Namespace()))
