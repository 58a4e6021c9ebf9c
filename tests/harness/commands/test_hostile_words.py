"""What strangers say, in whatever form: it is shown, and never obeyed."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.case import Case
from bootproof.harness.expected import Expected
from bootproof.harness.judge import judge
from bootproof.harness.observation import End, Observation
from bootproof.harness.qemu.console import timestamped
from bootproof.harness.text import printable
from bootproof.printable import one_line
from tests import ROOT
from tests.builders.guests import Claim, X86Program, initrd_saying, machine
from tests.builders.processes import LOAD, bootproof, vmlinux

# Each would change a terminal, or what a person reads on it.
ATTACKS = {
    "clear the screen": b"\x1b[2J\x1b[H",
    "set the title": b"\x1b]0;pwned\x07",
    "write the clipboard": b"\x1b]52;c;cHduZWQ=\x07",
    "8-bit CSI": b"\x9b2J",
    "8-bit CSI in UTF-8": "\u009b2J".encode(),
    "device control": b"\x1bP+q544e\x1b\\",
    "back over the line": b"honest\rforged",
    "backspaces": b"bad\x08\x08\x08good",
    "right to left": "\u202egnp.exe\u202c".encode(),
    "isolates": "\u2066a\u2069".encode(),
    "zero width": "a\u200bb\u200dc\ufeff".encode(),
    "line separators": "a\u2028b\u2029c\x0bd\x0ce\x85".encode(),
    "tags": "\U000e0041\U000e0042".encode(),
    "no UTF-8": b"\xff\xfe\xc0\x80",
    "shift out": b"\x0e\x0f",
    "answerback": b"\x05\x1b[c\x1b[6n",
}
SAFE = frozenset("LMNPS")  # letters, marks, numbers, punctuation, symbols


def harmless(text: str) -> bool:
    return all(c in " \n\t" or unicodedata.category(c)[0] in SAFE for c in set(text))


def test_every_character_there_is() -> None:
    characters = [chr(number) for number in range(0x110000) if not 0xD800 <= number < 0xE000]
    for at in range(0, len(characters), 256):
        text = "".join(characters[at : at + 256])
        assert harmless(printable(text.encode())), hex(ord(text[0]))
        assert harmless(one_line(text)) and "\n" not in one_line(text), hex(ord(text[0]))


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_guest_output_in_log_and_verdict(attack: bytes) -> None:
    assert harmless(timestamped(b"before\n" + attack + b"\nafter\n", [(0.0, 0)]))
    claim = Claim(machine("x86_64"), 0)
    for transcript in (
        attack,
        b"Kernel panic - not syncing: " + attack + b"\r\n",
        b"bootproof: release " + attack + b"\r\n" + claim.text(),
        claim.text(cmdline=attack.decode("utf-8", "replace").replace("\r", "")),
    ):
        for end in (End.GUEST_RESET, End.QEMU_EXITED, End.PARKED, End.BUDGET):
            seen = Observation(transcript, end, exit_code=1, stderr=attack.decode("latin-1"))
            reason = judge(claim.expected, seen).reason
            assert harmless(reason) and "\n" not in reason, reason
    assert isinstance(claim.expected, Expected)


def test_guest_output_on_the_terminal(tmp_path: Path) -> None:
    """All of it at once, through real QEMU, the live view, the verdict and the log."""
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux(X86Program(LOAD).say_initrd().reset()))
    said = b"\n".join(attack.replace(b"\0", b"") for attack in ATTACKS.values())
    (tmp_path / "initrd").write_bytes(initrd_saying(said))
    words: list[str | Path] = ["boot", path, "--protocol", "linux64", "--memory", "32M"]
    words += ["--initrd", tmp_path / "initrd", "--out", tmp_path / "run"]
    done = subprocess.run(bootproof(*words), cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 1
    assert harmless(done.stdout.decode()) and harmless(done.stderr.decode())
    assert done.stdout.decode().count("\n| ") >= len(ATTACKS)
    for name in ("transcript.log", "result.json", "qemu.sh"):
        assert harmless((tmp_path / "run" / name).read_text()), name
    assert (tmp_path / "run" / "console.log").read_bytes().replace(b"\r\n", b"\n") == said


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_word_of_the_command_line(attack: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no option is shown as well, in one line; so are names that lead nowhere."""
    word = os.fsdecode(attack)
    for words in (["boot", "x", f"--{word}"], [word], ["boot", word], ["history", word]):
        code = cli.main(words)
        out, said = capsys.readouterr()
        assert (code, out, said.count("\n")) == (2, "", 1), said
        assert harmless(said), said


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a/b", "$(id)", "`id`", "a\nb", "\x1b[2J", "-rf", "a b", ",x=y", ""],
)
def test_case_id_is_one_plain_name_whatever_the_scenario_says(name: str) -> None:
    """It becomes the name of a directory."""
    for case in (
        Case("x86_64", name, "elf", "pvh"),
        Case("x86_64", "k", "elf", "pvh", label=name),
        Case("x86_64", "k", "elf", "pvh", cpu=name, board=name, cmdline=name),
        Case("x86_64", "k", "elf", "pvh", variant=name),
    ):
        assert "/" not in case.id and case.id.isascii() and case.id.isprintable()
        assert case.id not in ("", ".", "..") and not case.id.startswith("-")
        assert not set(case.id) & set("$`\\'\" ;|&<>*?\n")
