"""What a command brings in before it does anything: all of it is waited for, every time.

Which modules, not how long: bench/overhead.py measures that.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import images
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, python, vmlinux

_ALL_AT_THE_END = """
import atexit, sys
atexit.register(lambda: print("MODULES", *sys.modules, file=sys.stderr))
from bootproof.harness import cli
sys.exit(cli.main(sys.argv[1:]))
"""
_AT_THE_START_OF_QEMU = """
import os, sys
from bootproof.harness import cli
from bootproof.harness.host import process
def start(*_arguments, **_keywords):
    print("MODULES", *sys.modules, file=sys.stderr, flush=True)
    os._exit(0)
process.QemuProcess = start
sys.exit(cli.main(sys.argv[1:]))
"""
_IMPORTS_ITSELF_AGAIN = """
import atexit, runpy
def again():
    from bootproof.harness import cli
atexit.register(again)
runpy.run_module("bootproof.harness.cli", run_name="__main__")
"""
_AT_THE_ENTRY = """
import os, sys
from bootproof.harness.qemu import probe
def at_entry(*_arguments, **_keywords):
    print("MODULES", *sys.modules, file=sys.stderr, flush=True)
    os._exit(0)
probe.at_entry = at_entry
from bootproof.harness import cli
sys.exit(cli.main(sys.argv[1:]))
"""
_LATE = """
import sys
from bootproof.harness.host import early
import inspect, ipaddress
asked_early = inspect.get_annotations
assert asked_early(type("Kind", (), {"__annotations__": {"a": int}})) == {"a": int}
assert not {"ast", "functools"} & set(sys.modules)
def function(a: int): ...
assert asked_early(function) == inspect.get_annotations(function) == {"a": int}
assert asked_early is not inspect.get_annotations and not hasattr(inspect, "nosuch")
assert (str(inspect.signature(function)), ipaddress.ip_address("::1").version) == ("(a: int)", 6)
assert inspect.getsource(inspect) == open(inspect.__file__).read()
"""
CASES = {"bootproof.harness.case", "bootproof.loader.address", "bootproof.kernels.catalog"}
LOOKING = {"ctypes", "hashlib", "platform", "subprocess", "tomllib"}
INSPECTING = {"ast", "dis", "tokenize"}  # what `inspect` brings, which dataclasses imports
READING = {
    *("bootproof.harness.inputs.images", "bootproof.kernels.fetch", "tomllib"),
    *(f"bootproof.loader.{name}" for name in ("arch", "identify", "image")),
}
LOADERS = {f"bootproof.loader.{name}" for name in ("bzimage", "elf", "pe", "memory", "provable")}
LOADING = {"bootproof.harness.host.rundir", "bootproof.harness.prepare"}
STARTING = {"bootproof.harness.run", "bootproof.harness.qemu.spawn"}
FOLLOWING = {
    *("concurrent.futures", "pexpect"),
    *(f"bootproof.harness.{name}" for name in ("course", "judge", "observation", "qemu.session")),
}
# What the modules of an architecture, of its protocols and of its boards are called.
ELSEWHERE = {"aarch64", "arm64", "riscv64", "zcu102"}
RUNNING = STARTING | FOLLOWING
# For what few boots ask, for what is wrong, and for what is done with a boot image later.
SELDOM = {
    *(f"bootproof.harness.inputs.{name}" for name in ("damage", "modules", "overlay", "variants")),
    *(f"bootproof.harness.{name}" for name in ("inputs.symbols", "imports", "given_image")),
    *(f"bootproof.loader.{name}" for name in ("corefile", "device_tree", "elf32", "imports")),
    *(f"bootproof.loader.{name}" for name in ("otherfiles", "relocation", "same_kernel")),
    *(f"bootproof.loader.{name}" for name in ("arch.importing", "inspect", "unpack")),
    *(f"bootproof.loader.protocols.{name}" for name in ("linux32", "virtual_kaslr")),
    *(f"bootproof.kernels.{name}" for name in ("archive", "deb", "download", "mirror", "rpm")),
    *("difflib", "requests", "ssl", "urllib.request"),
}


def imported(*words: str | Path, code: int, script: str = _ALL_AT_THE_END) -> set[str]:
    """The modules that a command with this exit code has imported when it ends."""
    done = python("-P", "-c", script, *words)
    assert done.returncode == code, done.stderr
    return set(done.stderr.rpartition("MODULES ")[2].split())


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("doctor", "--help")])
def test_who_asks_for_help_waits_for_nothing_else(words: tuple[str, ...]) -> None:
    modules = imported(*words, code=0)
    assert "bootproof.harness.commands.doctor" in modules
    assert modules & (CASES | LOOKING | INSPECTING) == set()


def test_what_is_loaded_late_is_all_of_it_then() -> None:
    done = python("-P", "-S", "-c", _LATE)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_may_import_itself_again() -> None:
    """As the test functions of a matrix do, which is run as a module."""
    done = python("-P", "-c", _IMPORTS_ITSELF_AGAIN, "--version")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_asks_for_no_other() -> None:
    modules = imported("doctor", "--help", code=0)
    rooms = {name for name in modules if name.startswith("bootproof.harness.commands.")}
    assert rooms == {f"bootproof.harness.commands.{name}" for name in ("doctor", "parser")}


def test_what_is_no_kernel_is_refused_by_what_reads_kernels(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no kernel\n")
    for kernel in ("text", "none"):
        modules = imported("boot", tmp_path / kernel, code=2)
        assert modules >= CASES
        assert modules & (LOADERS | LOADING | RUNNING) == set()


def test_what_leads_to_no_file_is_refused_before_kernels_are_read(tmp_path: Path) -> None:
    modules = imported("boot", tmp_path / "none", code=2)
    assert modules >= CASES
    assert modules & (READING | LOADERS | LOADING | RUNNING | SELDOM) == set()


def test_what_finds_no_room_is_refused_by_what_loads_kernels(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(images.elf(images.load(16 << 20, images.LINUX)))
    words = ("--unsafe", "--memory", "8M", "--out", tmp_path / "run")
    modules = imported("boot", tmp_path / "vmlinux", *words, code=2)
    assert modules >= LOADING
    assert modules & RUNNING == set()


def test_a_boot_asks_for_no_other_architecture(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(vmlinux(X86Program(LOAD).reset()))
    modules = imported("boot", tmp_path / "vmlinux", "--out", tmp_path / "run", code=1)
    assert modules >= {"bootproof.loader.arch.x86_64", "bootproof.harness.arch.x86_64"} | RUNNING
    others = {name for name in modules if any(word in name for word in ELSEWHERE)}
    assert others == set()


def test_what_follows_a_guest_is_imported_while_qemu_starts(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(images.elf(images.load(16 << 20, images.LINUX)))
    words = ("boot", tmp_path / "vmlinux", "--unsafe", "--out", tmp_path / "run")
    modules = imported(*words, code=0, script=_AT_THE_START_OF_QEMU)
    assert modules >= LOADING | STARTING
    assert modules & (FOLLOWING | SELDOM | INSPECTING) == set()
    assert modules & {"bootproof.loader.bzimage", "bootproof.loader.pe"} == set()
    rules = {name for name in modules if name.startswith("bootproof.loader.rules.")}
    assert rules == set()  # they are asked at the kernel's first instruction


def test_a_guest_that_stands_at_its_entry_waits_for_no_rules(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(images.elf(images.load(16 << 20, images.LINUX)))
    words = ("boot", tmp_path / "vmlinux", "--unsafe", "--out", tmp_path / "run")
    assert "bootproof.loader.rules.linux" in imported(*words, code=0, script=_AT_THE_ENTRY)
