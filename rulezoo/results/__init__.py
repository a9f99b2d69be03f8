"""What is kept of runs: records in a store, and the notes next to them of what is under way."""
