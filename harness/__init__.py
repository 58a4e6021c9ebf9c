"""Everything with a side effect: QEMU, consoles, verdicts, the command line."""

VERSION = "0.1.0"
