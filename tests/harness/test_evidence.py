"""What the guest said, out of a console full of other things; and whether it is genuine."""

from __future__ import annotations

import hashlib
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.harness import evidence
from bootproof.harness.evidence import GuestEvidence, nonce_for, parse, proof_for
from bootproof.loader.address import Range
from tests.builders.programs import host_program

PROOF = "ab" * 32
GOOD = (
    b"[    1.0] Run /bootproof/init as init process\r\n"
    b"bootproof: cmdline console=ttyS0 bootproof.nonce=11\r\n"
    b"bootproof: cpus 2\r\n"
    b"bootproof: memory 480000 kB\r\n"
    b"bootproof: code 01000000-01ffffff\r\n"
    b"bootproof: ram 00001000-0009fbff\r\n"
    b"bootproof: ram 00100000-1fffffff\r\n"
    b"bootproof: proof " + PROOF.encode() + b"\r\n"
)


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
    interleaved = GOOD.replace(b"bootproof: cpus", b"[    2.0] clocksource: x\r\nbootproof: cpus")
    assert parse(interleaved) == parse(GOOD) == parse(GOOD.replace(b"\r\n", b"\n"))


@pytest.mark.parametrize(
    "cut",
    [
        b"[    2.0] bootproof: cpus 9\r\n",  # not at the start of a line
        b"Command line: bootproof: proof 00\r\n",
        b" bootproof: cpus 9\r\n",
        b"bootproof:cpus 9\r\n",
        b"bootproof: cpus\r\n",
        b"bootproof: \r\n",
    ],
)
def test_lines_that_are_none(cut: bytes) -> None:
    assert parse(cut + GOOD) == parse(GOOD)


def test_a_line_that_was_cut_short_is_none() -> None:
    assert parse(GOOD[: GOOD.index(b"bootproof: proof") + 30]).proof is None
    assert parse(GOOD[:-2]).proof is None  # its end has not come yet
    cut = GOOD[: GOOD.index(b"bootproof: memory") + 20]
    assert parse(cut).values("memory") == ()


def test_nothing_after_the_first_proof_counts() -> None:
    assert parse(GOOD + b"bootproof: cpus 64\r\nbootproof: proof 00\r\n") == parse(GOOD)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_a_line_feed_ends_a_line(separator: str) -> None:
    """A command line may hold characters that Python, too, takes for the end of a line."""
    cmdline = f"quiet{separator}cpus 64"
    said = parse(f"bootproof: cmdline {cmdline}\nbootproof: cpus 1\n".encode())
    assert said.value("cmdline") == cmdline
    assert said.values("cpus") == ("1",)
    assert said.to_json() == {"cmdline": [cmdline], "cpus": ["1"], "proof": None}


def test_bytes_that_are_no_text() -> None:
    assert parse(b"bootproof: cmdline \xff\n").value("cmdline") == "\\xff"


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
    assert proof_for("the nonce", text) == proof
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


def test_shell_of_the_guest_makes_the_same_digest() -> None:
    """The lines of init that make the proof, run by the shell that the guest has."""
    script = """
        b=busybox
        say() {
            evidence="$evidence$1 $2
"
        }
        nonce=11
        say cmdline 'console=ttyS0 $HOME "x"  \\\\n'
        say cpus 1
        digest=$(printf '%s\\n%s' "$nonce" "$evidence" | $b sha256sum)
        echo "${digest%% *}"
    """
    command = [host_program("busybox"), "sh", "-c", script]
    said = subprocess.run(command, capture_output=True, check=True).stdout
    text = 'cmdline console=ttyS0 $HOME "x"  \\\\n\ncpus 1\n'
    assert said.decode().strip() == evidence.proof_for("11", text)
