"""Many cases in one pytest session: `bootproof matrix`."""
