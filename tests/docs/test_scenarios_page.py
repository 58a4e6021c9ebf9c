"""docs/scenarios.md is true: the reference is today's, the example gives what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.cases.scenarios import AXES, EXPECT
from bootproof.harness.cases.schema import CASE
from bootproof.harness.exitcode import USAGE
from tests.builders.processes import CLI, python
from tests.docs import generated, scenario_keys

PAGE = scenario_keys.PAGE.read_text()
FENCED = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)
TOML = next(block for language, block in FENCED if language == "toml")
BLOCKS = [block for language, block in FENCED if not language]


def test_reference_is_up_to_date() -> None:
    generated.assert_is(scenario_keys.PAGE, scenario_keys.updated(PAGE))


def test_reference_has_every_key() -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", scenario_keys.reference(), re.M))
    assert rows >= {entry.name for entry in (*AXES.values(), *EXPECT)}
    hidden = {entry.field for entry in CASE} - {entry.field for entry in AXES.values()}
    files = {"initrd", "modules", "kernel_path", "kernel_role", "overlay", "dtb"}
    of_images = {"boot_image", "until", "only_handover", "no_proof"}
    assert hidden == {"expect", *files, *of_images}


def test_marks_that_are_lost() -> None:
    with pytest.raises(ValueError, match="has lost the marks"):
        scenario_keys.updated("# Scenario files\n")


def test_example_is_listed_as_the_page_shows(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(TOML)
    done = python(
        *CLI, "matrix", "--scenarios", "my.toml", "--list", cwd=tmp_path, env={"PATH": ""}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == BLOCKS[0].strip()
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


def test_error_is_as_the_page_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my.toml"
    path.write_text(TOML.replace("offset = [", "protcol = ["))
    assert cli.main(["matrix", "--scenarios", str(path), "--list"]) == USAGE
    assert capsys.readouterr().err == f"bootproof: {tmp_path}/{BLOCKS[1]}"
