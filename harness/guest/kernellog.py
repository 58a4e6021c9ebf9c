"""What a kernel says about its own end: panic, oops, an orderly restart. Pure: text in, facts out.

The text is a console transcript or the log buffer's records. Only whole messages count, where a
message can begin: a command line that is echoed, or a message that quotes another, is none.

Sources: kernel/panic.c, kernel/exit.c, kernel/reboot.c, init/main.c; die() and show_regs() of
arch/x86/kernel/dumpstack.c, arch/arm64/kernel/traps.c and arch/riscv/kernel/traps.c;
determine_cpu_tsc_frequencies() of arch/x86/kernel/tsc.c, check_timer() of apic/io_apic.c.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.text import printable, quoted

_CALLER: Final = rb"(?:\[ *[TC]\d+\])? "  # with CONFIG_PRINTK_CALLER
STAMP: Final = rb"(?<!\] )\[ *\d+\.\d+\]" + _CALLER
"""Before each line of the kernel's, unless printk.time is off. A stamp behind a stamp is part of a
quotation."""
SECOND: Final = rb"\[ *(\d{1,12})\.\d+\]" + _CALLER
"""The same at the beginning of a line, with the second as a group."""
_BEGIN: Final = rb"(?:^|" + STAMP + rb")"
_REST: Final = rb"[^\r\n]{0,1000}"  # of a message: LOG_LINE_MAX of kernel/printk/printk.c
_FRAME: Final = rb"(\w[\w.]{0,500}\+0x[0-9a-f]{1,16}/0x[0-9a-f]{1,16})"

PANIC_WORDS: Final = b"Kernel panic - not syncing: "
"""What a panic begins with, on the console and in RAM."""
_PANIC: Final = _BEGIN + PANIC_WORDS + rb"(" + _REST + rb")"
END_OF_PANIC_WORDS: Final = b"---[ end Kernel panic"
"""What a kernel that stays after its panic prints last."""
END_OF_PANIC: Final = re.compile(_BEGIN + re.escape(END_OF_PANIC_WORDS), re.MULTILINE)
DIED: Final = (
    rb"(?:[^\[\]\r\n][^\[\r\n]{0,200}?: [0-9a-f]{4,16}|Oops(?: - [A-Za-z ()]{1,60})?|Kernel BUG)"
    rb" \[#\d+\](?=(?: [A-Z0-9_]+){0,12} *\r?$)"
)
"""The end of what ran, with the error code of x86, the syndrome of arm64 or the words of riscv, and
then PREEMPT, SMP and their like only."""
_DIED: Final = _BEGIN + rb"(" + DIED + rb")"
_BUG: Final = _BEGIN + rb"((?:BUG: |kernel BUG at |Unable to handle kernel )" + _REST + rb")"
_TRACE: Final = _BEGIN + rb"Call [Tt]race:"
_IN_TRACE: Final = _BEGIN + rb"(?: |\[<[0-9a-f]{1,16}>\] )" + _FRAME
_AT: Final = rb"(?:RIP: \d+:|e?pc : )" + _FRAME
_ORDERLY: Final = (
    _BEGIN
    + rb"(reboot: (?:Restarting system|Power down|System halted|Power off not available)"
    + _REST
    + rb")"
)
# What Linux says again of what it was given ("Kernel command line: …", "Unknown kernel command line
# parameters …"): words of the one who started it, whatever they look like.
_ECHO: Final = re.compile(rb"(ommand line(?:: | parameters ))([^\r\n]*)")
_BANNER: Final = _BEGIN + rb"Linux version "
# setup_arch() of init/main.c. Newer kernels part a long one into lines that end in a backslash.
_COMMAND_LINE: Final = _BEGIN + rb"Kernel command line: "
_WHOLE_LINE: Final = re.compile(rb"([^\r\n]{0,8192}[^\r\n\\])\r?\n")
_TIMES_LOOKED_AT: Final = 100
_STAMPED: Final = re.compile(rb"^" + STAMP, re.MULTILINE)
_STAMPS_LOOKED_FOR: Final = 64 << 10  # bytes
_CONSOLE: Final = _BEGIN + rb"(?:printk: )?(?:legacy )?console \[(\w{1,32})\] enabled"
_UNHEARD: Final = _BEGIN + rb"bootproof: no serial port for init; the console is (\w{1,32})"
_CLOCKLESS: Final = _BEGIN + rb"(tsc: Marking TSC unstable due to could not calculate TSC khz)"
_SGR: Final = rb"(?:\x1b\[[0-9;:]*m)*"  # ECMA-48, 8.3.117
_INIT_RUNS: Final = rb"Run /[^\r\n]{0,200}? as init process\r?\n"
_NOT_EXECUTED: Final = _BEGIN + rb"((?:Failed to execute /|Starting init: )" + _REST + rb")"
_KILLED: Final = re.compile(r"Attempted to kill init! *exitcode=0x([0-9a-f]{1,8})")
_NO_INIT: Final = ("No working init found", "Requested init ")
_OWN_WORDS_WITHIN: Final = 64 << 10  # bytes
_BUG_REACH: Final = 2000  # bytes from "BUG: ..." to the line with the oops number
_MACHINERY: Final = frozenset(
    (
        *(b"dump_backtrace", b"show_stack", b"dump_stack", b"dump_stack_lvl"),
        *(b"panic", b"vpanic", b"nmi_panic", b"panic_bad_stack"),
    )
)


@dataclass(frozen=True, slots=True)
class Message:
    """What the kernel said, and the function it was in: of the call trace, or at the fault."""

    reason: str
    frame: str | None = None

    def __str__(self) -> str:
        return self.reason if self.frame is None else f"{self.reason}, in {self.frame}"


def echoes(line: bytes) -> bool:
    """Whether what follows on this line is the kernel's command line, said again."""
    return _ECHO.search(line) is not None


