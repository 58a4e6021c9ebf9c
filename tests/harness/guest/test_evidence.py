"""What the guest said, out of a console full of other things; and whether it is genuine."""

from __future__ import annotations

import hashlib
import os
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.harness.guest import evidence
from bootproof.harness.guest.evidence import GuestEvidence, parse, proof_for
from bootproof.harness.guest.nonce import nonce_for
from bootproof.loader.address import Range
from tests.builders.guests import framed
from tests.builders.programs import host_program

PROOF = "ab" * 32
PAIRS = (
    ("cmdline", "console=ttyS0 bootproof.nonce=11"),
    ("cpus", "2"),
    ("memory", "480000 kB"),
    ("code", "01000000-01ffffff"),
    ("ram", "00001000-0009fbff"),
    ("ram", "00100000-1fffffff"),
)
BLOCK = "".join(framed(number, *pair) for number, pair in enumerate(PAIRS, start=1)).encode()
BLOCK += b"bootproof: proof " + PROOF.encode() + b"\r\n"
GOOD = b"[    1.0] Run /bootproof/init as init process\r\n" + BLOCK + BLOCK
CHATTER = b"[   10.571076] irq_handler_entry: irq=4 name=ttyS0\r\n"


def test_everything_is_read() -> None:
    said = parse(GOOD)
    assert said.proof == PROOF
    assert said.text == (
        "cmdline console=ttyS0 bootproof.nonce=11\ncpus 2\nmemory 480000 kB\n"
        "code 01000000-01ffffff\nram 00001000-0009fbff\nram 00100000-1fffffff\n"
    )
    assert said.value("cmdline") == "console=ttyS0 bootproof.nonce=11"
    assert said.values("ram") == ("00001000-0009fbff", "00100000-1fffffff")
    assert said.ram == (Range.between(0x1000, 0x9FC00), Range.between(0x100000, 0x20000000))
    assert said.code == Range.between(0x1000000, 0x2000000)
    assert (said.number("cpus"), said.number("memory")) == (2, 480000)
    assert said.to_json()["ram"] == ["00001000-0009fbff", "00100000-1fffffff"]
    assert said.to_json()["proof"] == PROOF


