"""A real kernel that is talked to: a shell of ours, a user's init, and a panic meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bootproof.harness.cases import from_kernel
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.dialogue import DialogueError, dialogue
from bootproof.harness.verdict import Verdict
from bootproof.loader import initramfs

pytestmark = pytest.mark.beside
_SECONDS = 120.0
_INIT = b"""#!/bootproof/busybox sh
echo -n 'login: '
read -r name
echo "welcome, $name"
/bootproof/busybox reboot -f
"""


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_a_shell_is_talked_to(arch: str, tmp_path: Path) -> None:
    case = from_kernel.case_of(default_kernels(arch)[0], {"profile": "fast"}, "boot")
    with dialogue(case, tmp_path / "run", {}) as guest:
        guest.expect("guest# ", _SECONDS)
        guest.send("uname -m; echo $((6 * 7))\n", _SECONDS)
        # Nothing of what it was told is said again, and lines end as they do in a file.
        guest.expect(r"guest# ", _SECONDS)
        assert guest.before == f"{arch}\n42\n"
        guest.send("cat\n", _SECONDS)
        guest.send("to cat\n", _SECONDS)
        guest.expect("to cat\n", _SECONDS)
        guest.send("\x03", _SECONDS)  # Ctrl-C
        guest.expect("guest# ", _SECONDS)
        with pytest.raises(DialogueError, match=r"(?s)'Linux version' was not seen .* before the"):
            guest.expect("Linux version", 0.1)
        guest.send("exit\n", _SECONDS)
        assert guest.wait(_SECONDS).verdict is Verdict.BOOTED
        with pytest.raises(DialogueError, match=r"cannot be said: the guest ended: booted: "):
            guest.send("exit\n", _SECONDS)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["verdict"], result["machine"]["realtime"]) == ("booted", "dialogue")
    assert (result["machine"]["deterministic"], result["instructions"]) == (False, None)


def test_the_users_own_init_is_talked_to(tmp_path: Path) -> None:
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(initramfs.archive([initramfs.file("init", _INIT, 0o755)]))
    words = {"profile": "fast", "initrd": str(initrd)}
    case = from_kernel.case_of(default_kernels("x86_64")[0], words, "boot")
    with dialogue(case, tmp_path / "run", {}) as guest:
        guest.expect("login: ", _SECONDS)
        guest.send("root\n", _SECONDS)
        guest.expect("welcome, root", _SECONDS)
        assert guest.wait(_SECONDS).verdict is Verdict.BOOTED


def test_a_panic_ends_the_dialogue(tmp_path: Path) -> None:
    case = from_kernel.case_of(default_kernels("x86_64")[0], {"profile": "fast"}, "boot")
    with dialogue(case, tmp_path / "run", {}) as guest:
        guest.expect("guest# ", _SECONDS)
        guest.send("echo c > /proc/sysrq-trigger\n", _SECONDS)
        with pytest.raises(DialogueError, match=r"before the guest ended: panic: .*sysrq trigger"):
            guest.expect("guest# ", _SECONDS)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["verdict"] == "panic"
