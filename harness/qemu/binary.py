"""The QEMU programs of this host: which one is taken for an architecture, and its version.

Starts nothing but `--version` and `-L help`. What a QEMU says of itself and of its machines stays
in the cache, as long as it is the same program.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import places
from bootproof.harness.arch.arch import Version
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.host.files import open_regular
from bootproof.harness.host.to_end import run_to_end
from bootproof.harness.inputs import derived
from bootproof.harness.text import printable
from bootproof.kernels import scratch
from bootproof.kernels.errors import FetchError

_OTHER: Final = re.compile(r"(qemu-system-[a-z0-9_]+)(?:\.exe)?")
_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_ELF: Final = b"\x7fELF"
_ASKING: Final = threading.Lock()
ANSWER_SECONDS: Final = 60.0
QEMU_MINIMUM: Final[Version] = (7, 2, 0)


@dataclass(frozen=True, slots=True)
class QemuBinary:
    """A QEMU system emulator and its version."""

    path: str
    version: Version

    def __str__(self) -> str:
        return f"{Path(self.path).name} {version_text(self.version)}"


def version_text(version: Version) -> str:
    return ".".join(map(str, version))


def variable_of(arch_name: str) -> str:
    """The environment variable that names the QEMU for an architecture, or is `none`."""
    return f"BOOTPROOF_QEMU_{arch_name.upper()}"


def find_qemu(arch_name: str, binary: str | None = None) -> QemuBinary:
    """The emulator for an architecture: `binary`, else BOOTPROOF_QEMU_<ARCH>, else that on PATH.

    Raises UserError when there is none or the variable says `none`, it does not run, or it is older
    than 7.2.
    """
    path = _path(arch_name, binary)
    version = qemu_version(path)
    if version < QEMU_MINIMUM:
        old, needed = version_text(version), version_text(QEMU_MINIMUM)
        raise UserError(f"{path}: QEMU {old} is too old; bootproof needs {needed} or newer")
    return QemuBinary(path, version)


@contextlib.contextmanager
def ahead(arch_name: str, binary: str | None) -> Iterator[None]:
    """Has begun what `find_qemu` and the next QEMU of this thread would wait for: it is done while
    the rest of us is imported.
    """
    with contextlib.suppress(UserError):  # `find_qemu` says so
        path = _path(arch_name, binary)
        threading.Thread(target=_ask, args=(path,), daemon=True).start()
    from bootproof.harness.host.process import launched_ahead  # while QEMU answers

    with launched_ahead():
        yield


def _ask(path: str) -> None:
    with contextlib.suppress(UserError):
        build_of(path)


def _path(arch_name: str, binary: str | None) -> str:
    """Of the emulator that `find_qemu` takes. Raises UserError."""
    arch = ARCHES[arch_name]
    variable = variable_of(arch_name)
    named = binary or os.environ.get(variable)
    if named == "none" and not binary:
        raise UserError(f"QEMU for {arch_name} is switched off by {variable}=none")
    # That of a build or an installation has one for each guest. Path.is_dir raises for long names.
    if named and os.path.isdir(named):  # noqa: PTH112
        named = str(Path(named).absolute() / arch.emulator)  # of "." only a name would be left
    other = _OTHER.fullmatch(Path(named or "").name)
    if other and other[1] != arch.emulator:
        raise UserError(
            f"{named}: is no QEMU for {arch_name}; name the directory that has {arch.emulator} too"
        )
    installed = shutil.which(named or arch.emulator)
    if installed is None and not named:
        raise UserError(
            f"{arch.emulator} is not installed; run `{places.SET_UP}`, or name one in {variable}"
        )
    if installed is None and os.path.exists(str(named)):  # noqa: PTH110  # here, not on the PATH
        installed = named
    # Absolute: it is started in its run directory.
    return str(Path(installed).absolute()) if installed else str(named)


def answer(path: str, asked: Sequence[str], name: str, ask: Callable[[Path], object]) -> bytes:
    """What `ask` has a QEMU write into a file of this name, when it is `asked` for something: out
    of the cache, where the same program was asked for it before. Raises what `ask` raises.
    """
    program = _identity(path)
    if program is not None:
        source = hashlib.sha256(repr((program, asked)).encode()).hexdigest()
        # Without a cache, or the package that says where it is, this is only slower; and so it is
        # when somebody else has just removed the answer.
        with contextlib.suppress(FetchError, ModuleNotFoundError, FileNotFoundError):
            _, held = derived.kept(source, name, ask)
            return held.path.read_bytes()
    with scratch.directory() as directory:
        ask(directory / name)
        return (directory / name).read_bytes()


def _identity(path: str) -> str | None:
    """What changes with a program: its file's place, size and times, as a text.

    None of what cannot be read, or is no program of its own: a script starts another, and so does
    what goes by the names of others (snap).
    """
    file_path = os.path.realpath(path)
    if Path(file_path).name != Path(path).name:
        return None
    try:
        with open_regular(Path(file_path)) as file:
            if file.read(len(_ELF)) != _ELF:
                return None
            status = os.fstat(file.fileno())
    except OSError:
        return None
    place = file_path, status.st_dev, status.st_ino
    return repr((place, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


def forget() -> None:
    """Forgets what scripts said: it may be another QEMU that they start now."""
    _build_of.cache_clear()


def qemu_version(path: str) -> Version:
    """The version a QEMU binary says it has. Raises UserError when it says none."""
    said = _VERSION.match(build_of(path))
    assert said is not None, "a build without a version"
    major, minor, micro = map(int, said.groups())
    return (major, minor, micro)


def data_directories(path: str) -> list[str]:
    """Where a QEMU looks for firmware and the like. Raises UserError."""
    said = _said_by(path, "-L", "help").decode("utf-8", "surrogateescape")
    return [line for line in said.splitlines() if line.startswith("/")]


def build_of(path: str) -> str:
    """What a QEMU binary says about its build: version and package. Raises UserError.

    It is asked once, as long as it is the same program, and waited for by all who ask meanwhile.
    """
    with _ASKING:
        return _build_of(path, _identity(path))


@functools.lru_cache(maxsize=64)
def _build_of(path: str, _program: str | None) -> str:
    return answer(path, ["--version"], "version", functools.partial(_write_build, path)).decode()


def _write_build(path: str, target: Path) -> None:
    lines = _said_by(path, "--version").strip().splitlines() or [b"nothing"]
    said = printable(lines[0].removeprefix(b"QEMU emulator version "))
    if _VERSION.match(said) is None:
        raise UserError(f"{path}: does not look like QEMU; `--version` said: {said}")
    target.write_text(said, "utf-8")


def _said_by(path: str, *words: str) -> bytes:
    try:
        run = run_to_end([path, *words], ANSWER_SECONDS)
    except OSError as error:
        raise UserError(f"{path}: cannot be run as QEMU: {error.strerror or error}") from error
    return run.stdout + run.stderr
