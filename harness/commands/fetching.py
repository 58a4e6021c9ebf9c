"""`bootproof fetch` and the kernel part of `bootproof setup`."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from bootproof.kernels import Fetcher, LockMode, load_catalog


def fetch(names: Iterable[str], mirror: str | None, mode: LockMode) -> int:
    """Fetches by name, the default set without names. Raises FetchError, FetchErrors."""
    wanted = list(names) or [entry.name for entry in load_catalog().default()]
    for kernel in Fetcher(mirror, lock=mode).fetch(wanted):
        print(f"{kernel.name:<20} {kernel.version:<24} {kernel.path}")
    return 0


def fetch_default_set() -> int:
    """What `setup` does beyond the launcher: every kernel of the default set in the cache."""
    names = [entry.name for entry in load_catalog().default()]
    kernels = Fetcher().fetch(names)
    print(f"bootproof: ready; {len(kernels)} files of the default set are in the cache")
    return 0


def show_catalogue(mirror: str | None, mode: LockMode) -> int:
    """Prints the catalogue: what it names, what it resolved to, what is cached."""
    table = Table(box=None, pad_edge=False)
    for heading in ("NAME", "ARCH", "SUITE", "VERSION", "", "ABOUT"):
        table.add_column(heading, no_wrap=heading != "ABOUT")
    for row in Fetcher(mirror, lock=mode).list_rows():
        version = row.resolved.version if row.resolved else "not resolved yet"
        state = "cached" if row.cached else "-"
        marks = f"{row.entry.about}{' (default set)' if row.entry.default else ''}"
        table.add_row(row.entry.name, row.entry.arch, row.entry.suite, version, state, marks)
    Console().print(table)
    return 0
