"""What every bench has on its command line, and the file that its numbers can go to.

Owns the words that all take and the form of the file: which bench, on what machine and when, and
what it measured, each run of it, under the names of the bench's own fields.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import sys
from dataclasses import asdict
from pathlib import Path

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.errors import UserError
from bootproof.harness.qemu.binary import find_qemu, version_text
from bootproof.loader.address import format_size


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Of a bench with this docstring: `--json`, to which the bench adds its own."""
    words = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    words.add_argument("--json", type=Path, metavar="FILE", help="where the numbers go as well")
    return words


def write(path: Path | None, measured: object) -> None:
    """Writes what was measured, if it is asked for: dataclasses by their fields' names."""
    if path is None:
        return
    data = {
        "bench": Path(sys.argv[0]).stem,
        "date": today(),
        "machine": machine(),
        "measured": measured,
    }
    path.write_text(json.dumps(data, indent=2, default=asdict) + "\n", encoding="utf-8")


def today() -> str:
    return str(datetime.datetime.now(datetime.UTC).date())


def machine() -> str:
    """The CPU, its memory, and the versions that matter."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    cpu = model[1].strip() if model else platform.machine()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory = format_size(total >> 30 << 30)
    emulators = []
    for name in ARCHES:
        try:
            emulators.append(f"{name} {version_text(find_qemu(name).version)}")
        except UserError:
            continue
    return (
        f"{os.cpu_count()} CPUs ({cpu}), {memory}, Linux {platform.release()}, Python"
        f" {platform.python_version()}, QEMU {', '.join(emulators)} under TCG"
    )
