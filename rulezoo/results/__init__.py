"""What is kept of runs: records in a store, and the notes beside them of what is under way."""
