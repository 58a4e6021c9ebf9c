"""Boot images of other programs: written in C, or by `bootproof image`, and started by `run`."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from bootproof.harness import cli, places
from bootproof.harness.arch.profiles import FAST_PROFILE
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.exitcode import OK
from bootproof.harness.inputs import images
from bootproof.harness.suite.options import OPTIONS, Keep

if places.INSTALLED:
    pytest.skip("needs a clone: the writer in C is an example there", allow_module_level=True)

from tests.builders.programs import host_program

WRITERS: Final = places.need_clone("the writers in C") / "examples"
FAST: Final = ("--profile", FAST_PROFILE)
PROOF: Final = "rdinit=/bootproof/init bootproof.nonce=written-in-c"
X86_64, AARCH64, RISCV64 = (default_kernels(arch) for arch in ("x86_64", "aarch64", "riscv64"))
CMDLINE: Final = f"{ARCHES['x86_64'].command_line(FAST_PROFILE)} {PROOF}"

Fresh = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def fresh(run_directory: Callable[[str], Path], request: pytest.FixtureRequest) -> Iterator[Fresh]:
    """Directories for boot images, without what an earlier test run left there."""
    made: list[Path] = []

    def make(name: str) -> Path:
        directory = run_directory(f"external-{name}")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        made.append(directory)
        return directory

    yield make
    if request.config.stash[OPTIONS].keep is Keep.FAILED:
        for path in (path for directory in made for path in directory.rglob("ram.img")):
            path.unlink()


def written_in_c(directory: Path, kernel: str, *options: str) -> Path:
    """The boot image of the example in C, compiled with `options`."""
    vmlinux = images.in_format(images.kernel_file(kernel), "elf").path
    return _written(directory, "write_boot_image", vmlinux, "x86_64", CMDLINE, options)


def written_with_a_tree(directory: Path, kernel: str, *options: str) -> Path:
    """That of the example which makes a device tree; it takes Images."""
    arch = "riscv64" if kernel in RISCV64 else "aarch64"
    file = images.kernel_file(kernel).content.path
    cmdline = f"{ARCHES[arch].command_line(FAST_PROFILE)} {PROOF}"
    return _written(directory, "write_boot_image_dt", file, arch, cmdline, options)


def _written(
    directory: Path, name: str, kernel: Path, arch: str, cmdline: str, options: Sequence[str]
) -> Path:
    writer = _compiled(directory.parent / "external-writers", name, *options)
    archive, image = directory / "proof.cpio", directory / "image"
    image.mkdir()
    assert cli.main(["initramfs", "--arch", arch, str(archive)]) == OK
    subprocess.run([writer, kernel, archive, cmdline, image], check=True)
    return image


@functools.cache
def _compiled(directory: Path, name: str, *options: str) -> Path:
    """Once for all that are written with the same options."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "".join((name, *options))
    compiler, source = host_program("cc"), WRITERS / f"{name}.c"
    subprocess.run([compiler, "-O2", *options, "-o", program, source], check=True)
    return program


def verdict(image: Path, capfd: Capture, *options: str) -> tuple[int, str]:
    """The exit code and verdict of `bootproof run`."""
    capfd.readouterr()
    code = cli.main(["run", str(image), "--out", f"{image}.run", *options])
    output = capfd.readouterr().out
    return code, next(line for line in output.splitlines() if line.startswith("verdict"))[10:]


@pytest.mark.parametrize("kernel", [pytest.param(X86_64[0], marks=pytest.mark.short), *X86_64[1:]])
def test_written_in_c(kernel: str, fresh: Fresh, capfd: Capture) -> None:
    image = written_in_c(fresh(f"c-{kernel}"), kernel)
    code, said = verdict(image, capfd)
    assert (code, said.partition(":")[0]) == (0, "booted")
    assert said.endswith("proved its boot; kernel code at 0x1000000")


@pytest.mark.parametrize(
    ("kernel", "code_start"),
    [
        (AARCH64[0], 0x40210000),
        pytest.param(RISCV64[0], 0x80202000, marks=pytest.mark.short),
        (RISCV64[1], 0x80202000),
    ],
)
def test_written_in_c_with_a_device_tree(
    kernel: str, code_start: int, fresh: Fresh, capfd: Capture
) -> None:
    image = written_with_a_tree(fresh(f"c-{kernel}"), kernel)
    code, said = verdict(image, capfd)
    assert (code, said.partition(":")[0]) == (0, "booted")
    assert said.endswith(f"proved its boot; kernel code at {code_start:#x}")


