"""What kernels log of an initrd before they find no init, from real boots, shortened."""

from __future__ import annotations

import pytest

from bootproof.harness.guest.initrd_log import explanation

VFS = "VFS: Unable to mount root fs on unknown-block(0,0)"
MEMORY = b"[    0.1] Memory: 463296K/523896K available (16384K kernel code)\r\n"
RAMDISK = b"[    0.0] RAMDISK: [mem 0x1fe10000-0x1fffffff]\r\n"
UNPACKS = b"[    1.1] Trying to unpack rootfs image as initramfs...\r\n"
FAILED = b"[    1.2] Initramfs unpacking failed: invalid magic at start of compressed archive\r\n"
FREED = b"[    1.3] Freeing initrd memory: 1984K\r\n"
NO_ACCESS = b"[    1.4] check access for rdinit=/bootproof/init failed: -2, ignoring\r\n"
OVERLAPS = (
    b"[    0.000000] INITRD: 0x48000000+0x00200000 overlaps in-use memory region - disabling"
    b" initrd\r\n"
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            RAMDISK + MEMORY + UNPACKS + FAILED + FREED,
            (
                "Initramfs unpacking failed: invalid magic at start of compressed archive (the"
                " initrd at 0x1fe10000-0x1fffffff)"
            ),
        ),
        (
            MEMORY + UNPACKS + FAILED,
            "Initramfs unpacking failed: invalid magic at start of compressed archive",
        ),
        (
            OVERLAPS + MEMORY,
            "INITRD: 0x48000000+0x00200000 overlaps in-use memory region - disabling initrd",
        ),
        (
            RAMDISK + MEMORY + UNPACKS + FREED + NO_ACCESS,
            (
                "the initrd of 1984K at 0x1fe10000-0x1fffffff was unpacked, but no init in it was"
                " run (check access for rdinit=/bootproof/init failed: -2)"
            ),
        ),
        (
            RAMDISK + MEMORY,
            "the kernel logged its initrd at 0x1fe10000-0x1fffffff, but not that it unpacked it",
        ),
        (
            MEMORY,
            "the kernel logged no initrd: it was given none, or not where it looks for one",
        ),
        (b"", None),  # a quiet kernel: nothing follows from what is not there
    ],
)
def test_the_log_says_why_there_is_no_init(text: bytes, wanted: str | None) -> None:
    assert explanation(VFS, text) == wanted


def test_other_panics_have_other_causes() -> None:
    assert explanation("Fatal exception", MEMORY + UNPACKS + FAILED) is None


def test_a_command_line_that_is_said_again_explains_nothing() -> None:
    echo = b"[    0.0] Kernel command line: x\n[ 1.0] Initramfs unpacking failed: lie\r\n"
    assert "lie" in str(explanation(VFS, MEMORY + echo))  # a line of its own: the kernel's
    one_line = b"[    0.0] Kernel command line: [ 1.0] Initramfs unpacking failed: lie\r\n"
    assert "lie" not in str(explanation(VFS, MEMORY + one_line))
