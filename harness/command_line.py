"""The kernel command line of a guest under test: what was chosen, and what its proof needs.

Owns: where our own words go, which words of the user's cannot be right there, and what runs after
the proof. Must not know: profiles, how the line gets into RAM, how it is read back.

Source: Documentation/admin-guide/kernel-parameters.txt (init=, rdinit=, `--`).
"""

from __future__ import annotations

import re
from typing import Final

from bootproof.loader import kernelargs

RDINIT: Final = "rdinit=/bootproof/init"
NONCE: Final = "bootproof.nonce="
OTHERS_NONCE: Final = "bootproof.guest="  # for guests that are no Linux: docs/other-guests.md
NEXT: Final = "bootproof.next="
THEN: Final = "bootproof.then="  # what tests hand over to, instead of ending the machine
INIT_OF_INITRD: Final = "/init"
_OUR_PROGRAMS: Final = "/bootproof/"
SHELL: Final = f"{_OUR_PROGRAMS}shell"
DIALOGUE: Final = f"{_OUR_PROGRAMS}dialogue"
TESTS: Final = f"{_OUR_PROGRAMS}run-tests"
_OURS: Final = re.compile(rf'(?<![^\s"])({re.escape(NONCE)}|{re.escape(NEXT)}|{re.escape(THEN)})')
_OTHER_LINE: Final = re.compile(r"[\r\n\0]")
_SHOWN: Final = 40  # characters of the user's that a refusal quotes


def complete(text: str, nonce: str, next_init: str | None, then: str | None = None) -> str:
    """What was chosen, then what the proof needs.

    `next_init` is the guest program that our init hands over to instead of ending the machine,
    `then` what that one does.
    What follows a `--` is for init alone: ours goes before it. Blanks at the ends are dropped,
    since the guest's shell does not see them.
    """
    line = text.encode()
    end = kernelargs.for_init(line)
    words = [line[:end].decode().strip(), RDINIT, f"{NONCE}{nonce}"]
    words += [f"{NEXT}{next_init}"] if next_init else []
    words += [f"{THEN}{then}"] if then else []
    words.append(line[end:].decode().strip())
    return " ".join(word for word in words if word)


def appended(text: str, more: str | None) -> str:
    """A command line and more words: before a `--`, behind which all is for init."""
    if more is None:
        return text
    line = text.encode()
    end = kernelargs.for_init(line)
    words = (line[:end].decode().strip(), more.strip(), line[end:].decode().strip())
    return " ".join(word for word in words if word)


def next_init(text: str, *, has_init: bool, shell: str | None = None) -> str | None:
    """What runs after the proof: the user's rdinit, the /init that his initrd has, else `shell`."""
    return _own_program(text, "rdinit") or (INIT_OF_INITRD if has_init else shell)


def users_program(text: str) -> str | None:
    """What of the user's a guest with this command line runs after its proof: a program, or tests
    by way of one of ours.
    """
    program = _following(text)
    ours = program.startswith(_OUR_PROGRAMS) and program != TESTS
    return program if program and not ours else None


def talks(text: str) -> bool:
    """Whether somebody talks to a shell of ours in a guest with this command line."""
    return _following(text) in (SHELL, DIALOGUE)


def runs_tests(text: str) -> bool:
    """Whether a guest with this command line runs tests after its proof."""
    return _value(text, NEXT) == TESTS


def _following(text: str) -> str:
    """The last of what runs after the proof."""
    return _value(text, THEN) or _value(text, NEXT)


def _value(text: str, name: str) -> str:
    value = kernelargs.last_value(text.encode(), name.rstrip("=").encode()) or b""
    return value.decode("utf-8", "backslashreplace")


def problem(text: str, *, initrd: bool) -> str | None:
    """Why a command line cannot be right with our words in it; None when nothing is wrong.

    `initrd` says whether the guest is given one by the user.
    """
    stripped = text.strip()
    broken = _OTHER_LINE.search(stripped)
    if broken:
        before = stripped[max(0, broken.start() - _SHOWN) : broken.start()]
        return f"has {broken.group()!r} after {before!r}: a kernel's command line is a single line"
    line = text.encode()
    quote = kernelargs.open_quote(line)
    if quote is not None:
        return f"has a quote that is never closed: {_shown(line[quote:].decode())}"
    ours = _OURS.search(text)
    if ours:
        return f"has {ours.group(1)}, which is bootproof's own: leave it out"
    return _problem_of_init(text, initrd=initrd)


def _problem_of_init(text: str, *, initrd: bool) -> str | None:
    for name in ("rdinit", "init"):
        program = _own_program(text, name)
        if program is None:
            continue
        if not initrd:
            return (
                f"has {name}={_shown(program)}, which would not be run: without an initrd there is"
                " nothing in the guest but the proof; give one (--initrd), and it runs after the"
                f" proof, or leave {name}= out"
            )
        if re.search(r"\s", program):
            return f"has {name}={_shown(program)}: no program with blanks in its name is run"
    return None


def names_our_init(text: str) -> bool:
    """Whether a kernel with this command line runs our init."""
    return kernelargs.last_value(text.encode(), b"rdinit") == RDINIT.partition("=")[2].encode()


def _own_program(text: str, name: str) -> str | None:
    """The program that the user's rdinit= or init= names, where it is not ours."""
    value = kernelargs.last_value(text.encode(), name.encode())
    if value is None or f"{name}={value.decode()}" == RDINIT:
        return None
    return value.decode()


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
