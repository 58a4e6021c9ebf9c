"""The words of the command line: each module adds some sub-commands and carries them out.

Modules that do the work are imported where they are needed, so that `--help` answers at once.
"""
