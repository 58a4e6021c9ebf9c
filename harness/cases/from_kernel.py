"""The case that a user's words about one kernel mean: of `boot`, `image`, `compare`, the fixtures.

Architecture and format come from the kernel's file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases import schema
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.loader.assemble import AUTO
from bootproof.loader.identify import Format, identify
from bootproof.loader.protocols import pvh
from bootproof.loader.unpack import unpack_fully

_ASKED: Final = tuple(entry for entry in schema.CASE if entry.name != "kernel")


def case_of(kernel: str, words: Mapping[str, Any], command: str) -> Case:
    """The case of a kernel as `command` takes it; `words` are by the names of its options.

    Raises UserError, FetchError, and LoaderError when the file is no kernel.
    """
    schema.check_keys((entry.name for entry in schema.options(command)), words, (), "option")
    source, file = images.find(kernel)
    arch, format_ = _arch_and_format(file, words.get("protocol"))
    data = {"arch": arch, "format": format_, "protocol": AUTO, **words}
    if data["format"] == Format.IMAGE.value:  # which has no place of its own to run at
        data = {"offset": "ram+2M", **data}
    if source.path is not None and not source.is_file:
        data["kernel_path"] = str(source.path)
    asked = schema.read_table(_ASKED, data, (), ARCHES[arch].ram_base)
    return Case(kernel=source.shown, **asked)


def _arch_and_format(kernel: KernelFile, protocol: str | None) -> tuple[str, str]:
    identity = identify(kernel.path)
    format_: str = identity.format.value
    arch = identity.arch
    if not identity.format.loadable:
        inner = unpack_fully(kernel.path)
        format_, arch = inner.format.value, inner.arch
    if identity.format is Format.BZIMAGE and protocol == pvh.NAME:
        format_ = Format.ELF.value
    if arch is None or arch not in ARCHES:
        raise UserError(
            f"{kernel.path}: a kernel for {arch or 'an unknown architecture'};"
            f" bootproof boots {', '.join(ARCHES)}"
        )
    return arch, format_
