"""One table of options: the same words mean the same case wherever they are written."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness import cli
from bootproof.harness.case import COMMANDS, Case
from bootproof.harness.cases import from_kernel, schema
from bootproof.harness.cases.schema import Entry
from bootproof.harness.commands import case_options
from bootproof.harness.inputs import images as kernel_files
from tests import ROOT
from tests.builders import images
from tests.kernels.debian import deb_of

Capture = pytest.CaptureFixture[str]

# A value of each option that is not what it is without it, as TOML has it.
VALUES: dict[str, Any] = {
    "format": "file",
    "protocol": "linux64",
    "offset": "ram+4M",
    "memory": "1G",
    "machine": "pc",
    "cpu": "max",
    "placement": "mapped",
    "cmdline": "console=ttyS0 a=b",
    "append": "initcall_debug loglevel=8",
    "unsafe": True,
    "pvh_relocate": True,
    "virtual_offset": "32M",
    "kaslr_seed": 7,
    "probe": False,
    "budget": "2G",
    "budget_seconds": 2.5,
    "dtb": "/tmp/caf\udce9.dtb",
    "initrd": "/tmp/caf\udce9",
    "test": "true\n[ -d '/a b' ]",
    "overlay": "/tmp/caf\udce9\n/tmp/b",
    "smp": 2,
    "realtime": True,
    "fail_on_complaints": True,
    "profile": "fast",
}
# Of modules a case has what was found: tests/harness/inputs/test_modules.py.
ENTRIES = [entry for entry in schema.options("boot") if entry.name not in ("qemu", "modules")]


def typed(entry: Entry) -> list[str]:
    value = VALUES[entry.name]
    if isinstance(value, bool):
        return [schema.option(entry.name, no=not value)]
    if entry.key.lines:
        return [word for line in value.split("\n") for word in (schema.option(entry.name), line)]
    return [schema.option(entry.name), str(value)]


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    path = tmp_path / "vmlinux"
    path.write_bytes(images.elf(images.load(16 << 20, images.LINUX)))
    return str(path)


def asked(kernel: str, command: str, *words: str) -> tuple[Case, dict[str, str]]:
    rest = ["--out", "x"] if command == "image" else []
    return case_options.case(
        cli.whole_parser().parse_args([command, kernel, *words, *rest]), command
    )


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_option_means_what_it_means_in_a_file_of_cases(entry: Entry, kernel: str) -> None:
    known = {"arch": "x86_64", "kernel": kernel, "format": "elf", "protocol": "auto"}
    in_a_file = schema.case_from_data({**known, entry.name: VALUES[entry.name]})
    assert in_a_file != schema.case_from_data(known)
    for command in ("boot", "image", "compare"):
        if command in entry.key.commands:
            assert asked(kernel, command, *typed(entry)) == (in_a_file, {})
    again = shlex.split(case_options.typed({entry.name: VALUES[entry.name]}))
    assert again == typed(entry)
    words = {entry.name: VALUES[entry.name]}  # of a fixture
    assert from_kernel.case_of(kernel, words, "boot") == in_a_file
    assert schema.case_from_data(schema.case_to_data(in_a_file)) == in_a_file


def test_what_takes_a_kernel_takes_a_machine_a_command_line_and_an_initrd() -> None:
    common = {"memory", "machine", "cpu", "cmdline", "initrd", "profile"}
    for command in ("boot", "image", "compare", "matrix"):
        assert common <= {entry.name for entry in schema.options(command)}


def test_qemu_is_named_by_its_path_on_the_command_line_only(kernel: str) -> None:
    case, paths = asked(kernel, "boot", "--qemu", "old=/opt/qemu")
    assert (case.qemu, paths) == ("old", {"old": "/opt/qemu"})
    with pytest.raises(schema.SchemaError, match="must be of letters"):
        schema.case_from_data({**schema.case_to_data(case), "qemu": "old=/opt/qemu"})


def test_an_image_has_a_place_unless_another_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(images.image() + images.LINUX)
    assert asked(str(path), "boot")[0].offset == 0x40200000
    assert asked(str(path), "boot", "--offset", "none")[0].offset is None
    assert asked(str(path), "image", "--offset", "ram+0")[0].offset == 0x40000000
    assert asked(str(path), "boot", "--format", "file")[0].offset is None


@pytest.mark.parametrize("command", ["boot", "image", "compare"])
def test_every_kind_of_kernel_is_taken(
    command: str,
    kernel: str,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: Capture,
) -> None:
    """What the catalogue names is fetched, so that is not asked for here."""
    monkeypatch.chdir(tmp_path)
    data = Path(kernel).read_bytes()
    (tmp_path / "6.1-amd64").write_bytes(data)
    (tmp_path / "linux.deb").write_bytes(deb_of({"boot/vmlinuz-6.1": data}))
    for what, called in (
        ("vmlinux", "vmlinux"),
        ("./vmlinux", "./vmlinux"),
        (str(tmp_path), kernel),  # as a build directory
        ("linux.deb", "linux.deb"),
        ("6.1-amd64", "./6.1-amd64"),
    ):
        case, _ = asked(what, command)
        assert (case.kernel, case.format) == (called, "elf")
        assert kernel_files.kernel_file(case.kernel_source).path.read_bytes() == data
    assert capfd.readouterr().err == (
        "bootproof: 6.1-amd64: the file is taken, not the kernel of that name in the catalogue\n"
    )


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2G", 2_000_000_000),
        ("1.5M", 1_500_000),
        ("3000000000", 3_000_000_000),
        ("60s", 7_500_000_000),
        ("0.5s", 62_500_000),
    ],
)
def test_a_budget_in_instructions_or_guest_seconds(text: str, wanted: int, kernel: str) -> None:
    for option in ("--budget", "--timeout"):
        assert asked(kernel, "boot", option, text)[0].budget == wanted


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("60", "60 what? Wall time ends no boot here, or a busy host would be a failing guest"),
        ("5m", "must be instructions like 2G, or 60s"),
        ("1h", "must be instructions like 2G, or 60s"),
        ("-1", "must be instructions like 2G, or 60s"),
        ("0s", "must be at least 1, not 0"),
        ("9" * 5000, "must be instructions like 2G, or 60s"),
    ],
)
def test_wall_time_is_refused_in_words(text: str, told: str, kernel: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        asked(kernel, "boot", f"--timeout={text}")
    assert told in " ".join(capsys.readouterr().err.split())


FIELD = """\
    colour: str | None = optional("the colour of the guest", *COMMANDS, plain=True)
    expect: Expectation = optional("""
PROBE = """
import sys
from pathlib import Path
from bootproof.harness import cli
from bootproof.harness.cases import scenarios, schema
from bootproof.harness.commands import case_options
from tests.docs import scenario_keys

for command in sys.argv[3:]:
    assert "--colour" in {c: p for c, p in cli.whole_parser()._subparsers._group_actions[0]
        .choices.items()}[command].format_help(), command
arguments = cli.whole_parser().parse_args(["boot", sys.argv[1], "--colour", "blue"])
case, _ = case_options.case(arguments, "boot")
assert case.colour == "blue"
assert schema.case_from_data(schema.case_to_data(case)) == case
assert scenarios.read_scenarios(Path(sys.argv[2]))[0].case.colour == "red"
assert "| `colour` |" in scenario_keys.reference()
"""


def test_an_option_is_one_field(kernel: str, tmp_path: Path) -> None:
    """The recipe of docs/architecture.md: in a copy of the project in which one file is changed."""
    for name in ("harness", "kernels", "loader", "scenarios", "src"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=skipped)
    case = tmp_path / "harness" / "case.py"
    case.write_text(case.read_text().replace("    expect: Expectation = optional(", FIELD, 1))
    claims = tmp_path / "claims.toml"
    claims.write_text(
        '[[claim]]\nname = "a"\nwhy = "b"\narch = "x86_64"\nkernel = "./vmlinux"\n'
        'format = "elf"\nprotocol = "linux64"\ncolour = "red"\n'
    )
    done = subprocess.run(
        [sys.executable, "-c", PROBE, kernel, str(claims), *COMMANDS],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'src'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
