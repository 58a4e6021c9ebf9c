"""bootproof as it is installed: the packages loader, harness, kernels and scenarios in one.

In the repository these four are top-level packages; a wheel holds them as bootproof.loader and so
on, so that nobody's own `loader` or `harness` meets them (docs/architecture.md). setup.py does it.
"""
