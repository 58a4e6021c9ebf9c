"""Every documented command is one, and runs; every link leads somewhere; CI files are valid."""

from __future__ import annotations

import re
import shlex
import struct
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.inputs import images
from bootproof.loader import initramfs
from bootproof.loader.unpack import unpack_to
from tests import ROOT
from tests.builders import images as builder
from tests.builders.processes import CLI, python
from tests.docs.pages import PAGES, Command, anchors, commands, links

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ALL = [command for page in PAGES for command in commands(page)]


@pytest.mark.parametrize("command", [c for c in ALL if c.refusal is None], ids=str)
def test_documented_command_is_one(command: Command) -> None:
    """Its options exist and their values are well-formed."""
    cli.whole_parser().parse_args(command.words)


def test_commands_are_found() -> None:
    """The test above cannot pass by finding nothing, nor that of links."""
    pages = {command.page.name for command in ALL}
    assert {"README.md", "boot-image.md", "compare.md", "testing-your-loader.md"} <= pages
    assert sum(command.not_run is None for command in ALL) >= 20
    assert sum(len(links(page)) for page in PAGES) >= 100
    assert [str(c) for c in ALL if c.not_run is not None and len(c.not_run) < 10] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_anchors(page: Path) -> None:
    for target in links(page):
        if re.match(r"https?://", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page}: {target}: no such file"
        if fragment and file.suffix == ".md":
            assert fragment in anchors(file), f"{page}: {target}: no such heading"


def test_every_page_is_in_the_index() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [p.name for p in PAGES if p.parent.name == "docs" and f"docs/{p.name}" not in text]
    assert missing == []


# --- CI files ----------------------------------------------------------------------------------


def check_schema(name: str, *files: Path) -> None:
    words = ["-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *map(str, files)]
    done = python(*words)
    assert done.returncode == 0, done.stdout + done.stderr


def gitlab_example() -> str:
    (example,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text("utf-8"), re.DOTALL
    )
    return str(example)


def test_workflows_are_valid() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "nightly.yml"]
    check_schema("github-workflows", *WORKFLOWS)


def test_gitlab_example_is_valid(tmp_path: Path) -> None:
    file = tmp_path / ".gitlab-ci.yml"
    file.write_text(gitlab_example())
    check_schema("gitlab-ci", file)


def test_commands_of_ci_files_are_commands() -> None:
    texts = [gitlab_example(), *(path.read_text("utf-8") for path in WORKFLOWS)]
    pattern = re.compile(r"^[- ]*(?:run: )?\./bootproof (.+?)(?: \|\| .*)?$", re.MULTILINE)
    found = [line for text in texts for line in pattern.findall(text)]
    assert len(found) == 9
    for line in found:
        words = re.sub(r"\$\{\{.*?\}\}|\$\(.*?\)|\$\w+", "1", line.replace('"$@"', ""))
        cli.whole_parser().parse_args(shlex.split(words))


# --- each documented command, run ---------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """The files that the pages speak of."""
    x86, arm = (images.kernel_file(f"6.1-cloud-{arch}").path for arch in ("amd64", "arm64"))
    newer = images.kernel_file("6.12-cloud-amd64").path
    for name, kernel in (
        ("bzImage", x86),
        ("arch/x86/boot/bzImage", x86),
        ("arch/arm64/boot/Image", arm),
        ("linux/arch/x86/boot/bzImage", newer),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(kernel)
    unpack_to(newer, tmp_path / "vmlinux")
    init = initramfs.file("init", b"#!/bootproof/busybox sh\n/bootproof/busybox reboot -f\n", 0o755)
    (tmp_path / "my.cpio").write_bytes(initramfs.archive([init]))
    page = (ROOT / "docs" / "scenarios.md").read_text("utf-8")
    (tmp_path / "my.toml").write_text(re.findall(r"```toml\n(.*?)```", page, re.DOTALL)[0])
    (tmp_path / "rootfs" / "opt").mkdir(parents=True)
    (tmp_path / "rootfs" / "opt" / "run.sh").write_text(
        "#!/bin/sh\necho TAP version 13\necho 1..0\n"
    )
    (tmp_path / "rootfs" / "opt" / "run.sh").chmod(0o755)
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "cut").write_bytes(x86.read_bytes()[:100_000])
    u_boot = builder.load(0x111_0000, b"U-Boot 2023.01 (x)")
    (tmp_path / "u-boot").write_bytes(builder.elf(u_boot, entry=0x111_0000))
    head = struct.pack(">I26sBB32s", 0x27051956, bytes(26), 2, 1, b"Linux-6.1.0")
    (tmp_path / "uImage").write_bytes(head + bytes(4096))
    return tmp_path


@pytest.mark.documented
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_commands_run(page: Path, desk: Path) -> None:
    """In the page's order, in one directory, as a reader would."""
    for command in commands(page):
        if command.not_run is not None:
            continue
        words = [re.sub("^~", str(desk), word) for word in command.words]  # as a shell does
        done = python(*CLI, *words, cwd=desk)
        told = f"{command}\n{done.stdout[-2000:]}{done.stderr}"
        if command.refusal is None:
            assert done.returncode == 0, told
        else:
            assert (done.returncode, done.stderr.rstrip("\n")) == (2, command.refusal), told
