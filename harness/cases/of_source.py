"""The case of a kernel that was found: what its file says, and what is wrong with the user's words.

Architecture and format come from the file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.cases import schema
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.inputs.images import KernelFile
from bootproof.kernels.sources import Source
from bootproof.loader.formats import Format
from bootproof.loader.identify import identify
from bootproof.loader.protocols.table import AUTO, PVH

if TYPE_CHECKING:
    from bootproof.harness.inputs.kernel_check import Checked

_ASKED: Final = tuple(entry for entry in schema.CASE if entry.name != "kernel")


def case(source: Source, words: Mapping[str, Any]) -> Case:
    """As bootproof.harness.cases.from_kernel; only the names of the words are known to be right."""
    file = images.opened(source)
    images.contained(file)
    from bootproof.harness.inputs import kernel_check  # not for what is no kernel

    found = kernel_check.check(file, words.get("machine"))
    unasked = words.get("unsafe") or words.get("no_proof")
    unprovable = None if unasked else found.problem
    if unprovable is not None and found.arch not in ARCHES:
        raise unprovable.error(file.name)
    arch, format_ = _arch_and_format(file, found, words.get("protocol"))
    data = {"arch": arch, "format": format_, "protocol": AUTO, **words}
    if data["format"] == Format.IMAGE.value:  # which has no place of its own to run at
        data = {"offset": "ram+2M", **data}
    if source.path is not None and not source.is_file:
        data["kernel_path"] = str(source.path)
    asked = schema.read_table(_ASKED, data, (), schema.ram_base(data))
    if asked.get("modules"):
        from bootproof.harness.inputs import modules  # and all that reads packages

        told = asked["modules"], source, file, arch, asked["format"]
        asked["modules"] = modules.resolved(*told)
    if unprovable is not None:  # after all that is wrong with the words
        raise unprovable.error(file.name)
    return Case(kernel=source.name if source.named else source.shown, **asked)


def _arch_and_format(file: KernelFile, found: Checked, protocol: str | None) -> tuple[str, str]:
    if found.arch is None or found.arch not in ARCHES:
        raise UserError(
            f"{file.name}: a kernel for {found.arch or 'an unknown architecture'};"
            f" bootproof boots {', '.join(ARCHES)}"
        )
    packed = identify(file.path).format is Format.BZIMAGE
    return found.arch, Format.ELF.value if packed and protocol == PVH else found.format
