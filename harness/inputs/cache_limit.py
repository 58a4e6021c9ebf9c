"""How much of what was made of kernels the cache keeps."""

from __future__ import annotations

import os
from typing import Final

from bootproof.harness.errors import UserError
from bootproof.loader.address import GIB, parse_size

ENVIRONMENT: Final = "BOOTPROOF_CACHE_LIMIT"
DEFAULT: Final = 2 * GIB  # the default matrix makes half of it


def limit() -> int:
    """Bytes: what the environment says, else the default. Raises UserError."""
    try:
        return parse_size(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else DEFAULT
    except ValueError as error:
        raise UserError(f"{ENVIRONMENT}: {error}") from None
