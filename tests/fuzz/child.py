"""One target fuzzed by one engine, in a process of its own: `python -m tests.fuzz.child`.

Owns the engines. What escapes a parser ends the process with code 77 after the input was written
into the directory of findings; a process that dies otherwise leaves its last input there.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import importlib
import mmap
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

FOUND: Final = 77  # what libFuzzer ends with
LAST_INPUT: Final = "last-input"
EXECUTIONS: Final = "stat::number_of_executed_units:"  # libFuzzer's words
SECONDS_EACH: Final = 10  # that one input may take
MEMORY: Final = 1 << 30
_PR_SET_PDEATHSIG: Final = 1


class SlowError(BaseException):
    """An input on which a parser used more than SECONDS_EACH of CPU time."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--findings", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--engine", choices=("atheris", "mutation"), required=True)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    engine = _atheris if arguments.engine == "atheris" else _mutation
    return engine(arguments)


def _atheris(arguments: argparse.Namespace) -> NoReturn:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["loader"]):
        from tests.fuzz.targets import MOST_BYTES, PLANTED, TARGETS

        target = (TARGETS | PLANTED)[arguments.target]
    for data in target.seeds():
        (arguments.corpus / hashlib.sha1(data).hexdigest()).write_bytes(data)
    options = [
        f"-max_total_time={max(int(arguments.seconds), 1)}",
        f"-timeout={SECONDS_EACH}",
        f"-rss_limit_mb={MEMORY >> 20}",
        f"-max_len={MOST_BYTES}",
        f"-seed={arguments.seed}",
        f"-artifact_prefix={arguments.findings}/",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], str(arguments.corpus), *options], target.run)
    atheris.Fuzz()
    raise AssertionError("atheris ends the process itself")


def _mutation(arguments: argparse.Namespace) -> int:
    from tests.fuzz.mutation import fuzz
    from tests.fuzz.targets import PLANTED, TARGETS

    target = (TARGETS | PLANTED)[arguments.target]
    resource.setrlimit(resource.RLIMIT_AS, (2 * MEMORY, 2 * MEMORY))
    signal.signal(signal.SIGPROF, _slow)
    executions = 0
    with (arguments.findings / LAST_INPUT).open("w+b") as file:
        run = _recorded(target.run, file.fileno())
        try:
            executions = fuzz(run, target.seeds(), arguments.seconds, arguments.seed)
        except (Exception, SlowError):
            traceback.print_exc()
            return FOUND
    (arguments.findings / LAST_INPUT).unlink()
    print(EXECUTIONS, executions, file=sys.stderr)
    return 0


def _recorded(run: Callable[[bytes], str], fd: int) -> Callable[[bytes], str]:
    """`run` with its input left in the file `fd` for whoever looks after this process's end."""

    def recorded(data: bytes) -> str:
        mapping = b"%016x" % len(data) + data
        memory[: len(mapping)] = mapping
        signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)
        return run(data)

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    size = 1 << 20
    os.ftruncate(fd, size)
    memory = mmap.mmap(fd, size)
    return recorded


def last_input(path: Path) -> bytes:
    """What `_recorded` left in a file."""
    content = path.read_bytes()
    return content[16:][: int(content[:16] or b"0", 16)]


def _slow(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SlowError(f"more than {SECONDS_EACH} s of CPU time for one input")


if __name__ == "__main__":
    sys.exit(main())
