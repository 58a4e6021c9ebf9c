"""The boot protocols there are, by name: the one list that every other is made from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bootproof.loader.protocols import BootProtocol, arm64, linux32, linux64, pvh

PROTOCOLS: Final[Mapping[str, BootProtocol]] = {
    module.NAME: module for module in (linux64, linux32, pvh, arm64)
}
