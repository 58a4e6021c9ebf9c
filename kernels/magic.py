"""How the packages of distributions begin. Those who read them bring much in."""

from __future__ import annotations

from typing import Final

DEB: Final = b"!<arch>\n"
RPM: Final = b"\xed\xab\xee\xdb"
