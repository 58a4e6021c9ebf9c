"""A kernel as a user names it, in every command: a file, package, build directory, URL with its
hash, or name of the catalogue.

Only finds it: what leads nowhere is refused before anything that reads kernels is imported.
"""

from __future__ import annotations

import sys

from bootproof.kernels import sources
from bootproof.kernels.sources import Source
from bootproof.loader.errors import one_line


def find(what: str) -> Source:
    """Says on stderr when a file hides a kernel of the catalogue. Raises FetchError."""
    source = sources.find(what)
    if source.remark:
        print(f"bootproof: {one_line(source.remark)}", file=sys.stderr)
    return source
