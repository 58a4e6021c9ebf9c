"""The project's own tests; the folders mirror those of the packages."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""The clone."""
