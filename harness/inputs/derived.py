"""What is made of kernels and the like, and takes a while: kept in the cache, within its bound."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.kernels import content, pruning
from bootproof.kernels.cache import DERIVED, Cache, CachedFile, default_cache_dir
from bootproof.kernels.content import Content
from bootproof.loader.address import GIB, parse_size

ENVIRONMENT: Final = "BOOTPROOF_CACHE_LIMIT"
DEFAULT: Final = 2 * GIB  # the default matrix makes half of it


def limit() -> int:
    """Bytes: what the environment says, else the default. Raises UserError."""
    try:
        return parse_size(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else DEFAULT
    except ValueError as error:
        raise UserError(f"{ENVIRONMENT}: {error}") from None


def kept(source: str, what: str, write: Callable[[Path], object]) -> tuple[CachedFile, Content]:
    """`what` is made of something with the digest `source`, out of the cache if it is there and as
    it was made; else `write` makes it at the path that it is given. The file, and what it holds,
    which stays when the file is removed.

    Raises UserError, FetchError for a cache that is of no use, and what `write` raises.
    """

    def written(path: Path) -> None:
        write(path)
        _keep_bound.cache_clear()

    cache = Cache(default_cache_dir())
    made = cache.file(source, what, written, room=DERIVED)
    held = content.of_cached(made)
    _keep_bound(cache.root / DERIVED, limit())
    return made, held


@functools.cache  # once a run, and again when something was made: it looks at all that is there
def _keep_bound(room: Path, limit: int) -> None:
    pruning.prune(room, limit)
