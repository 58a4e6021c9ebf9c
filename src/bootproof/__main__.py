"""`python -m bootproof`."""

from bootproof.harness.cli import program

program()
