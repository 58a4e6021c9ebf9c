"""Kernel images into guest memory: bytes in, bytes out; nothing here starts a process.

The semantics are those of rust-vmm's linux-loader 0.14; docs/differences.md lists where and why
they are not.
"""
