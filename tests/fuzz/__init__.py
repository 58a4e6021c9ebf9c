"""Fuzzing of every parser: `bootproof fuzz` (docs/fuzzing.md)."""
