"""The kernels that bootproof boots: named in a catalogue, fetched from a Debian mirror, cached,
locked.

    fetch.Fetcher().fetch(["6.1-cloud-amd64"]) -> [FetchedKernel(path=…, version=…, sha256=…, …)]

Must not know the loader or the harness. Nothing is imported here: most who need a module of this
room fetch nothing.
"""
