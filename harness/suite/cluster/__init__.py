"""Cases on many machines: a dask.distributed scheduler and its workers boot them.

`client` is what the matrix talks to, `workers` who is there, `task` and `work` what runs in a
worker, `luggage` how files travel between them. None of it knows pytest; dask is only imported
here, since few install it.
"""
