"""What is known after a run, as data: written, read back, held against another run."""
