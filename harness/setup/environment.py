"""The virtual environment of a clone: made, filled by pip, and known to be complete.

Owns what is written into it. A set-up that was cut off, whatever ended it, goes on where it was;
only a directory that is ours, empty, or a virtual environment is ever written to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from bootproof.dataclass import dataclass
from bootproof.harness import places
from bootproof.harness.errors import UserError
from bootproof.harness.host.packages import SystemPackage
from bootproof.harness.host.stdout import say
from bootproof.harness.setup import children

USERS: Final = ("requirements.txt",)
DEVELOPERS: Final = (*USERS, "requirements-dev.txt")
"""The lists of packages; each but the first includes the one before."""
_MAKING, _INSTALLING = "making", "installing"
_LOCK: Final = "bootproof.lock"
_OURS: Final = ("pyvenv.cfg", _LOCK)
_CLONE: Final = places.need_clone("a set-up")
_ELSEWHERE: Final = "let BOOTPROOF_VENV name"


@dataclass(frozen=True, slots=True)
class Environment:
    """The virtual environment at `path`, for the lists of packages `lists`."""

    path: Path
    lists: tuple[str, ...] = USERS

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"

    @property
    def stamp(self) -> Path:
        """What is written last: the checksum of USERS, the Python behind the virtual environment
        (which a system upgrade can take away or replace), and the checksums of further lists. The
        launcher reads the first two.
        """
        return self.path / "bootproof.stamp"

    def is_complete(self) -> bool:
        """Whether a set-up has ended here, and what it rests on is the same still."""
        try:
            users, python, *more = self._stamped()
            return self.python.samefile(python) and [users, *more][: len(self.lists)] == [
                _checksum(name) for name in self.lists
            ]
        except (OSError, ValueError):
            return False

    def has_pip(self) -> bool:
        """Whether there is a working Python with pip."""
        packages = self._site_packages()
        return packages is not None and any(packages.glob("pip-*.dist-info/RECORD"))

    def contents(self) -> str:
        """What is installed into it, in words."""
        text = "".join((_CLONE / name).read_text("utf-8") for name in self.lists)
        return f"the {text.count('==')} packages of {self.lists[-1]}"

    def claim(self) -> None:
        """Makes the directory. Raises UserError when it is not ours to write to, or cannot be, and
        when it is of a Python that is too old.
        """
        try:
            # What is in it comes first: another set-up may be creating the lock meanwhile.
            foreign = self.path.is_dir() and any(self.path.iterdir())
            if foreign and not any((self.path / name).exists() for name in _OURS):
                raise UserError(
                    f"{self.path} is not a virtual environment; {_ELSEWHERE} a new directory"
                )
            self._refuse_an_old_python()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.touch()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written; {_ELSEWHERE} a directory that can"
            ) from error

    def _refuse_an_old_python(self) -> None:
        """A user may make the virtual environment, of any Python that there is."""
        project = tomllib.loads((_CLONE / "pyproject.toml").read_text("utf-8"))["project"]
        needed = project["requires-python"].removeprefix(">=")
        here = self._asked("platform", "platform.python_version()")
        if here and [int(n) for n in here.split(".")[:2]] < [int(n) for n in needed.split(".")]:
            raise UserError(
                f"{self.path} is of Python {here}, and {needed} or newer is needed; remove it, or"
                f" {_ELSEWHERE} another"
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """One set-up at a time. Gives the lock's file descriptor: pip inherits it, so that the lock
        holds even when we are killed.
        """
        with self._lock.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another set-up is at work; waiting for it")
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                say(f"no lock in this file system: {error}")
            yield file.fileno()

    def fill(self, lock: int) -> None:
        """Makes the virtual environment if there is none, and installs the packages. `lock` is kept
        open by pip. Raises UserError, and KeyboardInterrupt when a signal cuts it off.
        """
        packages = self._site_packages() or self._made()
        if not self.has_pip():
            _unpack_pip(packages)
        say("installing the Python packages")
        self._mark(_INSTALLING)
        _drop_half_installed(packages)
        # A directory of our own for temporary files: whatever ends pip, nothing is left elsewhere.
        self._remove_temporary()
        (self.path / "tmp").mkdir()
        try:
            if not self._pip_installs(lock):
                raise UserError(
                    f"pip could not install {self.lists[-1]} (its reason is above);"
                    " the same command goes on from here"
                )
        finally:
            self._remove_temporary()
        self._add_ourselves(packages)
        users, *more = (_checksum(name) for name in self.lists)
        self._mark(users, str(self.python.resolve()), *more)

    def _remove_temporary(self) -> None:
        shutil.rmtree(self.path / "tmp", ignore_errors=True)

    def start(self, words: list[str]) -> NoReturn:
        """Becomes the command line in here, so that signals and the exit code are its own."""
        command = [str(self.python), "-P", "-m", "bootproof.harness.cli", *words]
        os.execv(self.python, command)

    @property
    def _lock(self) -> Path:
        return self.path / _LOCK

    def _stamped(self) -> list[str]:
        return self.stamp.read_text("utf-8", "replace").splitlines()

    def _mark(self, *lines: str) -> None:
        new = self.stamp.with_suffix(".new")
        try:
            new.write_text("".join(f"{line}\n" for line in lines), "utf-8")
            new.replace(self.stamp)
        except OSError as error:
            raise UserError(f"{self.stamp} cannot be written: {error.strerror}") from error

    def _site_packages(self) -> Path | None:
        """Where packages go, if there is a Python that works. What was being made when something
        interrupted it is not trusted.
        """
        if self.stamp.exists() and self._stamped() == [_MAKING]:
            return None
        said = self._asked("sysconfig", "sysconfig.get_path('purelib')")
        return None if said is None else Path(said)

    def _asked(self, module: str, expression: str) -> str | None:
        """What the Python in here says; None when there is none that works."""
        command = [str(self.python), "-I", "-c", f"import {module}; print({expression})"]
        try:
            said = subprocess.check_output(command, stderr=subprocess.DEVNULL, encoding="utf-8")
        except (OSError, subprocess.SubprocessError):
            return None
        return said.strip() or None

    def _made(self) -> Path:
        say("making the virtual environment")
        self._mark(_MAKING)
        for name in ("bin", "include", "lib", "lib64", "share", "pyvenv.cfg"):
            part = self.path / name
            if part.is_dir() and not part.is_symlink():
                shutil.rmtree(part)
            else:
                part.unlink(missing_ok=True)
        try:
            venv.create(self.path, symlinks=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"{self.path}: no virtual environment: {error}") from error
        self._mark(_INSTALLING)
        packages = self._site_packages()
        if packages is None:
            raise UserError(f"{self.python}: the Python of the new environment does not work")
        return packages

    def _add_ourselves(self, packages: Path) -> None:
        """Lets this Python import bootproof; a clone with its virtual environment may be moved."""
        source = str(_CLONE / "src")
        if self.path.is_relative_to(_CLONE):
            source = os.path.relpath(source, packages)
        (packages / "bootproof.pth").write_text(f"{source}\n", "utf-8")

    def _pip_installs(self, lock: int) -> bool:
        # The lists are complete, so nothing has to be looked up. Modules are compiled when they are
        # first used: most never are.
        options = ("-qq", "--no-input", "--disable-pip-version-check", "--no-deps", "--no-compile")
        return children.run(
            [
                *(self.python, "-I", "-m", "pip", "install", *options),
                *("-r", _CLONE / self.lists[-1]),
            ],
            stdout=sys.stderr,
            environment={"TMPDIR": str(self.path / "tmp"), "PIP_USER": "0"},
            inherits=[lock],
        )


def pip_wheel() -> Path | None:
    """The pip that comes with this Python; some systems keep it in a package of its own."""
    bundled = Path(sysconfig.get_path("stdlib")) / "ensurepip" / "_bundled"
    folders = (sysconfig.get_config_var("WHEEL_PKG_DIR"), bundled)
    return next((wheel for f in folders if f for wheel in Path(f).glob("pip-*.whl")), None)


def package() -> SystemPackage:
    """What brings the pip for this Python, which need not be the system's default."""
    apt = f"{Path(sys.executable).resolve().name}-venv"
    return SystemPackage(apt, "python3", "python", "makes the virtual environment")


def _unpack_pip(packages: Path) -> None:
    """Installs pip as its own files say: much faster than ensurepip, which compiles all of it."""
    wheel = pip_wheel()
    if wheel is None:
        raise UserError(f"{sys.executable} has no pip for virtual environments")
    with zipfile.ZipFile(wheel) as archive:
        # The record last: without it a package counts as cut off.
        names = sorted(archive.namelist(), key=lambda name: name.endswith("/RECORD"))
        archive.extractall(packages, names)


def _drop_half_installed(packages: Path) -> None:
    """pip writes a package's RECORD last. What has none was cut off half-way, and pip would take it
    for installed.
    """
    for info in packages.glob("*.dist-info"):
        if not (info / "RECORD").is_file():
            shutil.rmtree(info)


def _checksum(name: str) -> str:
    with (_CLONE / name).open("rb") as file:
        run = subprocess.run(
            ["cksum"], stdin=file, capture_output=True, encoding="utf-8", check=True
        )
    return run.stdout.strip()
