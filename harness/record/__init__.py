"""Recorded runs: played back, debugged backwards, packed for another machine."""
