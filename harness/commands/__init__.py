"""What the sub-commands of `bootproof` do that is not the work of another folder."""
