"""What a kernel says about its end, in transcripts of real boots, shortened."""

from __future__ import annotations

import pytest

from bootproof.harness.guest import kernellog
from bootproof.harness.guest.kernellog import Message

NO_ROOT = b"""\
[    6.475964] clk: Disabling unused clocks\r
[    6.477583] /dev/root: Can't open blockdev\r
[    6.477825] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\r
[    6.477909] CPU: 0 PID: 1 Comm: swapper/0 Not tainted 6.1.0-50-cloud-arm64 #1  Debian 6.1.176-1\r
[    6.478024] Hardware name: linux,dummy-virt (DT)\r
[    6.478087] Call trace:\r
[    6.478133]  dump_backtrace+0xe4/0x140\r
[    6.478216]  show_stack+0x20/0x30\r
[    6.478294]  dump_stack_lvl+0x64/0x80\r
[    6.478376]  dump_stack+0x18/0x34\r
[    6.478455]  panic+0x184/0x364\r
[    6.478556]  mount_block_root+0x168/0x21c\r
[    6.478665]  mount_root+0x158/0x178\r
"""
INIT_EXITED = b"""\
[   10.156259] Run /bootproof/init as init process\r
/bootproof/init: cd: line 3: can't cd to /none: No such file or directory\r
[   10.163277] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\r
[   10.163344] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-50-cloud-amd64 #1  Debian 6.1.176-1\r
[   10.163445] Call Trace:\r
[   10.163489]  <TASK>\r
[   10.163532]  dump_stack_lvl+0x44/0x5c\r
[   10.163614]  panic+0x118/0x2f3\r
[   10.163684]  do_exit.cold+0x15/0x15\r
[   10.163756]  ? handle_mm_fault+0xd7/0x2f0\r
"""
X86_OOPS = b"""\
[    1.100000] BUG: kernel NULL pointer dereference, address: 0000000000000010\r
[    1.100001] #PF: supervisor read access in kernel mode\r
[    1.100002] #PF: error_code(0x0000) - not-present page\r
[    1.100003] PGD 0 P4D 0 \r
[    1.100004] Oops: 0000 [#1] PREEMPT SMP PTI\r
[    1.100005] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-50-cloud-amd64 #1  Debian 6.1.176-1\r
[    1.100006] RIP: 0010:vfs_read+0x1a/0x310\r
[    1.100007] Code: 0f 1f 44 00 00\r
[    1.100008] Call Trace:\r
[    1.100009]  ksys_read+0x6b/0xf0\r
[    1.100010] ---[ end trace 0000000000000000 ]---\r
"""
ARM64_OOPS = b"""\
[    1.100000] Unable to handle kernel paging request at virtual address dead000000000108\r
[    1.100001] Mem abort info:\r
[    1.100002]   ESR = 0x0000000096000044\r
[    1.100003] Internal error: Oops: 0000000096000044 [#1] SMP\r
[    1.100004] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-50-cloud-arm64 #1  Debian 6.1.176-1\r
[    1.100005] pstate: 60400005 (nZCv daif +PAN -UAO -TCO -DIT -SSBS BTYPE=--)\r
[    1.100006] pc : list_del+0x4/0x60\r
"""
RISCV_OOPS = b"""\
memblock_cap_memory_range: No memory registered yet
------------[ cut here ]----------
kernel BUG at arch/riscv/mm/init.c:1325!
Kernel BUG [#1]
Modules linked in:
CPU: 0 UID: 0 PID: 0 Comm: swapper Not tainted 6.12.117+deb13-riscv64 #1  Debian 6.12.117-1
epc : paging_init+0x37c/0x630
 ra : paging_init+0x378/0x630
epc : ffffffff80c073d0 ra : ffffffff80c073cc sp : ffffffff81c03da0
status: 0000000200000100 badaddr: 0000000000000000 cause: 0000000000000003
[<ffffffff80c073d0>] paging_init+0x37c/0x630
[<ffffffff80c04872>] setup_arch+0xe8/0x64e
Kernel panic - not syncing: Fatal exception in interrupt
"""
RISCV_PANIC = b"""\
[    0.0] Kernel panic - not syncing: memblocks_present: Failed to allocate 33554432 bytes\r
[    0.0] CPU: 0 UID: 0 PID: 0 Comm: swapper Not tainted 6.12.117+deb13-riscv64 #1\r
[    0.0] Call Trace:\r
[    0.0] [<ffffffff80007020>] dump_backtrace+0x28/0x30\r
[    0.0] [<ffffffff80a65ed2>] show_stack+0x38/0x44\r
[    0.0] [<ffffffff80a66214>] panic+0x11a/0x35a\r
[    0.0] [<ffffffff80c21c2e>] sparse_init+0x82/0x248\r
"""
FATAL = b"[    1.2] Kernel panic - not syncing: Fatal exception\r\n"
KILLED = b"[    1.2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\r\n"


