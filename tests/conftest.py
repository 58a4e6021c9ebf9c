"""For every test: neither this host's wall time nor the other tests are in its way."""

import gc

from hypothesis import settings

settings.register_profile("any host", deadline=None)
settings.load_profile("any host")


def pytest_collection_finish() -> None:
    """What was collected stays to the end: who looks for garbage need not go through it, as each
    session of pytest inside of a test does five times.
    """
    gc.collect()
    gc.freeze()
