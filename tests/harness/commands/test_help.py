"""Help fits a screen and shows an example; completion knows every command."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bootproof.harness import cli
from tests import ROOT

LINES, COLUMNS = 40, 80


def parsers() -> dict[str, argparse.ArgumentParser]:
    """The parser of each sub-command."""
    (commands,) = (
        a for a in cli.whole_parser()._actions if isinstance(a, argparse._SubParsersAction)
    )
    return dict(commands.choices)


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


@pytest.mark.parametrize("name", parsers())
def test_help_fits_a_screen_and_shows_an_example(name: str) -> None:
    text = parsers()[name].format_help()
    lines = text.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    (example,) = (line for line in lines if line.startswith("example: "))
    assert example.startswith(f"example: bootproof {name}")


@pytest.mark.parametrize("name", parsers())
def test_every_option_has_help(name: str) -> None:
    silent = [a.option_strings or a.dest for a in parsers()[name]._actions if not a.help]
    assert silent == []


def test_help_of_all_lists_every_command() -> None:
    text = cli.whole_parser().format_help()
    assert len(text.splitlines()) <= LINES
    missing = [name for name in parsers() if not re.search(rf"^    {name} +\w", text, re.M)]
    assert missing == []


def test_examples_are_understood_before_any_package_is_installed() -> None:
    """The set-up looks at the command line first: nothing is installed for a mistake."""
    helps = [parser.format_help() for parser in parsers().values()]
    examples = [
        text for help in helps for text in re.findall(r'example: .*(bootproof [^")]*)', help)
    ]
    assert len(examples) == len(parsers())
    code = (
        "import shlex, sys\nfrom bootproof.harness import cli\n"
        "for text in sys.argv[1:]: cli.whole_parser().parse_args(shlex.split(text)[1:])"
    )
    command = [sys.executable, "-S", "-P", "-c", code, *examples]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": f"{ROOT}/src"}, check=True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_program_of_its_shell(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [name for name in parsers() if name not in script] == []
    assert "--pvh-relocate" in script or "pvh-relocate" in script
    if (program := shutil.which(shell)) is not None:
        (tmp_path / "script").write_text(script)
        subprocess.run([program, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["bootproof", "comp"], {"compare", "completion"}),
        (["bootproof", "boot", "--pvh"], {"--pvh-relocate"}),
        (["./bootproof", "boot", "--protocol", "linux"], {"linux64", "linux32"}),
    ],
)
def test_bash_completes(
    typed: list[str], offered: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The function that bash calls, called as bash does."""
    cli.main(["completion", "bash"])
    script = tmp_path / "completion"
    script.write_text(capsys.readouterr().out)
    call = (
        f". {script}\nCOMP_WORDS=({' '.join(typed)})\nCOMP_CWORD={len(typed) - 1}\n"
        "_shtab_bootproof\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", "-c", call], capture_output=True, text=True, check=True)
    assert {word.strip() for word in done.stdout.splitlines()} == offered


@pytest.mark.parametrize("words", [["--help"], ["boot", "--help"], ["matrix", "--help"]])
def test_help_imports_nothing_that_does_the_work(words: list[str]) -> None:
    """It would be half a second on every look at it."""
    code = (
        "import sys\nfrom bootproof.harness import cli\n"
        f"cli.main({words})\n"
        "heavy = {'bootproof.harness.prove', 'requests', 'pytest'} & {*sys.modules}\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize("command", ["boot", "image", "compare", "run", "matrix"])
def test_help_says_what_a_qemu_is_given_as(command: str) -> None:
    """A name and a path: neither can be guessed from the option's name."""
    words = " ".join(parsers()[command].format_help().split())
    assert "--qemu NAME=PATH" in words
