"""What is put into a guest, and what can be read out of one that runs."""
