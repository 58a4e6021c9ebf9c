"""Property tests here are the same every time and have no deadline: a busy host is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("bootproof", deadline=None, derandomize=True, database=None)
settings.load_profile("bootproof")
