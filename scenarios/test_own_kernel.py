"""Your own kernel in one command: a real build directory, a real package, the user's initrd."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.inputs import images
from bootproof.loader import initramfs

ROOT = Path(__file__).resolve().parents[1]
X86_64, AARCH64, RISCV64 = (default_kernels(arch)[0] for arch in ("x86_64", "aarch64", "riscv64"))
INIT = b"#!/bootproof/busybox sh\necho 'my own init'\n/bootproof/busybox reboot -f\n"
WHERE = {
    X86_64: "arch/x86/boot/bzImage",
    AARCH64: "arch/arm64/boot/Image",
    RISCV64: "arch/riscv/boot/Image",
}


@pytest.mark.parametrize(
    ("kernel", "expression", "line", "cases"),
    [
        (X86_64, "elf-pvh-none or 1M or at1024G", "kernel    bzImage: bzimage, elf of x86_64", 3),
        (AARCH64, "2M or 1M or small", "kernel    Image: image of aarch64", 3),
        (RISCV64, "2M or 1M or small", "kernel    Image: image of riscv64", 3),
    ],
    ids=["x86_64", "aarch64", "riscv64"],
)
def test_a_build_directory_with_the_users_initrd(
    run_directory: Callable[[str], Path],
    tmp_path: Path,
    kernel: str,
    expression: str,
    line: str,
    cases: int,
) -> None:
    """One boot and two refusals of each architecture; the proof comes before the user's init."""
    built = tmp_path / WHERE[kernel]
    built.parent.mkdir(parents=True)
    built.symlink_to(images.kernel_file(kernel).path)
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(initramfs.archive([initramfs.file("init", INIT, 0o755)]))
    out = run_directory(f"own-{kernel}")
    guest = (f"--kernel={tmp_path}", f"--initrd={initrd}", "--profile=fast")
    shown = _matrix(*guest, f"--out={out}", "-k", expression)
    assert line in shown
    assert f"{cases} of {cases} cases as expected" in shown
    (console,) = out.glob("*/console.log")
    text = console.read_text(errors="replace")
    assert -1 < text.find("bootproof: proof ") < text.find("my own init")


def _matrix(*words: str) -> str:
    """The command, which must succeed; what it prints."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", cli.__name__, "matrix", "-n", "1", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
