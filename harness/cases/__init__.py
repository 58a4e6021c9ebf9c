"""Which cases there are: scenario files, cases derived from a kernel, selections, shards."""
