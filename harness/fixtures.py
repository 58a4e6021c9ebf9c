"""The pytest plugin that an installed bootproof registers: `kernel`, `boot`, `start_guest`,
`boot_image`, `proof_initramfs`.

For test suites of other repositories (docs/testing-your-loader.md). Adds no option and no hook,
and imports nothing of bootproof before a test asks for a fixture, so a suite that uses none pays
nothing. What runs scenarios is bootproof.harness.plugin.
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

from bootproof.dataclass import dataclass

if TYPE_CHECKING:
    from bootproof.harness.case import Case
    from bootproof.harness.dialogue import Dialogue
    from bootproof.harness.prove import Proven


@dataclass(frozen=True, slots=True, repr=False)
class BootResult:
    """How a boot ended: a verdict of docs/verdicts.md, its reason, and the run directory.

    `console` is everything the guest wrote, printable. `not_recorded` is None for a boot that can
    be played back, else why it cannot: in real time no two boots are the same. As text it is what a
    failing assertion should show.
    """

    verdict: str
    reason: str
    directory: Path
    console: str = ""
    not_recorded: str | None = None

    def __repr__(self) -> str:
        tail = [f"| {line}" for line in self.console.splitlines()[-10:]]
        where = f"run directory {self.directory}"
        where += f" (not recorded: {self.not_recorded})" if self.not_recorded else ""
        return "\n".join([f"{self.verdict}: {self.reason}", *tail, where])


class Boot(Protocol):
    """boot(KERNEL, **WORDS): the options of `bootproof boot` as words."""

    def __call__(self, kernel: str | Path, **words: Any) -> BootResult: ...


class Guest:
    """A guest that a test talks to, in real time; `timeout` is in seconds of the host.

    What the guest does not do fails the test, with what it said last.
    """

    def __init__(self, dialogue: Dialogue, directory: Path) -> None:
        self._dialogue, self.directory = dialogue, directory

    @property
    def console(self) -> str:
        """All that the guest has said so far."""
        return self._dialogue.console

    @property
    def before(self) -> str:
        """What it said between the last two matches of `expect`."""
        return self._dialogue.before

    def expect(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Waits for what a regular expression matches, behind the last match."""
        __tracebackhide__ = True
        with _one_line():
            return self._dialogue.expect(pattern, timeout)

    def send(self, text: str, timeout: float = 60) -> None:
        """Says `text` as it is: `"\\x03"` is Ctrl-C."""
        __tracebackhide__ = True
        with _one_line():
            self._dialogue.send(text, timeout)

    def sendline(self, text: str = "", timeout: float = 60) -> None:
        """Says a line."""
        __tracebackhide__ = True
        self.send(f"{text}\n", timeout)

    def wait(self, timeout: float = 60) -> BootResult:
        """Waits for the guest to end by itself."""
        __tracebackhide__ = True
        with _one_line():
            return _result_of(self._dialogue.wait(timeout))

    def end(self) -> BootResult:
        """Ends the guest, if it has not ended, and says how that was."""
        with _one_line():
            return _result_of(self._dialogue.end())


class StartGuest(Protocol):
    """start_guest(KERNEL, **WORDS): the options of `bootproof boot` as words."""

    def __call__(self, kernel: str | Path, **words: Any) -> Guest: ...


class BootTheImage(Protocol):
    """boot_image(DIRECTORY, **WORDS): the options of `bootproof run` as words."""

    def __call__(
        self,
        directory: str | Path,
        *,
        kernel: str | Path | None = None,
        **words: Any,
    ) -> BootResult: ...


@dataclass(frozen=True, slots=True)
class ProofInitramfs:
    """The initramfs whose init proves a boot, and the words of the kernel's command line for it.

    `cmdline` has a nonce that no other boot image has.
    """

    path: Path
    cmdline: str


class MakeProofInitramfs(Protocol):
    """proof_initramfs(ARCH, initrd=FILE, machine=NAME): a user's own archive lies behind ours."""

    def __call__(
        self,
        arch: str | None = None,
        *,
        initrd: str | Path | None = None,
        machine: str | None = None,
    ) -> ProofInitramfs: ...


@pytest.fixture(scope="session")
def kernel() -> Callable[[str], Path]:
    """kernel(NAME): the file of a kernel of bootproof's catalogue, fetched once and cached."""

    def find(name: str) -> Path:
        from bootproof.harness.inputs import images

        with _one_line():
            return images.kernel_file(name).path

    return find


@pytest.fixture
def boot(request: pytest.FixtureRequest, tmp_path: Path) -> Boot:
    """Boots a kernel file (or a kernel of the catalogue) and says how that ended."""
    directories = _directories(tmp_path, "boot")

    def run(kernel: str | Path, **words: Any) -> BootResult:
        from bootproof.harness.cases import from_kernel

        case_of = partial(from_kernel.case_of, str(kernel), command="boot")
        return _booted(request.config, case_of, words, next(directories))

    return run