# --- panic -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            NO_ROOT,
            Message(
                "VFS: Unable to mount root fs on unknown-block(0,0)",
                "mount_block_root+0x168/0x21c",
            ),
        ),
        (
            INIT_EXITED,
            Message("Attempted to kill init! exitcode=0x00000100", "do_exit.cold+0x15/0x15"),
        ),
        (
            RISCV_PANIC,
            Message(
                "memblocks_present: Failed to allocate 33554432 bytes", "sparse_init+0x82/0x248"
            ),
        ),
        (FATAL, Message("Fatal exception")),
        (b"Kernel panic - not syncing: no stamps", Message("no stamps")),
        (b"[    1.2][    T1] Kernel panic - not syncing: caller", Message("caller")),
        (b"half a li[    1.2] Kernel panic - not syncing: cut in", Message("cut in")),
        (b"[ 1.2] Kernel panic - not syncing: \x1b[2J", Message(r"\x1b[2J")),
        (b"Call Trace:\n func+0x1/0x2\n" + FATAL, Message("Fatal exception")),
    ],
)
def test_panic(text: bytes, wanted: Message) -> None:
    assert kernellog.panic(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[    0.0] Command line: x=Kernel panic - not syncing: me\r\n",
        b"[    0.0] Kernel command line: [    0.0] Kernel panic - not syncing: me\r\n",
        b"[    0.5] ---[ end Kernel panic - not syncing: VFS ]---\r\n",
        b"Kernel panic - not sync",
        b"[ 1.0] the last boot said:\r\n[ 1.0] [ 1.0] Kernel panic - not syncing: old\r\n",
    ],
)
def test_no_panic(text: bytes) -> None:
    assert kernellog.panic(text) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"[    0.5] ---[ end Kernel panic - not syncing: VFS ]---\r\n", True),
        (b"said\r\n---[ end Kernel panic - not syncing: VFS ]---\r\n", True),
        (b"[    0.0] Command line: console=ttyS0 ---[ end Kernel panic\r\n", False),
    ],
)
def test_end_mark_of_a_panic(text: bytes, wanted: bool) -> None:
    assert (kernellog.END_OF_PANIC.search(text) is not None) == wanted


# --- oops --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            X86_OOPS,
            Message(
                "BUG: kernel NULL pointer dereference, address: 0000000000000010",
                "vfs_read+0x1a/0x310",
            ),
        ),
        (
            RISCV_OOPS,
            Message("kernel BUG at arch/riscv/mm/init.c:1325!", "paging_init+0x37c/0x630"),
        ),
        (
            RISCV_OOPS.replace(b"Kernel BUG [#1]", b"Oops - store (or AMO) access fault [#2] SMP"),
            Message("kernel BUG at arch/riscv/mm/init.c:1325!", "paging_init+0x37c/0x630"),
        ),
        (
            ARM64_OOPS,
            Message(
                "Unable to handle kernel paging request at virtual address dead000000000108",
                "list_del+0x4/0x60",
            ),
        ),
        (
            b"[    1.1] general protection fault, maybe for 0x1: 0000 [#1] SMP\r\n",
            Message("general protection fault, maybe for 0x1: 0000 [#1]"),
        ),
        (
            b"kernel BUG at mm/slub.c:1!\ninvalid opcode: 0000 [#1] SMP\n",
            Message("kernel BUG at mm/slub.c:1!"),
        ),
    ],
)
def test_oops(text: bytes, wanted: Message) -> None:
    assert kernellog.oops(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        NO_ROOT,
        INIT_EXITED,
        b"[    0.0] Linux version 6.1.0 (gcc) #1 SMP\r\n",
        (
            b"[    1.0] ------------[ cut here ]---\r\n[    1.0] WARNING: CPU: 0 at x.c:1\r\n"
            b"[    1.0] ---[ end trace 0000000000000000 ]---\r\n"
        ),
        b"[    1.0] BUG: something that killed nobody\r\n",
        b"[    1.0] mce: bank error: 0000 [#1] corrected\r\n",
        b"[    0.0] Command line: console=ttyS0 why [#1]\r\nbootproof: cmdline why [#1]\r\n",
    ],
)
def test_no_oops(text: bytes) -> None:
    """A warning goes on, and a first oops is called [#1]."""
    assert kernellog.oops(text) is None


