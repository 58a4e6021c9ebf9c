"""The kernels that bootproof boots: named in a catalogue, fetched from a Debian mirror, cached,
locked.

    Fetcher().fetch(["6.1-cloud-amd64"]) -> [FetchedKernel(path=…, version=…, sha256=…, …)]

Must not know the loader or the harness.
"""

from bootproof.kernels.catalog import Catalog, CatalogEntry, Kind, load_catalog
from bootproof.kernels.errors import FetchError
from bootproof.kernels.fetch import FetchedKernel, Fetcher, FetchErrors, Row
from bootproof.kernels.progress import Progress, Quiet, console_progress
from bootproof.kernels.records import LockMode

__all__ = [
    "Catalog",
    "CatalogEntry",
    "FetchError",
    "FetchErrors",
    "FetchedKernel",
    "Fetcher",
    "Kind",
    "LockMode",
    "Progress",
    "Quiet",
    "Row",
    "console_progress",
    "load_catalog",
]
