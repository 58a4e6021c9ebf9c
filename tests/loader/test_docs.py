"""docs/loader-api.md is true: each example runs; and the package costs what the page says."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bootproof import loader
from bootproof.loader import initramfs
from tests import ROOT
from tests.builders import images, packings

PAGE = ROOT / "docs" / "loader-api.md"
EXAMPLES = re.findall(r"^## (.*?)\n|^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
CPU_SECONDS = 0.15  # the page says 0.06 for a machine that is not busy


def examples() -> list[tuple[str, str]]:
    """(heading, code) of every example."""
    found, heading = [], ""
    for title, code in EXAMPLES:
        heading = title or heading
        if code:
            found.append((heading, code))
    return found


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    banner = b"\x90" * 16 + b"Linux version 6.12.9-test (x)"
    vmlinux = images.elf(
        images.load(0x100_0000, banner, memsz=0x30_0000),
        images.notes(images.pvh_entry(0x100_0040)),
    )
    for name, content in {
        "vmlinux": vmlinux,
        "bzImage": images.bzimage(),
        "Image": images.image(),
        "Image.gz": packings.gzip(packings.image()),
        "initrd": initramfs.archive([initramfs.file("hello", b"world")]),
    }.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("heading", "code"), examples(), ids=[e[0] for e in examples()])
@pytest.mark.usefixtures("files")
def test_example(heading: str, code: str) -> None:
    exec(compile(code, f"{PAGE.name}, {heading}", "exec"), {})


def test_every_public_name_is_there_and_typed() -> None:
    assert len(examples()) >= 9
    assert loader.configurators.BootParams is loader.BootParams
    assert (ROOT / "loader" / "py.typed").exists()


def test_each_name_is_that_of_its_module_and_of_the_type_checker() -> None:
    (checked,) = (
        node.body
        for node in ast.parse(Path(loader.__file__).read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imports = [node for node in checked if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(checked)
    typed = {alias.name: str(node.module) for node in imports for alias in node.names}
    names = {name: module for name, module in typed.items() if module != loader.__name__}
    everything: list[str] = vars(loader)["__all__"]
    assert sorted(typed) == sorted(everything)
    for name, module in names.items():
        assert getattr(loader, name) is getattr(sys.modules[module], name), name
    assert {*typed} <= {*dir(loader)}
    with pytest.raises(ImportError, match="cannot import name 'Elv'"):
        exec("from bootproof.loader import Elv")


def test_what_loads_kernels_is_cheap_and_needs_no_other_room() -> None:
    code = """
import json, sys, time
started = time.process_time()
from bootproof.loader import BzImage, Elf, GuestMemory, Pe, load_cmdline, load_dtb
print(json.dumps([time.process_time() - started, sorted(sys.modules)]))
"""
    runs = []
    for _ in range(5):
        command = [sys.executable, "-P", "-c", code]
        environment = {"PYTHONPATH": str(ROOT / "src")}
        output = subprocess.check_output(command, cwd=ROOT, env=environment)
        seconds, modules = json.loads(output)
        runs.append(seconds)
    assert min(runs) < CPU_SECONDS
    ours = {name.split(".")[1] for name in modules if name.startswith("bootproof.")}
    assert ours == {"loader", "dataclass", "printable"}
    assert not {name.partition(".")[0] for name in modules} & {"pytest", "lz4", "ctypes"}


def test_no_module_of_the_loader_imports_another_room() -> None:
    for path in sorted((ROOT / "loader").rglob("*.py")):
        imported = re.findall(r"^\s*(?:from|import) (?:bootproof\.)?(\w+)", path.read_text(), re.M)
        assert not set(imported) & {"harness", "kernels", "tests", "bench", "subprocess"}, path
