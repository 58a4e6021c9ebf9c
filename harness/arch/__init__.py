"""What the harness knows of an architecture; `table` has them all, and each is a module of its own.

Everything that asks which architecture it deals with asks a value of `arch.Arch` for what it needs
to know. What an architecture is to the loader (registers, stub) is the loader's: bootproof.loader.
"""
