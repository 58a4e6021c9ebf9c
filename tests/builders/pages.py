"""report.html as its script makes it: with all that is packed in it."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import Any

_BLOCK = re.compile(r'<script type="text/plain" class="block">([^<]*)</script>')


def blocks(page: str) -> list[dict[str, Any]]:
    """What is packed in a page."""
    return [json.loads(zlib.decompress(base64.b64decode(text))) for text in _BLOCK.findall(page)]


def opened(page: str) -> str:
    """The page with every case opened, and no block left."""
    bodies = (body for block in blocks(page) for body in block["bodies"])
    return "".join((_BLOCK.sub("", page), *bodies))


def lines(block: dict[str, Any], place: int) -> list[str]:
    """A transcript as the page's script puts it together."""
    stamps, steps, _ = block["transcripts"][place]
    at, clock, found = 0, 0, []
    for stamp, step in zip(stamps, steps, strict=True):
        at += step
        clock += stamp if isinstance(stamp, int) else 0
        of_kernel = f"[{clock // 1_000_000:5}.{clock % 1_000_000:06}] "
        found.append((of_kernel if isinstance(stamp, int) else stamp) + block["texts"][at])
    return found
