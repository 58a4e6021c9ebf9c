"""The time that a guest sees."""

from __future__ import annotations

from typing import Final

GUEST_CLOCK: Final = "2026-01-01T00:00:00"
"""When every guest begins."""

ICOUNT_SHIFT: Final = 3
"""One instruction is 2^3 ns of guest time."""
