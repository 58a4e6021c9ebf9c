"""A task of dask: a case, booted as long as dask wants it.

Owns what a worker knows of the task that it runs; the only module of ours that needs dask to be
imported.
"""

from __future__ import annotations

from typing import Any, Final

import distributed
from distributed.core import Status

from bootproof.harness.errors import UserError
from bootproof.harness.suite.cluster import work
from bootproof.harness.suite.cluster.work import Done, Failed, Job, Lacks
from bootproof.kernels.errors import FetchError
from bootproof.printable import one_line

_DASK: Final[Any] = distributed  # which has no types worth the name
_CANCELLED: Final = "cancelled"  # distributed.worker_state_machine.TaskStateState
_OF_MACHINE: Final = (UserError, FetchError, OSError, MemoryError, ImportError)
_ENDING: Final = (Status.closing, Status.closed, Status.failed)


def run(job: Job) -> tuple[str, Done | Lacks | Failed]:
    """What became of the case, and the address of the worker.

    It ends early when the matrix has cancelled it or has gone, and when the worker has lost its
    scheduler: dask leaves a thread alone, and its guest would go on.
    """
    worker = _DASK.get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return worker.status not in _ENDING and task is not None and task.state != _CANCELLED

    try:
        return worker.address, work.boot(job, wanted)
    except _OF_MACHINE as error:
        return worker.address, Failed(one_line(str(error) or type(error).__name__))
