"""How the packages of distributions begin. Those who read them bring much in."""

from __future__ import annotations

from typing import Final

AR: Final = b"!<arch>\n"
DEB: Final = AR + b"debian-binary"
RPM: Final = b"\xed\xab\xee\xdb"