def echoed(text: bytes, wanted: bytes) -> bool:
    """Whether the command line that a kernel says again has `wanted` in it: it means nothing then,
    wherever else it stands.
    """
    return any(wanted in match.group(2) for match in _ECHO.finditer(text))


def shown(wanted: bytes) -> bytes:
    """A pattern for text as a terminal shows it: colours and the like may stand in between."""
    return _SGR.join(re.escape(wanted[at : at + 1]) for at in range(len(wanted)))


def find(text: bytes, wanted: bytes) -> int:
    """Where `wanted` first is shown; -1 if nowhere, or if it is a part of the command line."""
    match = None if echoed(text, wanted) else re.search(shown(wanted), text)
    return match.start() if match else -1


def without_echoes(text: bytes) -> bytes:
    """The text with blanks for what Linux says again of its command line: nothing else moves."""
    return _ECHO.sub(lambda echo: echo[1].ljust(len(echo[0])), text)


def panic(text: bytes) -> Message | None:
    """The first panic; its frame is the first of the call trace that is not panic() itself."""
    text = without_echoes(text)
    said = _search(_PANIC, text)
    if said is None:
        return None
    reason = printable(said.group(1)).rstrip() or "without a reason"
    return Message(reason, _first_frame(text[said.end() :]))


def clockless(text: bytes) -> str | None:
    """What a kernel says that could not measure its clock, and that may have no other."""
    said = _search(_CLOCKLESS, without_echoes(text))
    return None if said is None else printable(said.group(1))


def oops(text: bytes) -> Message | None:
    """The first oops: an exception in the kernel that killed what ran (die(), "[#1]")."""
    text = without_echoes(text)
    died = _search(_DIED, text)
    if died is None:
        return None
    bugs = list(_every(_BUG, text, max(0, died.start() - _BUG_REACH), died.start()))
    what = bugs[-1] if bugs else died
    return Message(printable(what.group(1)), faulting_function(text, died.end()))


def faulting_function(text: bytes, start: int = 0, end: int | None = None) -> str | None:
    """The function that the next dump of registers in text[start:end] says the CPU was in."""
    at = _search(_AT, text, start, end)
    return at.group(1).decode() if at else None


def stamped(text: bytes) -> bool:
    """Whether the kernel stamps its messages: then what has no stamp is somebody else's."""
    return _STAMPED.search(text, 0, _STAMPS_LOOKED_FOR) is not None


def without_quotations(said: bytes, *, stamps: bool, in_log: bool | None) -> bytes:
    """What a guest said after its proof, without panics that are the words of a program.

    A panic that the log buffer has is real (`in_log`; None where nobody knows). Else any is a
    program's after which the kernel ended in order, unless that is a kernel which a crash started;
    and one without a stamp where the kernel `stamps` its messages and the log has none.
    """
    if in_log or _search(_PANIC, said) is None:
        return said
    said = without_echoes(said)
    ends = [] if on_console(said) else [end.start() for end in _every(_ORDERLY, said)]
    last = max(ends, default=-1)

    def kept(panic: re.Match[bytes]) -> bytes:
        unstamped = panic[0].startswith(b"K")
        quoted = panic.start() < last or (stamps and in_log is False and unstamped)
        return b"" if quoted else panic[0]

    return re.sub(_PANIC, kept, said, flags=re.MULTILINE)


def on_console(transcript: bytes) -> bool:
    """Whether a kernel has begun to tell the console what it does: its banner comes first."""
    return _search(_BANNER, transcript) is not None


def without_firmware(transcript: bytes) -> bytes:
    """What the console shows from the kernel's banner on; nothing where there is none."""
    banner = _search(_BANNER, transcript)
    return transcript[banner.start() :] if banner else b""


