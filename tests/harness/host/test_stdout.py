"""Standard output that goes away, or cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.builders.processes import environment, python

# A command whose work goes on after its output has been given up.
SCRIPT = """
import sys
from pathlib import Path
from bootproof.harness import cli
from bootproof.harness.commands import Command

def work(arguments):
    for number in range(20000):
        print("line", number, flush=number % 100 == 0)
    Path(sys.argv[2]).write_text("done")
    return int(sys.argv[1])

cli.COMMANDS = {"test": Command("", "", work)}
sys.exit(cli.main(["test"]))
"""


@pytest.mark.parametrize("code", [0, 1, 2])
def test_exit_code_is_that_of_the_work_though_nobody_reads(code: int, tmp_path: Path) -> None:
    """Never 0 only because the reader had enough."""
    done = tmp_path / "done"
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(code), done],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "line 0\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == code
    assert done.read_text() == "done"


@pytest.mark.parametrize(("code", "found"), [(0, 2), (1, 1), (2, 2)])
def test_output_that_cannot_be_written_is_no_success(code: int, found: int, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(code), tmp_path / "done"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert run.returncode == found
    assert run.stderr == "bootproof: standard output: No space left on device\n"
    assert (tmp_path / "done").exists()


LAUNCH = (
    "import sys; from bootproof.harness import launch; sys.argv[1:1] = ['/nowhere'];"
    " sys.exit(launch.main())"
)


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["boot", "--help"]])
@pytest.mark.parametrize("door", [["-P", "-m", "bootproof.harness.cli"], ["-c", LAUNCH]])
def test_what_the_parser_says_is_output_as_well(words: list[str], door: list[str]) -> None:
    """Also what is told before a clone is set up."""

    def ended(stdout: str) -> tuple[int, str]:
        command = ["sh", "-c", f'exec "$@" {stdout}', "sh", sys.executable, *door, *words]
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False
        )
        return done.returncode, done.stderr

    assert ended(">/dev/full") == (2, "bootproof: standard output: No space left on device\n")
    assert ended("| true") == (0, "")
    assert ended(">/dev/null") == (0, "")


def test_closed_from_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, "1", str(tmp_path / "done")]
    run = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], cwd=ROOT, check=False)
    assert run.returncode == 1


def test_first_import_where_warnings_are_errors(tmp_path: Path) -> None:
    """With nothing compiled yet: what the compiler says of other people's source is no error."""
    code = "import bootproof.harness.plugin, bootproof.harness.commands.compare, bootproof.loader"
    done = python("-W", "error", "-c", code, env={"PYTHONPYCACHEPREFIX": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")


# --- streams and lines ---------------------------------------------------------------------------

SHOWS = """
import sys
from rich.table import Table
from rich.text import Text
from bootproof.harness import cli
from bootproof.harness.commands import Command
from bootproof.harness.host.screen import drawn
from bootproof.harness.host.stdout import OwnCommand, say

NAME = "a\\x1b[2Jb\\x9bc\\u202ed\\udce9e\\x1b[31mf"

def work(arguments):
    print(NAME, "\\tend")
    print("left", NAME, file=sys.stderr)
    say(f"one\\n{NAME}")
    table = Table(box=None, show_header=False)
    table.add_row(Text(NAME, "red"), NAME + " " * 40)
    print(drawn(table, Text(NAME, "red"), width=200, colour=True), end="")
    sys.stdout.write(OwnCommand(f"::error::{NAME}\\n"))
    raise RuntimeError(NAME)

cli.COMMANDS = {"test": Command("", "", work)}
sys.exit(cli.main(["test"]))
"""
SHOWN = r"a\x1b[2Jb\x9bc\u202ed\udce9e\x1b[31mf"


def test_no_name_is_obeyed_by_a_terminal() -> None:
    """In text, tables, tracebacks; colours are ours alone."""
    done = python("-c", SHOWS, env={"TERM": "xterm", "COLUMNS": "200"})
    assert done.returncode == 125
    red = f"\x1b[31m{SHOWN}\x1b[0m"
    shown, row, text, command = done.stdout.splitlines()
    assert shown == f"{SHOWN} \tend"
    assert row.strip().startswith("\x1b[31ma\\x1b[2Jb") and row.rstrip().endswith(SHOWN)
    assert (text, command) == (red, f"::error::{SHOWN}")
    said = done.stderr.splitlines()
    assert said[:2] == [f"left {SHOWN}", rf"bootproof: one\n{SHOWN}"]
    assert said[-1] == f"RuntimeError: {SHOWN}"


SAYS = """
import sys
from bootproof.harness import cli
from bootproof.harness.host.stdout import OwnCommand
from bootproof.harness.commands import Command

def work(arguments):
    print("caf\\u00e9 \\u2713")
    print("::error::no", "  ::warning::no", "##[error]no", "a ::b", sep="\\n")
    print("begun", end=" ")
    print("::x")
    sys.stdout.write(OwnCommand("::error::ours\\n"))
    print("left", file=sys.stderr)
    return 0

cli.COMMANDS = {"test": Command("", "", work)}
sys.exit(cli.main(["test"]))
"""


def said(words: str, **variables: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -c "$1" {words}', sys.executable, SAYS],
        capture_output=True,
        env=environment(**variables),
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_no_line_is_a_command_to_who_reads_logs() -> None:
    _, out, _ = said("")
    assert out.decode().splitlines()[1:] == [
        *(r"\x3a:error::no", r"  \x3a:warning::no", r"\x23#[error]no", "a ::b", "begun ::x"),
        "::error::ours",
    ]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_stream_that_is_closed_is_no_failure(closed: str) -> None:
    code, out, err = said(closed)
    assert code == 0
    assert (b"begun" in out, err) == (
        closed in ("<&-", "2>&-"),
        b"" if "2>" in closed else b"left\n",
    )


def test_an_encoding_without_a_word_for_it_is_no_failure() -> None:
    code, out, _ = said("", PYTHONIOENCODING="ascii")
    assert (code, out.splitlines()[0]) == (0, rb"caf\xe9 \u2713")