def test_kernel_lines_between_and_bare_line_feeds_change_nothing() -> None:
    interleaved = GOOD.replace(b"bootproof: 2", b"[    2.0] clocksource: x\r\nbootproof: 2")
    assert parse(interleaved) == parse(GOOD) == parse(GOOD.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize("step", [1, 7, 16])
def test_kernel_messages_in_the_middle_of_every_line(step: int) -> None:
    """One after each transmit interrupt, as tracing on the console has it; also of a thread."""
    for message in (CHATTER, CHATTER.replace(b"] ", b"][   T12] ")):
        cut = [BLOCK[at : at + step] + message for at in range(0, len(BLOCK), step)]
        assert parse(b"".join(cut)) == parse(GOOD)


def test_one_message_without_a_time_stamp_anywhere() -> None:
    """It cannot be told from init's own words: but what it cuts is said once more."""
    for at in range(len(BLOCK)):
        assert parse(BLOCK[:at] + b"watchdog: out of the blue\n" + BLOCK[at:] + BLOCK) == parse(
            GOOD
        )


def test_a_line_that_a_message_has_changed_is_none() -> None:
    """A cut that leaves something that looks like a line does not go unnoticed."""
    wrong = framed(2, "cpus", "2").replace("cpus 2", "cpus 2[    1.0] x").encode()
    assert parse(wrong + b"\n").values("cpus") == ()
    assert parse(framed(2, "cpus", "2").replace("cpus 2", "cpus 3").encode()).text == ""


def test_evidence_by_way_of_the_kernels_log() -> None:
    """Where only the kernel has a console, init's words come with time stamps."""
    stamped = b"".join(b"[    1.0] " + line for line in BLOCK.splitlines(keepends=True))
    assert parse(stamped) == parse(GOOD)


def test_lines_count_as_far_as_none_is_missing() -> None:
    lines = BLOCK.splitlines(keepends=True)
    assert parse(b"".join(lines[:2] + lines[3:])).text == "".join(
        f"{key} {value}\n" for key, value in PAIRS[:2]
    )


@pytest.mark.parametrize(
    "cut",
    [
        b"Command line: bootproof: proof 00\r\n",
        b"[    2.0] Command line: " + framed(2, "cpus", "9").encode(),
        b" " + framed(2, "cpus", "9").encode(),  # not at the start of a line
        framed(2, "cpus", "9").encode().replace(b": ", b":"),
        b"bootproof: 2 00000000 cpus 9\r\n",
        b"bootproof: cpus 9\r\n",
        framed(1000, "cpus", "9").encode(),
        b"bootproof: \r\n",
    ],
)
def test_lines_that_are_none(cut: bytes) -> None:
    assert parse(cut + GOOD) == parse(GOOD)


def test_a_line_that_was_cut_short_is_none() -> None:
    assert parse(BLOCK[: BLOCK.index(b"bootproof: proof") + 30]).proof is None
    assert parse(BLOCK[:-2]).proof is None  # its end has not come yet
    cut = BLOCK[: BLOCK.index(b" memory") + 9]
    assert parse(cut).values("memory") == ()


def test_nothing_after_the_first_proof_counts() -> None:
    more = framed(7, "ram", "40000000-7fffffff") + framed(2, "cpus", "64")
    proof = b"bootproof: proof " + b"0" * 64 + b"\r\n"
    assert parse(GOOD + more.encode() + proof) == parse(GOOD)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_a_line_feed_ends_a_line(separator: str) -> None:
    """A command line may hold characters that Python, too, takes for the end of a line."""
    cmdline = f"quiet{separator}cpus 64"
    said = parse((framed(1, "cmdline", cmdline) + framed(2, "cpus", "1")).encode())
    assert said.value("cmdline") == cmdline
    assert said.values("cpus") == ("1",)
    assert said.to_json() == {"cmdline": [cmdline], "cpus": ["1"], "proof": None}


def test_bytes_that_are_no_text() -> None:
    check = hashlib.sha256(b"cmdline \xff\n").hexdigest()[:8].encode()
    said = parse(b"bootproof: 1 " + check + b" cmdline \xff\n")
    assert said.value("cmdline") == "\\xff"


@pytest.mark.parametrize("text", ["", "none", "x 2", "-"])
def test_no_number(text: str) -> None:
    assert GuestEvidence(f"cpus {text}\n", None).number("cpus") is None
    assert GuestEvidence("", None).number("cpus") is None


@pytest.mark.parametrize("text", ["", "zz-ff", "ff", "200-100", "0x100-0x200", "100-200 : x"])
def test_no_range(text: str) -> None:
    said = GuestEvidence(f"code {text}\nram {text}\n", None)
    assert said.code is None
    assert said.ram == ()


@given(st.binary(max_size=300))
def test_any_console_can_be_read(transcript: bytes) -> None:
    said = parse(transcript + b"\nbootproof: " + transcript + b"\n" + GOOD)
    assert said.proof is not None
    said.to_json()


# --- the proof ---------------------------------------------------------------------------------


def test_proof_is_over_nonce_and_every_line() -> None:
    text = "cmdline quiet\ncpus 1\n"
    proof = hashlib.sha256(b"the nonce\ncmdline quiet\ncpus 1\n").hexdigest()
    assert proof_for("the nonce", text.encode()) == proof
    assert GuestEvidence(text, proof).proves("the nonce")
    assert not GuestEvidence(text, proof).proves("another nonce")
    assert not GuestEvidence(text.replace("1", "2"), proof).proves("the nonce")
    assert not GuestEvidence(text + "ram 0-1\n", proof).proves("the nonce")
    assert not GuestEvidence(text, None).proves("the nonce")
    assert not GuestEvidence(text, proof.upper()).proves("the nonce")


def test_nonce_depends_on_case_and_kernel() -> None:
    nonces = {nonce_for(case, kernel) for case in ("a", "b", "a\nb") for kernel in ("1", "2")}
    assert len(nonces) == 6
    assert all(len(nonce) == 32 and int(nonce, 16) for nonce in nonces)
    assert nonce_for("a", "1") == nonce_for("a", "1")


# No file may have any bytes, until something is mounted.
FULL = "mounts() { ulimit -S -f unlimited; }\ntrap '' XFSZ\nulimit -S -f 0\nb=mounts\n"


@pytest.mark.parametrize("full", ["", FULL], ids=["", "full"])
def test_init_numbers_and_proves_its_lines_as_they_are_read(full: str, tmp_path: Path) -> None:
    """The function of init that makes the lines, run by the shell that the guest has."""
    line = b'cmdline console=ttyS0 $HOME "x"  \\\\n * \xc3\xa9 \xe9\xff\n'
    text = line + b"cpus 1\nram  two  blanks \nrequest \n"
    for name in ("lines", "proc"):
        (tmp_path / name).mkdir()
    (tmp_path / "busybox").symlink_to(host_program("busybox"))
    init = resources.files("bootproof.loader").joinpath("guest", "init").read_text()
    functions = init.replace("/bootproof", str(tmp_path)).partition("if true > ")[0]
    script = f"{functions}\nb={tmp_path}/busybox nonce=11 said='' evidence=$0\n"
    script += f"{full}number_lines\n"
    words = [host_program("busybox"), "sh", "-c", script + 'printf %s "$said"', os.fsdecode(text)]
    printed = subprocess.run(words, capture_output=True, check=True).stdout
    said = evidence.parse(printed)
    assert said.text == text.decode("utf-8", "backslashreplace")
    assert said.proves("11") and not said.proves("12")
