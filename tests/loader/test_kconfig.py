"""What a kernel lacks, by its own configuration or by what is not in it."""

from __future__ import annotations

import gzip

import pytest

from bootproof.harness.arch.table import ARCHES
from bootproof.loader.banner import is_linux
from bootproof.loader.ikconfig import embedded_config, find
from bootproof.loader.kconfig import COMMON, Need, lacking, look

EVERYTHING = b"Linux version 6.1 \0 serial8250 uart-pl011 no cpio magic loadavg"
SET = {need.option: "y" for need in COMMON} | {"CONFIG_SERIAL_8250_CONSOLE": "y"}
SAYS = "its own configuration says"
NEEDS = (ARCHES["x86_64"].on(None).serial.driver, *COMMON)


def configured(options: dict[str, str]) -> bytes:
    """A kernel with its configuration inside."""
    text = "# a comment\n" + "".join(f"{name}={value}\n" for name, value in options.items())
    packed = gzip.compress(f"{text}# CONFIG_OFF is not set\n".encode(), mtime=0)
    return bytes(1000) + b"IKCFG_ST" + packed + b"IKCFG_ED" + b"x" * 1000


def words(kernel: bytes, needs: tuple[Need, ...] = NEEDS) -> list[str]:
    return list(lacking(look(memoryview(kernel), needs), needs))


def test_a_kernel_with_everything_lacks_nothing() -> None:
    assert words(EVERYTHING) == []
    assert words(configured(SET)) == []


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        (b"serial8250", "the driver of the serial port (8250): nothing of CONFIG_SERIAL_8250_CON"),
        (b"no cpio magic", "an initramfs, which holds the proof's init: nothing of CONFIG_BLK_DEV"),
        (b"loadavg", "procfs, where the guest reads its own address: nothing of CONFIG_PROC_FS"),
    ],
)
def test_what_no_text_of_is_in_it_is_lacking(gone: bytes, sentence: str) -> None:
    (found,) = words(EVERYTHING.replace(gone, b""))
    assert found.startswith(sentence)


def test_each_architecture_wants_its_own_serial_port() -> None:
    assert words(EVERYTHING.replace(b"uart-pl011", b"")) == []
    needs = (ARCHES["aarch64"].on(None).serial.driver,)
    (found,) = words(EVERYTHING.replace(b"uart-pl011", b""), needs)
    assert found.startswith("the driver of the serial port (pl011)")


def test_the_configuration_inside_is_believed_before_the_texts() -> None:
    kernel = configured(SET | {"CONFIG_SERIAL_8250_CONSOLE": "m"}) + EVERYTHING
    assert words(kernel) == [
        f"the driver of the serial port (8250): CONFIG_SERIAL_8250_CONSOLE is a module, {SAYS}"
    ]
    del (options := dict(SET))["CONFIG_BINFMT_SCRIPT"]
    assert words(configured(options)) == [
        f"scripts, which the proof's init is: CONFIG_BINFMT_SCRIPT is not set, {SAYS}"
    ]


@pytest.mark.parametrize(
    "broken",
    [
        b"IKCFG_ST",
        b"IKCFG_ST" + gzip.compress(b"CONFIG_A=y\n", mtime=0)[:-9],
        b"IKCFG_ST\x1f\x8b\x08" + b"\xff" * 99,
        b"IKCFG_ST" + gzip.compress(bytes(5 << 20), mtime=0),
    ],
    ids=["marker", "cut", "damaged", "bomb"],
)
def test_a_broken_configuration_is_none(broken: bytes) -> None:
    assert embedded_config(memoryview(broken + EVERYTHING)) is None


def test_a_marker_in_other_data_does_not_hide_the_configuration() -> None:
    kernel = b"IKCFG_ST\x1f\x8b\x08 no gzip " + configured({"CONFIG_A": "y", "CONFIG_B": '"text"'})
    assert embedded_config(memoryview(kernel)) == {"CONFIG_A": "y", "CONFIG_B": '"text"'}


@pytest.mark.parametrize("at", [0, 5, (1 << 20) - 3, 1 << 20, (2 << 20) - 1, (2 << 20) + 9])
def test_find_sees_a_text_once_wherever_it_lies(at: int) -> None:
    data = bytearray(3 << 20)
    data[at : at + 6] = b"needle"
    assert list(find(memoryview(data), b"needle")) == [at]


def test_find_sees_several() -> None:
    data = b"aab" * ((1 << 20) // 2)
    assert list(find(memoryview(data), b"aab")) == list(range(0, len(data), 3))


def test_linux_is_known_by_its_banner() -> None:
    assert is_linux(memoryview(EVERYTHING))
    assert not is_linux(memoryview(b"Xen version 4.20"))
