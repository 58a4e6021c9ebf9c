"""The pytest plugin that an installed bootproof registers: `kernel`, `boot`, `boot_image`.

For test suites of other repositories (docs/testing-your-loader.md). Adds no option and no hook,
and imports nothing of bootproof before a test asks for a fixture, so a suite that uses none pays
nothing. What runs scenarios is bootproof.harness.plugin.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pytest


@dataclass(frozen=True, slots=True, repr=False)
class BootResult:
    """How a boot ended: a verdict of docs/verdicts.md, its reason, and the run directory.

    `console` is everything the guest wrote, printable. As text it is what a failing assertion
    should show.
    """

    verdict: str
    reason: str
    directory: Path
    console: str = ""

    def __repr__(self) -> str:
        tail = [f"| {line}" for line in self.console.splitlines()[-10:]]
        return "\n".join(
            [f"{self.verdict}: {self.reason}", *tail, f"run directory {self.directory}"]
        )


class Boot(Protocol):
    """boot(KERNEL, **WORDS): the options of `bootproof boot` as words."""

    def __call__(
        self,
        kernel: str | Path,
        *,
        protocol: str = "auto",
        format: str | None = None,
        offset: str | int | None = "default",
        memory: str | int = "512M",
        cmdline: str | None = None,
        initrd: str | Path | None = None,
        machine: str | None = None,
        cpu: str | None = None,
        smp: int = 1,
        unsafe: bool = False,
    ) -> BootResult: ...


class BootTheImage(Protocol):
    """boot_image(DIRECTORY, **WORDS): the options of `bootproof run` as words."""

    def __call__(
        self,
        directory: str | Path,
        *,
        machine: str | None = None,
        cpu: str | None = None,
        smp: int | None = None,
        until: str | None = None,
        only_handover: bool = False,
    ) -> BootResult: ...


@pytest.fixture(scope="session")
def kernel() -> Callable[[str], Path]:
    """kernel(NAME): the file of a kernel of bootproof's catalogue, fetched once and cached."""

    def find(name: str) -> Path:
        from bootproof.harness.inputs import images

        with _one_line():
            return images.kernel_path(name)

    return find


@pytest.fixture
def boot(request: pytest.FixtureRequest, tmp_path: Path) -> Boot:
    """Boots a kernel file (or a kernel of the catalogue) and says how that ended."""
    directories = _directories(tmp_path, "boot")

    def run(
        kernel: str | Path,
        *,
        offset: str | int | None = "default",
        memory: str | int = "512M",
        initrd: str | Path | None = None,
        machine: str | None = None,
        **words: Any,
    ) -> BootResult:
        from bootproof.harness import prove
        from bootproof.harness.cases import from_kernel
        from bootproof.harness.inputs import images
        from bootproof.harness.report.boot_text import Console
        from bootproof.loader.errors import LoaderError

        _become_worker(request.config)
        out = next(directories)
        with _one_line():
            asked = from_kernel.Request(
                kernel=str(kernel),
                offset=from_kernel.DEFAULT if offset == "default" else _size(offset),
                memory=_size(memory) or 0,
                initrd=Path(initrd) if initrd is not None else None,
                board=machine,
                **{**_DEFAULTS, **words},
            )
            show = Console()
            options = prove.Options(initrd=images.read_initrd(asked.initrd), on_console=show)
            try:
                proven = prove.prove(from_kernel.case_for(asked), out, options)
            except LoaderError as error:  # the file is no kernel
                return BootResult(_REFUSED, str(error), out)
            show.finish()
        console = proven.outcome.observation.transcript if proven.outcome else b""
        return _result(proven.verdict.value, proven.reason, proven.directory, console)

    return run


@pytest.fixture
def boot_image(request: pytest.FixtureRequest, tmp_path: Path) -> BootTheImage:
    """Starts a boot image that any loader wrote (docs/boot-image.md) and says how that ended."""
    directories = _directories(tmp_path, "run")

    def run(
        directory: str | Path,
        *,
        machine: str | None = None,
        until: str | None = None,
        **words: Any,
    ) -> BootResult:
        from bootproof.harness.boot_image import Request, boot_image
        from bootproof.loader.errors import LoaderError

        _become_worker(request.config)
        out = next(directories)
        with _one_line():
            asked = Request(
                directory=Path(directory),
                board=machine,
                until=until.encode() if until else None,
                out=out,
                **words,
            )
            try:
                outcome = boot_image(asked, out)
            except LoaderError as error:
                return BootResult(_REFUSED, str(error), out)
        judgement = outcome.judgement
        transcript = outcome.observation.transcript
        return _result(judgement.verdict.value, judgement.reason, out, transcript)

    return run


_REFUSED: Final = "load-refused"
_DEFAULTS: Final[dict[str, Any]] = {
    "protocol": "auto",
    "format": None,
    "cmdline": None,
    "cpu": None,
    "placement": "pieces",
    "unsafe": False,
    "pvh_relocate": False,
    "smp": 1,
    "profile": "default",
    "realtime": False,
    "twice": False,
    "console": False,
    "probe": True,
    "out": None,
}


def _result(verdict: str, reason: str, directory: Path, console: bytes) -> BootResult:
    from bootproof.harness.text import printable

    text = "\n".join(map(printable, console.splitlines()))
    return BootResult(verdict, reason, directory, text)


def _size(value: str | int | None) -> int | None:
    from bootproof.harness.errors import UserError
    from bootproof.loader.address import parse_size

    try:
        return parse_size(value) if isinstance(value, str) else value
    except ValueError as error:
        raise UserError(str(error)) from None


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
        pytest.fail(f"bootproof: {error}", pytrace=False)