def test_mistake_in_a_device_tree(fresh: Fresh, capfd: Capture) -> None:
    image = written_with_a_tree(fresh("c-tree"), RISCV64[0], "-DBREAK_RESERVED")
    area = "0x80000000-0x801fffff"
    said = f"firmware-reserved: the firmware's RAM {area} is not in /reserved-memory with no-map"
    assert verdict(image, capfd) == (1, f"protocol-violation: {said}")


def test_mistake_in_c(fresh: Fresh, capfd: Capture) -> None:
    image = written_in_c(fresh("c-mistake"), X86_64[0], "-DBREAK_RSI")
    said = "protocol-violation: e820: the zero page at 0x8000 has no E820 map"
    assert verdict(image, capfd) == (1, said)


@pytest.mark.parametrize(
    ("kernel", "options", "machine"),
    [
        (X86_64[0], [*FAST, "--protocol", "pvh"], []),
        (X86_64[0], [*FAST, "--protocol", "linux64", "--offset", "16M"], []),
        (X86_64[0], [*FAST, "--protocol", "linux64", "--memory", "4G"], ["--machine", "pc"]),
        (X86_64[0], [*FAST, "--format", "bzimage", "--protocol", "linux32"], []),
        (
            X86_64[0],
            [
                *("--format", "bzimage", "--protocol", "linux64"),
                *("--cmdline", "console=ttyS0 reboot=t", "--append", ARCHES["x86_64"].fast),
            ],
            [],
        ),
        (AARCH64[0], [*FAST, "--offset", "1G"], []),
        (AARCH64[0], [*FAST, "--offset", "1088M"], []),
        (RISCV64[0], [*FAST, "--offset", "2G"], []),
    ],
    ids=[
        *("pvh", "offset", "pc-4G", "bzimage32", "bzimage64-kaslr"),
        *("arm64-ram", "arm64-offset", "riscv64-ram"),
    ],
)
def test_written_by_image(
    kernel: str,
    options: list[str],
    machine: list[str],
    fresh: Fresh,
    capfd: Capture,
    request: pytest.FixtureRequest,
) -> None:
    image = fresh(request.node.callspec.id) / "image"
    assert cli.main(["image", kernel, *options, *machine, "--out", str(image)]) == OK
    run = f"{places.COMMAND} run {image}{''.join(f' {word}' for word in machine)}"
    assert run in capfd.readouterr().out
    code, said = verdict(image, capfd, *machine)
    assert (code, said.partition(":")[0]) == (0, "booted"), said


def test_kernel_that_is_not_where_its_region_is(fresh: Fresh, capfd: Capture) -> None:
    """The address is proved as far as boot.json tells it, which is told before anything runs."""
    image = written_in_c(fresh("c-region"), X86_64[0])
    description = json.loads((image / "boot.json").read_text())
    description["regions"][0]["address"] = "0x2000000"
    (image / "boot.json").write_text(json.dumps(description))
    said = "the CPU starts at 0x1000000, outside of the region 'kernel' 0x2000000-0x4dfffff"
    assert verdict(image, capfd) == (1, f"protocol-violation: entry: {said}")


def test_kernel_without_our_init(fresh: Fresh, capfd: Capture) -> None:
    """A line on the console is all that can be asked of it."""
    image = written_in_c(fresh("c-other-init"), X86_64[0])
    ram = (image / "ram.img").open("r+b")
    with ram:
        ram.seek(0x20000)
        ram.write(CMDLINE.replace("bootproof.nonce", "somebody.else's").encode())
    code, said = verdict(image, capfd, "--until", "Run /bootproof/init as init process")
    assert (code, said.partition(":")[0]) == (0, "handed-over")
    code, said = verdict(image, capfd, "--until", "login:")
    assert (code, said.partition(":")[0]) == (1, "guest-shutdown-early")
    assert said.endswith("; the console never showed 'login:'")
