"""What tests write into docs/: held against what is there, or written anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

UPDATE: Final = "BOOTPROOF_UPDATE_DOCS"


def assert_is(page: Path, text: str) -> None:
    """With BOOTPROOF_UPDATE_DOCS=1 writes it."""
    if os.environ.get(UPDATE):
        page.write_text(text, "utf-8")
    assert page.read_text("utf-8") == text, f"run this test with {UPDATE}=1"
