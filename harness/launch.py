"""Sets a clone up where that is needed, then becomes the command line.

Started by the launcher (`bootproof`, a shell script) when its quick look does not find everything
set up, or when a command wants another look. Runs in a Python of the system's, without packages:
the standard library only. What a command is given is looked at first, so that nothing is installed
for a mistake or for --help.
"""

from __future__ import annotations

from bootproof.harness.host import early  # isort: split

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness import marks
from bootproof.harness.errors import UserError
from bootproof.harness.exitcode import CANNOT_TELL, OK, USAGE
from bootproof.harness.host import signals
from bootproof.harness.host.packages import SystemPackage, installing
from bootproof.harness.host.stdout import say
from bootproof.harness.setup import environment, needs
from bootproof.harness.setup.apt import Apt
from bootproof.harness.setup.environment import Environment
from bootproof.harness.setup.needs import Component, State

# isort: split
# Last: whoever has imported it is through with all that Ctrl-C may end without a word.
from bootproof.harness import cli

early.over()

NOT_YET: Final = """
What this version needs is not set up yet. The first command that needs it (all
but doctor) says what it is going to install, and then does: QEMU and a few
small packages with apt where they are missing, and Python packages in a virtual
environment."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What the system has not and a package would bring: `missing` is what is needed, `lacking`
    what only makes it safer. `bearable` says that there is one QEMU and only another is missing.
    """

    missing: tuple[SystemPackage, ...]
    lacking: tuple[SystemPackage, ...]
    bearable: bool


def main() -> int:
    """Called with the virtual environment's place and the user's words; gives the exit code, unless
    it becomes the command line.
    """
    path, *words = sys.argv[1:]
    words, may_install = without_no_setup(words)
    return cli.written(lambda: _launched(Path(path), words, may_install), words)


def _launched(path: Path, words: list[str], may_install: bool) -> int:
    lists = environment.DEVELOPERS if words[:1] == ["test"] else environment.USERS
    venv = Environment(path, lists)
    complete = venv.is_complete()
    if not complete or words[:1] == ["setup"]:
        understood = cli.understood(words)
        if isinstance(understood, int):
            if understood == OK and not complete and "--version" not in words:
                print(NOT_YET)
            return understood
        if not complete and words[0] == "doctor":
            return cli.main(words)
        try:
            with _interruptible():
                _set_up(venv, complete, may_install)
        except UserError as error:
            say(str(error))
            return marks.code_of_mistake(words, USAGE)
        except SystemExit:  # told already
            return marks.code_of_mistake(words, USAGE)
        except Exception as error:  # a mistake of ours
            traceback.print_exception(error)
            return marks.code_of_mistake(words, CANNOT_TELL)
    return venv.start(words)


def without_no_setup(words: list[str]) -> tuple[list[str], bool]:
    """--no-setup counts before the sub-command and directly after it, and ends here. Gives the
    other words, and whether something may be installed.
    """
    command = next((n for n, word in enumerate(words) if not word.startswith("-")), len(words))
    if "--no-setup" not in words[: command + 2]:
        return words, True
    at = words.index("--no-setup")
    return words[:at] + words[at + 1 :], False


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A signal ends us as it would have, after what runs has ended."""
    before = signals.obey_signals()
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        number = signal.Signals[signals.signal_name()]
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    signals.obey_no_more(before)


def _set_up(venv: Environment, complete: bool, may_install: bool) -> None:
    if sys.platform != "linux":
        raise UserError("bootproof runs on Linux only")
    lack = _look(venv)
    if complete and not (lack.missing and may_install):
        return
    if not may_install:
        missing = ", ".join([*map(str, lack.missing), f"{venv.contents()} in {venv.path}"])
        raise UserError(
            f"not set up, and --no-setup forbids it; missing: {missing};"
            " ./bootproof setup installs them"
        )
    apt = Apt.find()
    if lack.missing and apt.why_not:
        _do_without(lack, apt)
        if complete:
            return
    venv.claim()
    with venv.locked() as lock:
        lack = _look(venv)
        complete = venv.is_complete()
        if complete and (apt.why_not or not lack.missing):
            return
        _announce(venv, lack, apt)
        if not apt.why_not and (lack.missing or lack.lacking):
            _install(venv, lack, apt)
        venv.fill(lock)
        say("set up")


def _look(venv: Environment) -> Lack:
    emulators, others = list(needs.emulators()), list(needs.others())
    if not venv.has_pip() and environment.pip_wheel() is None:
        others.append(Component("venv", State.MISSING, package=environment.package()))
    for component in emulators:
        if component.state.is_trouble and component.package is None:
            raise UserError(f"{component.detail}; {component.remedy}")
    return Lack(
        missing=tuple(c.package for c in [*emulators, *others] if c.state.is_trouble and c.package),
        lacking=tuple(c.package for c in others if c.state is State.OPTIONAL and c.package),
        bearable=any(c.state is State.OK for c in emulators)
        and not any(c.state.is_trouble for c in others),
    )


def _named(packages: Sequence[SystemPackage]) -> str:
    return ", ".join(map(str, packages))


def _do_without(lack: Lack, apt: Apt) -> None:
    """Without apt one QEMU is enough: what runs on the other is refused when it is asked for."""
    if lack.bearable and not apt.there:
        say(f"going on without {_named(lack.missing)}")
        return
    say(f"missing: {_named(lack.missing)}. {apt.why_not}; install it by hand and run again:")
    for command in installing(lack.missing):
        say(f"  sudo {command}")
    raise SystemExit(2)


def _announce(venv: Environment, lack: Lack, apt: Apt) -> None:
    say("setting up; this gets installed now:")
    for package in () if apt.why_not else (*lack.missing, *lack.lacking):
        say(f"  {package.apt}: {package.purpose}")
    say(f"  {venv.path}: a virtual environment with {venv.contents()}")


def _install(venv: Environment, lack: Lack, apt: Apt) -> None:
    say("installing with apt")
    apt.update()
    if lack.missing and not apt.install([package.apt for package in lack.missing]):
        names = " ".join(package.apt for package in lack.missing)
        raise UserError(f"apt-get could not install {names} (its reason is above)")
    if lack.lacking and not apt.install([package.apt for package in lack.lacking]):
        say(f"without {_named(lack.lacking)} the signatures of kernels go unchecked")
    needs.look_again()
    if still := _look(venv).missing:
        for component in needs.emulators():
            if component.state is State.TOO_OLD:
                say(component.detail)
        raise UserError(f"still missing after apt-get: {_named(still)}")


if __name__ == "__main__":
    sys.exit(main())