# --- init --------------------------------------------------------------------------------------

CANNOT_CD = '"/bootproof/init: cd: line 3: can\'t cd to /none: No such file or directory"'


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            INIT_EXITED,
            (
                f"init exited with 1 without its proof after {CANNOT_CD}"
                " (Attempted to kill init! exitcode=0x00000100)"
            ),
        ),
        (
            INIT_EXITED.replace(b"0x00000100", b"0x0000000b").replace(b"/bootproof/init: cd", b"x"),
            (
                "init was ended by signal 11 without its proof after"
                ' "x: line 3: can\'t cd to /none: No such file or directory"'
                " (Attempted to kill init! exitcode=0x0000000b)"
            ),
        ),
        (
            (
                b"Run /bootproof/init as init process\nKernel offset\n"
                b"Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000000\n"
            ),
            "init exited with 0 without its proof (Attempted to kill init! exitcode=0x00000000)",
        ),
        (
            (
                b"[    1.0] Failed to execute /bootproof/init (error -8)\r\n"
                b"[    1.1] Kernel panic - not syncing: No working init found.  Try passing.\r\n"
            ),
            ("No working init found.  Try passing.; Failed to execute /bootproof/init (error -8)"),
        ),
        (
            b"[    1.1] Kernel panic - not syncing: Requested init /x failed (error -2).\r\n",
            "Requested init /x failed (error -2).",
        ),
        (NO_ROOT, None),
        (b"", None),
    ],
)
def test_init_failure(text: bytes, wanted: str | None) -> None:
    assert kernellog.init_failure(text) == wanted


def test_init_that_the_kernel_itself_killed() -> None:
    assert kernellog.init_failure(X86_OOPS + KILLED) is None
    assert kernellog.init_failure(KILLED + X86_OOPS) is not None


# --- orderly ends ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"[ 1.0] reboot: Restarting system\r\n", "reboot: Restarting system"),
        (b"[ 1.0] reboot: Power down\r\n", "reboot: Power down"),
        (
            b"[ 1.0] reboot: Restarting system with command 'x'\r\n[ 1.1] reboot: machine restart",
            "reboot: Restarting system with command 'x'",
        ),
        (b"[ 1.0] Command line: reboot: Power down\r\n", None),
        (b"[ 1.0] Rebooting in 1 seconds..\r\n", None),
    ],
)
def test_orderly_end(text: bytes, wanted: str | None) -> None:
    assert kernellog.orderly_end(text) == wanted


# --- text that is waited for ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted", "at"),
    [
        (b"a login: b", b"login:", 2),
        (b"[\x1b[0;32m  OK  \x1b[0m] Reached target", b"[  OK  ] Reached", 0),
        (b"lo\x1b[1m\x1b[31mgin\x1b[m:", b"login:", 0),
        (b"\x1b[31mred", b"red", 5),
        (b"\x1b[31mred", b"\x1b[31mr", 0),  # whoever asks for the sequence itself
        (b"a\x1b[2Kb", b"ab", -1),  # no colour: a line that is erased shows something else
        (b"a.b", b"a+b", -1),
        (b"Command line: login:\nlogin:", b"login:", -1),  # kernels say it in many messages
    ],
)
def test_text_is_found_as_a_terminal_shows_it(text: bytes, wanted: bytes, at: int) -> None:
    assert kernellog.find(text, wanted) == at