@pytest.fixture
def start_guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StartGuest]:
    """Starts a guest for a test to talk to; whatever the test does, it has ended afterwards."""
    directories = _directories(tmp_path, "guest")
    with _one_line(), ExitStack() as guests:

        def start(kernel: str | Path, **words: Any) -> Guest:
            from bootproof.harness.cases import from_kernel, qemus
            from bootproof.harness.dialogue import dialogue
            from bootproof.harness.errors import UserError
            from bootproof.loader.errors import LoaderError

            _become_worker(request.config)
            out = next(directories)
            with _one_line():
                asked, paths = qemus.of_words(_asked(words))
                try:
                    case = from_kernel.case_of(str(kernel), asked, "boot")
                    return Guest(guests.enter_context(dialogue(case, out, paths)), out)
                except LoaderError as error:
                    raise UserError(f"{_REFUSED}: {error}") from error

        yield start


@pytest.fixture
def boot_image(request: pytest.FixtureRequest, tmp_path: Path) -> BootTheImage:
    """Starts a boot image that any loader wrote (docs/boot-image.md) and says how that ended."""
    directories = _directories(tmp_path, "run")

    def run(
        directory: str | Path,
        *,
        kernel: str | Path | None = None,
        **words: Any,
    ) -> BootResult:
        from bootproof.harness.cases import of_image

        held_against = None if kernel is None else str(kernel)
        case_of = partial(of_image.case_of, Path(directory), kernel=held_against)
        return _booted(request.config, case_of, words, next(directories))

    return run


@pytest.fixture
def proof_initramfs(tmp_path: Path) -> MakeProofInitramfs:
    """Writes the initramfs that a boot image needs to prove its boot: another one each time."""
    files = (tmp_path / f"proof-{number}.cpio" for number in itertools.count(1))

    def make(
        arch: str | None = None, *, initrd: str | Path | None = None, machine: str | None = None
    ) -> ProofInitramfs:
        from bootproof.harness import command_line, prepare
        from bootproof.harness.arch.table import ARCHES
        from bootproof.harness.errors import UserError
        from bootproof.harness.host.files import read_given
        from bootproof.harness.inputs.images import LARGEST_INITRD
        from bootproof.harness.qemu.machine import Machine

        arch = arch or next(iter(ARCHES))
        with _one_line():
            if arch not in ARCHES:
                raise UserError(f"proof_initramfs: {arch!r} is not one of {', '.join(ARCHES)}")
            file = next(files)
            own = b"" if initrd is None else read_given(Path(initrd), LARGEST_INITRD)
            Machine.check_board(ARCHES[arch], machine)
            file.write_bytes(prepare.evidence_archive(arch, machine) + own)
        words = f"{command_line.RDINIT} {command_line.NONCE}{secrets.token_hex(16)}"
        return ProofInitramfs(file, words)

    return make


_REFUSED: Final = "load-refused"


def _asked(words: Mapping[str, Any]) -> dict[str, Any]:
    """A test's words as scenario files have them: None is as if nothing were said, and a list is of
    what an option may be repeated for.
    """
    given = {name: _word(value) for name, value in words.items() if value is not None}
    return {**given, "offset": "none"} if words.get("offset", ...) is None else given


def _word(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return "\n".join(str(_word(item)) for item in value)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _booted(
    config: pytest.Config,
    case_of: Callable[[Mapping[str, Any]], Case],
    words: Mapping[str, Any],
    out: Path,
) -> BootResult:
    """Boots a case, told on standard output, which pytest shows of a test that fails."""
    from bootproof.harness.cases import qemus
    from bootproof.harness.prepare import Options
    from bootproof.harness.prove import prove
    from bootproof.harness.report import boot_text
    from bootproof.loader.errors import LoaderError

    _become_worker(config)
    with _one_line():
        asked, paths = qemus.of_words(_asked(words))
        try:
            case = case_of(asked)
        except LoaderError as error:  # the file is no kernel, the directory no boot image
            return BootResult(_REFUSED, str(error), out)
        show = boot_text.Console()
        proven = prove(case, out, Options(on_console=show, qemus=paths))
        show.finish()
        if proven.prepared is not None:
            boot_text.print_request(case, proven.prepared)
        boot_text.print_verdict(proven)
    return _result_of(proven)


def _result_of(proven: Proven) -> BootResult:
    from bootproof.harness.text import printable

    told = (proven.verdict.value, proven.reason, proven.directory)
    seen = proven.outcome
    if seen is None:
        return BootResult(*told)
    text = "\n".join(map(printable, seen.observation.transcript.splitlines()))
    return BootResult(*told, text, seen.not_recorded)


def _directories(parent: Path, name: str) -> Iterator[Path]:
    """A run directory for each boot of a test: pytest keeps those of its last runs."""
    return (parent / f"{name}-{number}" for number in itertools.count(1))


def _become_worker(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        from bootproof.harness.host import signals

        signals.become_worker()


@contextmanager
def _one_line() -> Iterator[None]:
    """What is the environment's or the caller's fault fails the test with one line."""
    from bootproof.harness.errors import UserError
    from bootproof.kernels.errors import FetchError

    try:
        yield
    except (UserError, FetchError) as error:
        raise pytest.fail.Exception(f"bootproof: {error}", pytrace=False) from None
