"""A kernel as a user names it, in every command: a file, package, build directory, URL with its
hash, or name of the catalogue.

Only finds it: what leads nowhere is refused before anything that reads kernels is imported.
"""

from __future__ import annotations

from bootproof.harness.host.stdout import say
from bootproof.kernels import sources
from bootproof.kernels.sources import Source


def find(what: str) -> Source:
    """Says on stderr when a file hides a kernel of the catalogue. Raises FetchError."""
    source = sources.find(what)
    if source.remark:
        say(source.remark)
    return source
