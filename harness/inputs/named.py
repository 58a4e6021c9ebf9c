"""A kernel as a user names it, in every command: a file, package, build directory, URL with its
hash, or name of the catalogue.

Only finds it: what leads nowhere is refused before anything that reads kernels is imported.
"""

from __future__ import annotations

import os
from pathlib import Path

from bootproof.harness import places
from bootproof.harness.errors import UserError
from bootproof.harness.host.stdout import say
from bootproof.kernels import sources
from bootproof.kernels.errors import FetchError
from bootproof.kernels.sources import Source


def find(what: str) -> Source:
    """Says on stderr when a file hides a kernel of the catalogue. Raises FetchError, and UserError
    for a boot image.
    """
    try:
        source = sources.find(what)
    except FetchError as error:
        if _is_boot_image(what):
            told = f"is a boot image, not a kernel; start it with `{places.COMMAND} run`"
            raise UserError(f"{what}: {told}") from error
        raise
    if source.remark:
        say(source.remark)
    return source


def _is_boot_image(what: str) -> bool:
    """Whether it is the directory of one, as a run's is."""
    if not os.path.isdir(what):  # noqa: PTH112  # Path.is_dir raises for long names
        return False
    from bootproof.loader import bootimage  # which a name that leads nowhere needs not

    return (Path(what) / bootimage.DESCRIPTION).is_file()
