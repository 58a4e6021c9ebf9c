"""What bootproof finds on this machine, what is missing, and how to get it.

Owns the report behind `bootproof doctor`. Runs before the set-up too, so that a broken set-up can
be told about: at import time it needs the standard library only, and whatever needs more is looked
at in a probe of its own. Installs nothing, opens no connection. What is needed of the system is in
bootproof.harness.setup.needs.
"""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import places
from bootproof.harness.errors import UserError
from bootproof.harness.setup import needs
from bootproof.harness.setup.needs import Component, State
from bootproof.loader.address import counted
from bootproof.printable import shown_url

RUN_DIRECTORIES: Final = places.output()
SET_UP: Final = places.SET_UP
_GIB: Final = 1 << 30
# Measured: the default set with what is unpacked of it 0.9 GiB, a whole matrix 4.0 GiB.
_CACHE_ROOM: Final = 1 * _GIB
_RUN_ROOM: Final = 5 * _GIB


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
        ("QEMU", needs.emulators),
        ("programs", needs.others),
        ("user", _user),
        ("confinement", _confinement),
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
    detail = f"{release}, {platform.machine()}, {counted(cores, 'core')}, {_gib(memory)} of memory"
    yield Component("system", State.OK, detail=detail)


def _python() -> Iterator[Component]:
    yield Component("Python", State.OK, platform.python_version(), sys.executable)
    if _in_virtual_environment():
        yield Component("virtual environment", State.OK, detail=sys.prefix)
    elif not places.INSTALLED:
        yield Component("virtual environment", State.MISSING, remedy=SET_UP)


def _python_packages() -> Iterator[Component]:
    needed, developers = _requirements()
    if not places.INSTALLED and not _in_virtual_environment():
        detail = f"{len(needed)} packages and what they need"
        yield Component("Python packages", State.MISSING, detail=detail, remedy=SET_UP)
        return
    yield from map(_python_package, needed)
    if developers:
        here = [text for text in developers if _python_package(text).state is State.OK]
        state = State.OK if here == developers else State.OPTIONAL
        detail = f"{len(here)} of {len(developers)} packages; ./bootproof test adds them"
        yield Component("developers' packages", state, detail=detail)


def _requirements() -> tuple[list[str], list[str]]:
    """What the project needs to run, and in a clone, what its own tests need as well."""
    if places.CLONE is None:
        from importlib.metadata import requires

        told = requires("bootproof") or ()
        return [text for text in told if "extra ==" not in text], []
    text = (places.CLONE / "pyproject.toml").read_text("utf-8")
    project = tomllib.loads(text)["project"]
    return project["dependencies"], project["optional-dependencies"]["dev"]


def _python_package(text: str) -> Component:
    from importlib.metadata import PackageNotFoundError, version

    from packaging.requirements import Requirement

    needed = Requirement(text)
    # The stamp says that all is well: without removing it the launcher would not look again.
    remedy = f"rm {sys.prefix}/bootproof.stamp, then {SET_UP}"
    if places.INSTALLED:
        remedy = f"pip install '{text}'"
    try:
        installed = version(needed.name)
    except PackageNotFoundError:
        return Component(needed.name, State.MISSING, remedy=remedy)
    if installed not in needed.specifier:
        detail = f"{needed.specifier} is needed"
        return Component(needed.name, State.TOO_OLD, installed, detail, remedy)
    return Component(needed.name, State.OK, installed)


def _user() -> Iterator[Component]:
    from bootproof.harness.host.files import NOBODY, is_root, why_powerless

    uid = NOBODY if is_root() else os.geteuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"user {uid}"
    why = "because you are root" if is_root() else "you"
    if os.geteuid() == 0 and (lacking := why_powerless()):
        why = lacking
    yield Component("QEMU runs as", State.OK, name, why)


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


def _kernels() -> Iterator[Component]:
    from bootproof.kernels.catalog import load_catalog
    from bootproof.kernels.fetch import Fetcher

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
        return Component("mirror", State.OK, detail=shown_url(find_mirror()))
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


def _room(name: str, directory: Path, needed: int, setting: str) -> Component:
    from bootproof.harness.host.files import nearest_directory

    remedy = f"have {_gib(needed)} there, or choose another place with {setting}"
    try:
        place = nearest_directory(directory)
    except UserError as error:
        return Component(name, State.MISSING, detail=str(error), remedy=remedy)
    free = shutil.disk_usage(place).free
    detail = f"free in {directory}"
    if not os.access(place, os.W_OK):
        detail, state = f"{place} cannot be written", State.MISSING
    else:
        state = State.OK if free >= needed else State.MISSING
    return Component(name, state, _gib(free), detail, remedy if state.is_trouble else "")


def _in_virtual_environment() -> bool:
    return sys.prefix != sys.base_prefix


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB"


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
        if c.advice:
            lines.append(f"{'':<8}  -> {c.advice}")
    return "\n".join([*lines, "", *textwrap.wrap(_summary(report), 100), ""])


def _summary(report: Report) -> str:
    if report.complete:
        return "Everything that bootproof needs is here."
    names = ", ".join(c.name for c in report.trouble)
    return f"Not everything that bootproof needs is here: {names}."


def _render_table(report: Report) -> bool:
    try:
        from rich.table import Table
        from rich.text import Text

        from bootproof.harness.host.screen import drawn
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
        if c.advice:
            detail.append(("\n" if c.detail else "") + f"-> {c.advice}", "bold")
        table.add_row(state, Text(c.name), Text(c.version), detail)
    width = shutil.get_terminal_size().columns
    summary = "\n".join(["", *textwrap.wrap(_summary(report), width)])
    told = Text(summary, "green" if report.complete else "bold red")
    print(drawn(table, told, width=width, colour=True), end="")
    return True
