"""How large report.html becomes, and how long a browser takes until it can be read and used.

    .venv/bin/python -m bench.page [--cases N] [--transcript FILE] [--json FILE]

Owns making results of N cases whose kernels printed as much as FILE says, or 1,000 lines, each at
other times, one in fifty of them not as expected; and headless Chromium, as the tests use it. The
seconds (host wall, the median of the rounds) are from the start of the navigation to the second
frame after "load", which the user sees, and from a click on a case to its details. Nothing here
boots.
"""

from __future__ import annotations

import random
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from bench import numbers
from bootproof.harness.report import page
from bootproof.harness.results import results
from bootproof.harness.results.results import CaseResult, Register, Results
from bootproof.loader.address import MIB
from tests.builders import results as builder
from tests.builders.programs import host_program

TARGET: Final = 2.0  # seconds until 2,000 cases are there
_KERNELS: Final = 5
_BAD: Final = 50  # one of so many
_STAMP: Final = re.compile(rb"^\[ *(\d+\.\d+)\]", re.MULTILINE)
_SHOWN: Final = """
const done = arguments[arguments.length - 1];
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())));
"""
_OPENED: Final = """
const done = arguments[arguments.length - 1], began = performance.now();
const item = [...document.querySelectorAll("details.case:not(.bad)")].pop();
new MutationObserver(() => requestAnimationFrame(() => done(performance.now() - began)))
  .observe(item, {childList: true});
item.querySelector("summary").click();
"""


def made(count: int, transcript: bytes) -> Results:
    """A run of `count` cases."""
    chance = random.Random(1)
    return builder.run(*(_case(number, transcript, chance) for number in range(count)))


def _case(number: int, transcript: bytes, chance: random.Random) -> CaseResult:
    drift = 0

    def later(match: re.Match[bytes]) -> bytes:
        nonlocal drift
        drift += chance.randrange(40)
        return b"[%12.6f]" % (float(match[1]) + drift / 1e6)

    registers = tuple(
        Register(f"r{n}", f"selector {n:#x} base 0x0 limit 0xffffffff", "0x0", True)
        for n in range(34)
    )
    make = builder.failed if number % _BAD == 0 else builder.case
    case = make(f"elf-linux64-+{2 * (number // _KERNELS)}M", f"6.{number % _KERNELS}")
    printed = results.transcript(_STAMP.sub(later, transcript))
    return replace(case, registers=registers, transcript=printed)


def lines() -> bytes:
    """As much as a Debian kernel prints."""
    return b"".join(
        b"[%12.6f] some driver says %d of %d\r\n" % (n / 500, n * 7919 % 1000, n)
        for n in range(1000)
    )


def measured(file: Path, rounds: int) -> tuple[float, float]:
    """Seconds until the page is there, and until the details of a case are."""
    options = webdriver.ChromeOptions()
    options.binary_location = host_program("chromium")
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"):
        options.add_argument(argument)
    browser = webdriver.Chrome(options=options, service=Service(host_program("chromedriver")))
    shown, opened = [], []
    try:
        for _ in range(rounds):
            browser.get("about:blank")
            browser.get(file.as_uri())
            shown.append(browser.execute_async_script(_SHOWN) / 1000)
            opened.append(browser.execute_async_script(_OPENED) / 1000)
    finally:
        browser.quit()
    return statistics.median(shown), statistics.median(opened)


@dataclass(frozen=True, slots=True)
class Page:
    """A page of so many cases: its bytes, CPU seconds to make it, seconds to open it and a case."""

    cases: int
    size: int
    rendered: float
    shown: float
    opened: float

    def __str__(self) -> str:
        return (
            f"{self.cases} cases: {self.size / MIB:.1f} MiB, rendered in {self.rendered:.1f} CPU s;"
            f" there after {self.shown:.2f} s, a case after {self.opened:.2f} s more"
        )


def opened(count: int, transcript: bytes | None = None, rounds: int = 5) -> Page:
    """Makes the page of `count` cases and opens it in a browser."""
    run = made(count, lines() if transcript is None else transcript)
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "report.html"
        began = time.process_time()
        file.write_text(page.render(run), "utf-8")
        rendered = time.process_time() - began
        return Page(count, file.stat().st_size, rendered, *measured(file, rounds))


def main() -> int:
    """Prints a line; 0 when the target is met, else 1."""
    parser = numbers.parser(__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--transcript", type=Path, help="a console.log (default: 1,000 lines)")
    arguments = parser.parse_args()
    printed = arguments.transcript.read_bytes() if arguments.transcript else None
    found = opened(arguments.cases, printed, arguments.rounds)
    print(found)
    met = found.shown <= TARGET
    print(f"target (there within {TARGET} s):", "met" if met else "missed")
    numbers.write(arguments.json, found)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
