"""What runs in a worker of the cluster: one case, from what was sent to what is sent back.

Owns `Job` and `Done`, which are all that the two sides tell each other. Must not know the
scheduler, or who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from bootproof.harness import VERSION, typedjson
from bootproof.harness.arch.table import ARCHES
from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.host import rundir
from bootproof.harness.host.process import RUNNING
from bootproof.harness.prepare import Options
from bootproof.harness.prove import prove
from bootproof.harness.qemu.binary import find_qemu, version_text
from bootproof.harness.results import results
from bootproof.harness.suite.case_result import case_result
from bootproof.harness.suite.cluster import luggage
from bootproof.harness.suite.cluster.luggage import Packed, Sent
from bootproof.kernels import scratch

KERNEL: Final = "kernel"
INITRD: Final = "initrd"  # all of it: the archive of the proof, and the user's


@dataclass(frozen=True, slots=True)
class Job:
    """A case, and the files that it reads, as a worker has them."""

    case: Case
    # By what they are to the case: KERNEL, INITRD.
    files: Mapping[str, Sent]
    reproduce: str
    # Whether guest RAM comes back of a case that was as expected.
    keep_ram: bool


@dataclass(frozen=True, slots=True)
class Done:
    """How the case ended (a CaseResult as JSON), and its run directory."""

    result: Mapping[str, Any]
    files: Mapping[str, Packed]


def boot(job: Job) -> Done:
    """Boots a case in a directory of its own. Raises as `prove`."""
    case = replace(job.case, kernel_path=str(job.files[KERNEL].path))
    options = Options(initrd=job.files[INITRD].path.read_bytes())
    with scratch.directory() as place:
        directory = place / "run"
        proven = prove(case, directory, options)
        result = case_result(proven, job.reproduce)
        if result.as_expected and not job.keep_ram:
            rundir.drop_ram(directory)
        return Done(typedjson.to_json(result), luggage.packed(directory))


def abilities() -> dict[str, Any]:
    """What this worker has: versions of bootproof, of its results, and of QEMU by architecture."""
    emulators = {}
    for name in ARCHES:
        try:
            emulators[name] = version_text(find_qemu(name).version)
        except UserError:
            continue
    return {"bootproof": VERSION, "results": results.VERSION, "qemu": emulators}


def lacking(wanted: tuple[Sent, ...]) -> tuple[Sent, ...]:
    """What of this was never received here."""
    return tuple(sent for sent in wanted if not sent.path.exists())


def end_all() -> None:
    """Ends what runs in this worker: whoever asked for it has gone."""
    RUNNING.end()
    RUNNING.begin()
