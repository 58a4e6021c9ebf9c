"""Your own kernel in one command: a real build directory, a real package, the user's initrd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
EXPRESSION = "x86_64 and (elf-pvh-none or 1M or at1024G) or not x86_64 and (2M or 1M or small)"


def test_build_directories_with_the_users_initrd(
    run_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    """One boot and two refusals of each architecture; the proof comes before the user's init."""
    for kernel, place in WHERE.items():
        built = tmp_path / kernel / place
        built.parent.mkdir(parents=True)
        built.symlink_to(images.kernel_file(kernel).path)
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(initramfs.archive([initramfs.file("init", INIT, 0o755)]))
    out = run_directory("own-kernels")
    shutil.rmtree(out, ignore_errors=True)
    kernels = [f"--kernel={tmp_path / kernel}" for kernel in WHERE]
    shown = _matrix(
        *kernels, f"--initrd={initrd}", "--profile=fast", f"--out={out}", "-k", EXPRESSION
    )
    assert "kernel    bzImage: bzimage, elf of x86_64" in shown
    assert "kernel    Image: image of aarch64" in shown
    assert re.search(r"kernel    Image-[0-9a-f]{8}: image of riscv64", shown)
    assert "9 of 9 cases as expected" in shown
    texts = [path.read_text(errors="replace") for path in out.glob("*/console.log")]
    assert len(texts) == len(WHERE)
    for text in texts:
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
