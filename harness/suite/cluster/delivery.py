"""A file on its way to every worker of a cluster, those that join later too.

Owns the one class that dask keeps for us; the only module of ours that needs dask to be imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from distributed import Worker, WorkerPlugin

from bootproof.harness.suite.cluster import luggage
from bootproof.harness.suite.cluster.luggage import Sent


@dataclass(frozen=True)
class Delivery(WorkerPlugin):
    """Keeps a file in each worker's cache, before any case runs there."""

    sent: Sent
    content: bytes

    def setup(self, worker: Worker) -> None:
        luggage.keep(self.sent, self.content)
