"""Benchmarks. Each prints ratios of things measured in turn in one run, never bare seconds."""