def consoles(text: bytes) -> tuple[str, ...]:
    """The consoles that the kernel opened, by the names that console= has for them."""
    opened = islice(_every(_CONSOLE, without_echoes(text)), _TIMES_LOOKED_AT)
    return tuple(dict.fromkeys(match[1].decode() for match in opened))


def unheard(text: bytes) -> str | None:
    """The console of a guest whose init, ours, found no serial port to prove its boot through."""
    found = _search(_UNHEARD, text)
    return found[1].decode() if found else None


def command_line(text: bytes) -> str | None:
    """The command line that the kernel says it has, all of it on one line."""
    for said in islice(_every(_COMMAND_LINE, text), _TIMES_LOOKED_AT):
        if line := _WHOLE_LINE.match(text, said.end()):
            return line[1].decode("utf-8", "backslashreplace")
    return None


def orderly_end(text: bytes) -> str | None:
    """The last message of a kernel that restarts or ends the machine because it was asked to."""
    said = deque(_every(_ORDERLY, without_echoes(text)), maxlen=1)
    return printable(said[0].group(1)) if said else None


def powered_down(text: bytes) -> str | None:
    """The kernel's word for a power-off that nothing on the machine carried out.

    The kernel then lets init go on to its end, exit code 0, and panics (kernel/reboot.c).
    """
    end = init_end(without_echoes(text), None)
    return orderly_end(text) if end is not None and not end.status else None


def init_failure(text: bytes) -> str | None:
    """Why there is no init any more, when that is what the kernel panicked about.

    An init that was killed because the kernel itself oopsed has not failed.
    """
    text = without_echoes(text)
    runs = _search(_INIT_RUNS, text) if re.search(STAMP, text) else None
    end = init_end(text, runs.end() if runs else None)
    if end is not None:
        return f"init {end.how} without its proof{end.last_words} ({end.reason})"
    found = _search(_PANIC, text)
    reason = printable(found.group(1)) if found else ""
    if reason.startswith(_NO_INIT):
        tried = _search(_NOT_EXECUTED, text)
        return reason if tried is None else f"{reason}; {printable(tried.group(1))}"
    return None


@dataclass(frozen=True, slots=True)
class InitEnd:
    """An init that ended: its status as wait(2) has it, what it said last, the panic's reason."""

    status: int
    last_words: str
    reason: str

    @property
    def how(self) -> str:
        signal = self.status & 0x7F
        return f"was ended by signal {signal}" if signal else f"exited with {self.status >> 8}"


def init_end(text: bytes, began: int | None) -> InitEnd | None:
    """How init ended, when the kernel panicked because it did; not when it oopsed before.

    What init says begins at `began`; None when that is not known.
    """
    found = _search(_PANIC, text)
    killed = _KILLED.match(printable(found.group(1))) if found else None
    if found is None or killed is None or _search(_DIED, text, 0, found.start()):
        return None
    stamped = re.search(STAMP, text)  # else nothing tells whose words are whose
    said = text[began : found.start()] if stamped and began is not None else b""
    return InitEnd(int(killed.group(1), 16), _last_words(said), printable(found.group(1)))


def _search(
    pattern: bytes, text: bytes, start: int = 0, end: int | None = None
) -> re.Match[bytes] | None:
    return next(_every(pattern, text, start, end), None)


def _every(
    pattern: bytes, text: bytes, start: int = 0, end: int | None = None
) -> Iterator[re.Match[bytes]]:
    """The matches in text[start:end], in order. To look for a word first costs next to nothing, and
    most texts have nothing to find: a pattern for them is never compiled.
    """
    if _WORDS.get(pattern, b"") not in text:
        return iter(())
    compiled = re.compile(pattern, re.MULTILINE)
    return compiled.finditer(text, start, len(text) if end is None else end)


_WORDS: Final = {
    _PANIC: PANIC_WORDS,
    _DIED: b" [#",
    _ORDERLY: b"reboot: ",
    _BANNER: b"Linux version ",
    _COMMAND_LINE: b"Kernel command line: ",
    _CONSOLE: b"] enabled",
    _UNHEARD: b"bootproof: no serial port for init",
}
"""What a text must have in it for a pattern to match."""


def _last_words(text: bytes) -> str:
    """The last line that init itself printed: one without a time stamp."""
    lines = text[-_OWN_WORDS_WITHIN:].splitlines()
    own = [line for line in lines if line.strip() and not re.match(STAMP, line)]
    return f" after {quoted(printable(own[-1].strip()))}" if own else ""


def _first_frame(text: bytes) -> str | None:
    trace = _search(_TRACE, text)
    if trace is None:
        return None
    for frame in _every(_IN_TRACE, text, trace.end()):
        if frame.group(1).partition(b"+")[0] not in _MACHINERY:
            return frame.group(1).decode()
    return None
