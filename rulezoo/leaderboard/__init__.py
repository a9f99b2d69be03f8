"""The table of results: its grid, scores and statistics, and how it is written."""
