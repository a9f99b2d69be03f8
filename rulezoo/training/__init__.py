"""Training networks by a rule: one step of many seeds, and one run from the first batch to the test."""
