"""Standard output that goes away, or cannot be written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.builders.processes import python

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

cli.COMMANDS["test"] = Command("", "", work)
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


def test_closed_from_the_start(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, "1", str(tmp_path / "done")]
    run = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], cwd=ROOT, check=False)
    assert run.returncode == 1


def test_first_import_where_warnings_are_errors(tmp_path: Path) -> None:
    """With nothing compiled yet: what the compiler says of other people's source is no error."""
    code = "import bootproof.harness.plugin, bootproof.harness.commands.compare, bootproof.loader"
    done = python("-W", "error", "-c", code, env={"PYTHONPYCACHEPREFIX": str(tmp_path)})
    assert (done.returncode, done.stderr) == (0, "")
